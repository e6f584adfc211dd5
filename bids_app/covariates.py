"""What people know of participants and results: covariates, and ratings by eye."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

from bids_app.acquisition import session_columns
from bids_app.columns import GROUP
from bids_app.derivatives import NOT_AVAILABLE, read_json
from bids_app.errors import DatasetError, UsageError, reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Row = dict[str, str]

RATED = ("source", "model", "model_version")  # what tells a result from all others
_TAKES = ("site",)  # columns of the table that participants.tsv may fill


def join_covariates(
    rows: Sequence[Row], bids_dir: Path, covariates: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Add columns of participants.tsv to rows, in place.

    Where ``sub-<label>_sessions.tsv`` has the column, such as the age at a session, the session's
    own value is taken.

    Parameters
    ----------
    rows : sequence of dict
        With the keys of `bids_app.columns.GROUP`.
    bids_dir : Path
        The input dataset.
    covariates : sequence of str
        Names of columns.

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
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            names = reader.fieldnames or []
            people = {row["participant_id"]: row for row in reader if row.get("participant_id")}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"--covariates: {path} cannot be read ({reason(error)}).") from None
    free = [name for name in names if name not in GROUP or name in _TAKES]
    for column in covariates:
        if column not in free:
            raise UsageError(
                f"--covariates {column}: participants.tsv has no such column to join. It has: "
                f"{', '.join(free)}."
            )
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


def join_ratings(rows: Sequence[Row], path: Path) -> None:
    """Fill in ratings that were exported from the group's page, in place.

    Parameters
    ----------
    rows : sequence of dict
        With the keys of `bids_app.columns.GROUP`.
    path : Path
        Table with the columns of `RATED` and ``rating``, there or not.

    Raises
    ------
    UsageError
        It has other columns or other ratings than pass, fail and n/a.
    """
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read ({reason(error)}).") from None
    allowed = {*GROUP["rating"]["Levels"], NOT_AVAILABLE}
    ratings = {}
    for count, line in enumerate(lines, start=2):
        if any(line.get(column) is None for column in (*RATED, "rating")):
            raise UsageError(f"{path}, line {count}: needs {', '.join((*RATED, 'rating'))}.")
        if line["rating"] not in allowed:
            found = json.dumps(line["rating"], ensure_ascii=False)
            raise UsageError(f"{path}, line {count}: rating is {found}, not pass or fail.")
        ratings[tuple(line[column] for column in RATED)] = line["rating"]
    for row in rows:
        row["rating"] = ratings.get(tuple(row[column] for column in RATED), NOT_AVAILABLE)
