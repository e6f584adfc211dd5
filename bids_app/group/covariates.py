"""What people know of participants and results: covariates, and ratings by eye."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from bids_app.bids.columns import GROUP
from bids_app.bids.sidecars import session_columns
from bids_app.errors import DatasetError, UsageError
from bids_app.io.tables import NOT_AVAILABLE, read_json, read_own_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Row = dict[str, str]

LOG = logging.getLogger(__name__)
RATED = ("source", "model", "model_version")  # what tells a result from all others
_TAKES = ("site",)  # columns of the table that participants.tsv may fill


def join_covariates(
    rows: Sequence[Row], bids_dir: Path, covariates: Sequence[str], *, whole: bool = True
) -> dict[str, dict[str, str]]:
    """Add columns of participants.tsv to rows, in place.

    Where ``sub-<label>_sessions.tsv`` has the column, such as the age at a session, the session's
    own value is taken.

    Parameters
    ----------
    rows : sequence of dict
        With the keys of `bids_app.bids.columns.GROUP`.
    bids_dir : Path
        The input dataset.
    covariates : sequence of str
        Names of columns.
    whole : bool
        Whether these are all rows of the dataset, so that every line should find some.

    Returns
    -------
    dict of str to dict
        Entries of the data dictionary for the columns that are new.

    Raises
    ------
    DatasetError
        participants.tsv cannot be read.
    UsageError
        It has no such column.
    """
    path = bids_dir / "participants.tsv"
    try:
        names, lines = read_own_table(path)
    except ValueError as error:
        raise DatasetError(f"--covariates: {path} {error}") from None
    people = {line["participant_id"]: line for line in lines if line.get("participant_id")}
    free = [name for name in names if name not in GROUP or name in _TAKES]
    for column in covariates:
        if column not in free:
            raise UsageError(
                f"--covariates {column}: participants.tsv has no such column to join. It has: "
                f"{', '.join(free)}."
            )
    there = {row["participant_id"] for row in rows}
    if missing := sorted(there - people.keys()):
        LOG.warning(
            "--covariates: participants.tsv has no row for %d of %d participants, such as %s",
            len(missing), len(there), missing[0],
        )  # fmt: skip
    if whole and (unused := sorted(people.keys() - there)):
        LOG.warning(
            "--covariates: %d of %d rows of participants.tsv match no result, such as %s",
            len(unused), len(people), unused[0],
        )  # fmt: skip
    for row in rows:
        person = people.get(row["participant_id"], {})
        session = session_columns(bids_dir, row) if row["session_id"] != NOT_AVAILABLE else {}
        for column in covariates:
            text = session.get(column) or person.get(column) or NOT_AVAILABLE
            row[column] = text.strip() or NOT_AVAILABLE
    described = read_json(path.with_suffix(".json"))
    return {
        column: described.get(column, {"Description": f"{column}, from participants.tsv"})
        for column in covariates
        if column not in GROUP
    }


def join_ratings(rows: Sequence[Row], path: Path, *, whole: bool = True) -> None:
    """Fill in ratings that were exported from the group's page, in place.

    Parameters
    ----------
    rows : sequence of dict
        With the keys of `bids_app.bids.columns.GROUP`. What failed is no result, and not rated.
    path : Path
        Table with the columns of `RATED` and ``rating``, there or not.
    whole : bool
        Whether these are all rows of the dataset, so that every rating should find one.

    Raises
    ------
    UsageError
        It has other columns or other ratings than pass, fail and n/a.
    """
    if not path.is_file():
        return
    needed = (*RATED, "rating")
    try:
        names, lines = read_own_table(path)
    except ValueError as error:
        raise UsageError(f"{path} {error}") from None
    if missing := [column for column in needed if column not in names]:
        raise UsageError(f"{path} has no column {missing[0]}. It needs {', '.join(needed)}.")
    allowed = {*GROUP["rating"].levels, NOT_AVAILABLE}
    ratings = {}
    for count, line in enumerate(lines, start=2):
        if any(line[column] is None for column in needed):
            raise UsageError(f"{path}, line {count}: needs {', '.join(needed)}.")
        if line["rating"] not in allowed:
            found = json.dumps(line["rating"], ensure_ascii=False)
            raise UsageError(f"{path}, line {count}: rating is {found}, not pass or fail.")
        ratings[tuple(line[column] for column in RATED)] = line["rating"]
    unused = dict(ratings)
    for row in rows:
        if row["flags"] != "failed":
            key = tuple(row[column] for column in RATED)
            row["rating"] = ratings.get(key, NOT_AVAILABLE)
            unused.pop(key, None)
    if whole and unused:
        LOG.warning(
            "%s: %d of %d ratings match no result (%s), such as %s",
            path.name, len(unused), len(ratings), ", ".join(RATED), ", ".join(next(iter(unused))),
        )  # fmt: skip
