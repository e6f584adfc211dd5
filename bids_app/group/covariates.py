"""What is known about participants and images besides the results.

Covariates from participants.tsv, scanner and dates of the source images, and manual ratings. The
readers are in `bids_app.bids.sidecars`; this module joins what they read to the table of a dataset.
"""

from __future__ import annotations

import json
import logging
import math
import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from bids_app.bids.columns import ACQUISITION, FLAGS, GROUP
from bids_app.bids.sidecars import FIELDS, years
from bids_app.errors import UsageError, few
from bids_app.group.table import FAILED
from bids_app.io.tables import NOT_AVAILABLE, Column, Columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

LOG = logging.getLogger(__name__)
KEYS = ("source", "model", "model_version")  # identify a result
RATED = (*KEYS, "rating")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")
_TAKES = ("site",)  # columns of the table that participants.tsv may fill


def join_covariates(
    volumes: pd.DataFrame,
    covariates: Sequence[str],
    people: tuple[Sequence[str], Sequence[Mapping[str, str]]],
    sessions: Mapping[tuple[str, str], Mapping[str, str]],
    described: Mapping[str, Any],
    *,
    whole: bool = True,
) -> tuple[pd.DataFrame, Columns]:
    """Join columns of participants.tsv.

    If ``sub-<label>_sessions.tsv`` has the column, such as the age at a session, the session's own
    value is taken. participants.tsv may have a row per session, with a column ``session_id``.

    Parameters
    ----------
    volumes : pandas.DataFrame
        Columns of `bids_app.bids.columns.GROUP`.
    covariates : sequence of str
        Names of columns.
    people : tuple of columns and rows
        participants.tsv, as `bids_app.io.tables.read_user_table` gives it.
    sessions : mapping of (str, str) to mapping
        By participant and session, what their sessions table says.
    described : mapping of str
        participants.json.
    whole : bool
        Whether these are all rows of the dataset, so that every participant should have some.

    Returns
    -------
    volumes : pandas.DataFrame
    columns : dict of str to Column
        The new columns; all are texts, as the user wrote them.

    Raises
    ------
    UsageError
        participants.tsv has no such column, or rows that contradict each other.
    """
    names, lines = [name.strip() for name in people[0]], people[1]
    if "participant_id" not in names:
        raise UsageError(
            "--covariates: participants.tsv has no column participant_id. Name the column with the "
            f"participants so; its columns are: {', '.join(names)}."
        )
    free = [name for name in names if name not in GROUP or name in _TAKES]
    for column in covariates:
        if column not in free:
            raise UsageError(
                f"--covariates {column}: participants.tsv has no such column to join. It has: "
                f"{', '.join(free)}."
            )
    known = _by_participant_and_session(lines, covariates)
    _warn_of_unmatched(set(volumes["participant_id"]), {key[0] for key in known}, whole=whole)
    keys = list(zip(volumes["participant_id"], volumes["session_id"], strict=True))
    joined = {}
    for column in covariates:
        texts = [
            sessions.get(key, {}).get(column)
            or known.get(key, {}).get(column)
            or known.get((key[0], ""), {}).get(column)
            for key in keys
        ]
        joined[column] = _texts(_with_points(column, texts), volumes.index)
    new = {
        column: Column(column, extra=_described(described.get(column), column))
        for column in covariates
        if column not in GROUP
    }
    return volumes.assign(**joined), new


def _by_participant_and_session(
    lines: Sequence[Mapping[str, str]], covariates: Sequence[str]
) -> dict[tuple[str, str], dict[str, str]]:
    """Key rows of participants.tsv; the session is empty where a row holds for all of them.

    Raises
    ------
    UsageError
        Two rows of the same key have different covariates.
    """
    known: dict[tuple[str, str], dict[str, str]] = {}
    repeated: list[str] = []
    for line in lines:
        # Surplus cells are under the key None, and a missing cell is None.
        cells = {name.strip(): (text or "").strip() for name, text in line.items() if name}
        ids = [cells.get(name, "") for name in ("participant_id", "session_id")]
        participant, session = ["" if text == NOT_AVAILABLE else text for text in ids]
        if not participant:
            continue
        key = (
            f"sub-{participant.removeprefix('sub-')}",
            f"ses-{session.removeprefix('ses-')}" if session else "",
        )
        if key in known:
            repeated.append(" ".join(key).strip())
        earlier = known.setdefault(key, cells)
        for column in covariates:
            if earlier.get(column) != cells.get(column):
                raise UsageError(
                    f"--covariates {column}: participants.tsv has several rows of "
                    f"{' '.join(key).strip()} with different values, "
                    f"{earlier.get(column)!r} and {cells.get(column)!r}. "
                    "Keep one row, or add a column session_id if they are of different sessions."
                )
    if repeated:
        LOG.warning("--covariates: participants.tsv has several rows of %s", few(repeated))
    return known


def _with_points(column: str, texts: Sequence[str | None]) -> list[str | None]:
    """Write decimal commas as points where all values of a column are numbers."""
    values = [text.strip() for text in texts if text and text.strip() not in ("", NOT_AVAILABLE)]
    if not any("," in value for value in values) or not all(map(_NUMBER.fullmatch, values)):
        return list(texts)
    LOG.warning("--covariates %s: decimal commas are read as points", column)
    return [text.replace(",", ".") if text else text for text in texts]


def _described(entry: object, column: str) -> dict[str, Any]:
    """Give the user's own entry of the data dictionary, or a plain one."""
    if isinstance(entry, dict) and entry:
        return entry
    return {"Description": f"{column}, from participants.tsv"}


def _warn_of_unmatched(there: set[str], known: set[str], *, whole: bool) -> None:
    if missing := sorted(there - known):
        LOG.warning(
            "--covariates: participants.tsv has no row for %d of %d participants, such as %s",
            len(missing), len(there), missing[0],
        )  # fmt: skip
    if whole and (unused := sorted(known - there)):
        LOG.warning(
            "--covariates: %d of %d rows of participants.tsv match no result, such as %s",
            len(unused), len(known), unused[0],
        )  # fmt: skip


def _texts(texts: Sequence[str | None], index: pd.Index[Any]) -> pd.Series[Any]:
    """Make a column of texts; what is empty or n/a is NaN."""
    stripped = [(text or "").strip() for text in texts]
    cells = [math.nan if text in ("", NOT_AVAILABLE) else text for text in stripped]
    return pd.Series(cells, index=index, dtype=object)


def add_acquisition(
    volumes: pd.DataFrame,
    scanners: Mapping[str, Mapping[str, Any]],
    dates: Mapping[str, datetime],
) -> pd.DataFrame:
    """Fill in scanner, site, batch, and years since the participant's first dated image.

    Parameters
    ----------
    volumes : pandas.DataFrame
        Columns of `bids_app.bids.columns.GROUP`; a site that is there already is kept.
    scanners : mapping of str to mapping
        By path of the source image; from `bids_app.bids.sidecars.read_scanners`.
    dates : mapping of str to datetime
        By path of the source image; from `bids_app.bids.sidecars.read_dates`.
    """
    sources = volumes["source"].tolist()
    filled: dict[str, pd.Series[Any]] = {}
    for column in FIELDS:
        found = [scanners.get(source, {}).get(column) for source in sources]
        dtype = object if ACQUISITION[column].dtype == "str" else float
        values = [math.nan if value is None else value for value in found]
        series = pd.Series(values, index=volumes.index, dtype=dtype)
        filled[column] = volumes[column].where(volumes[column].notna(), series)
    texts = [ACQUISITION[column].texts(series.tolist()) for column, series in filled.items()]
    batches = [
        ", ".join(text for text in row if text != NOT_AVAILABLE) for row in zip(*texts, strict=True)
    ]
    filled["batch"] = _texts(batches, volumes.index)
    filled["years_since_first"] = _years_since_first(volumes, dates)
    return volumes.assign(**filled)


def _years_since_first(volumes: pd.DataFrame, dates: Mapping[str, datetime]) -> pd.Series[Any]:
    images = list(zip(volumes["participant_id"], map(dates.get, volumes["source"]), strict=True))
    first: dict[str, datetime] = {}
    for person, date in images:
        if date is not None:
            first[person] = min(date, first.get(person, date))
    column = ACQUISITION["years_since_first"]
    spans = [
        math.nan if date is None else column.rounded(years(first[person], date))
        for person, date in images
    ]
    return pd.Series(spans, index=volumes.index, dtype=float)


def join_ratings(
    volumes: pd.DataFrame,
    names: Sequence[str],
    lines: Sequence[Mapping[str, str]],
    place: str,
    *,
    whole: bool = True,
) -> pd.DataFrame:
    """Join manual ratings that were exported from the group's page.

    Parameters
    ----------
    volumes : pandas.DataFrame
        Columns of `bids_app.bids.columns.GROUP`. Failed images have no result to rate.
    names, lines
        The table of ratings, as `bids_app.io.tables.read_user_table` gives it.
    place : str
        Its path, for messages.
    whole : bool
        Whether these are all rows of the dataset, so that every rating should match one.

    Raises
    ------
    UsageError
        The columns of `RATED` are not all there, or a rating is not pass, fail or n/a.
    """
    if missing := [column for column in RATED if column not in names]:
        raise UsageError(f"{place} has no column {missing[0]}. It needs {', '.join(RATED)}.")
    ratings = _read_ratings(lines, place)
    keys = list(zip(*(volumes[column] for column in KEYS), strict=True))
    rated = [
        None if flags == FAILED else ratings.get(key)
        for key, flags in zip(keys, volumes["flags"], strict=True)
    ]
    there = {key for key, flags in zip(keys, volumes["flags"], strict=True) if flags != FAILED}
    if whole and (unused := [key for key in ratings if key not in there]):
        LOG.warning(
            "%s: %d of %d ratings match no result (%s), such as %s",
            place, len(unused), len(ratings), ", ".join(KEYS), ", ".join(unused[0]),
        )  # fmt: skip
    return volumes.assign(rating=_texts(rated, volumes.index))


def _read_ratings(lines: Sequence[Mapping[str, str]], place: str) -> dict[tuple[str, ...], str]:
    allowed = {*FLAGS["rating"].levels, NOT_AVAILABLE}
    ratings = {}
    for count, line in enumerate(lines, start=2):
        if any(line[column] is None for column in RATED):
            raise UsageError(f"{place}, line {count}: needs {', '.join(RATED)}.")
        if line["rating"] not in allowed:
            found = json.dumps(line["rating"], ensure_ascii=False)
            raise UsageError(f"{place}, line {count}: rating is {found}, not pass or fail.")
        ratings[tuple(line[column] for column in KEYS)] = line["rating"]
    return ratings
