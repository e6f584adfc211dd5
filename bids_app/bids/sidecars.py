"""How and when source images were taken: scanner, field strength and site, and dates.

Scanner and site come from the images' JSON sidecars, by BIDS' principle of inheritance; dates
from ``acq_time`` in ``*_scans.tsv``, or else in ``*_sessions.tsv``. See
https://bids-specification.readthedocs.io/en/stable/modality-specific-files/magnetic-resonance-imaging-data.html
and .../modality-agnostic-files/data-summary-files.html. Dates themselves are never written.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_app.io.tables import NOT_AVAILABLE, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    Row = dict[str, str]

DAYS_A_YEAR = 365.25
# Column of the group table: field of a BIDS sidecar.
FIELDS = {
    "site": "InstitutionName",
    "manufacturer": "Manufacturer",
    "scanner_model": "ManufacturersModelName",
    "field_strength_t": "MagneticFieldStrength",
}
_PATTERN = "*T1w.json"


def add_scanners(rows: Iterable[Row], bids_dir: Path) -> None:
    """Fill in the columns of `FIELDS` and ``batch``, in place.

    Parameters
    ----------
    rows : iterable of dict
        With the keys of `bids_app.bids.columns.GROUP`; a site that is there already is kept.
    bids_dir : Path
        The input dataset.
    """
    _sidecars.cache_clear()  # files may have changed since an earlier call
    for row in rows:
        told = inherited(bids_dir, row["source"])
        for column, field in FIELDS.items():
            if row[column] == NOT_AVAILABLE:
                row[column] = _text(told.get(field))
        known = [row[column] for column in FIELDS if row[column] != NOT_AVAILABLE]
        row["batch"] = ", ".join(known) or NOT_AVAILABLE


def inherited(bids_dir: Path, source: str) -> dict[str, Any]:
    """Read the metadata of an image from all sidecars that apply to it.

    Parameters
    ----------
    bids_dir : Path
        The dataset.
    source : str
        Path of a T1w image in it.
    """
    *folders, name = source.split("/")
    entities = frozenset(name.split("_")[:-1])
    merged: dict[str, Any] = {}
    for depth in range(len(folders) + 1):
        for path, its in _sidecars(bids_dir.joinpath(*folders[:depth])):
            if its <= entities:  # the one with the most entities comes last
                merged |= read_json(path)
    return merged


@lru_cache(maxsize=8)
def _sidecars(folder: Path) -> list[tuple[Path, frozenset[str]]]:
    """List the sidecars of T1w images in a folder with their entities, the fewest first."""
    try:
        found = [(path, frozenset(path.name.split("_")[:-1])) for path in folder.glob(_PATTERN)]
    except OSError:
        return []
    return sorted(found, key=lambda pair: (len(pair[1]), pair[0]))


def _text(value: object) -> str:
    """Write a value in one cell of a table that any reader of tables takes."""
    if isinstance(value, bool | list | dict) or value is None:
        return NOT_AVAILABLE
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace('"', "'").split()) or NOT_AVAILABLE


# --- dates --------------------------------------------------------------------------------


def read_dates(rows: Iterable[Row], bids_dir: Path) -> dict[str, datetime]:
    """Find out when images were taken, by their path; images without a date are left out."""
    read_tsv.cache_clear()  # files may have changed since an earlier call
    dates = {}
    for source in dict.fromkeys(row["source"] for row in rows):
        date = _date(bids_dir, PurePosixPath(source))
        if date is not None:
            dates[source] = date
    return dates


def add_years(rows: Sequence[Row], dates: Mapping[str, datetime]) -> None:
    """Fill in ``years_since_first``, in place: since the participant's first dated image."""
    first: dict[str, datetime] = {}
    for row in rows:
        if date := dates.get(row["source"]):
            person = row["participant_id"]
            first[person] = min(date, first.get(person, date))
    for row in rows:
        if date := dates.get(row["source"]):
            row["years_since_first"] = f"{years(first[row['participant_id']], date):.3f}"


def years(start: datetime, end: datetime) -> float:
    """Years from one date to another."""
    return (end - start).total_seconds() / 86400 / DAYS_A_YEAR


def session_columns(bids_dir: Path, row: Row) -> dict[str, str]:
    """Read what ``*_sessions.tsv`` says of the session of a row."""
    person = row["participant_id"]
    table = read_tsv(bids_dir / person / f"{person}_sessions.tsv", "session_id")
    return table.get(row["session_id"], {})


def _date(bids_dir: Path, source: PurePosixPath) -> datetime | None:
    folder = source.parent.parent  # of the participant, or of the session
    stem = "_".join(folder.parts)
    relative = source.relative_to(folder).as_posix()
    scan = read_tsv(bids_dir / folder / f"{stem}_scans.tsv", "filename").get(relative, {})
    if date := parse_date(scan.get("acq_time")):
        return date
    person, session = source.parts[0], folder.name
    sessions = read_tsv(bids_dir / person / f"{person}_sessions.tsv", "session_id")
    return parse_date(sessions.get(session, {}).get("acq_time"))


def parse_date(text: str | None) -> datetime | None:
    """Read a date as BIDS writes it, ``YYYY-MM-DDThh:mm:ss[.000000][Z]`` or the day alone."""
    try:
        date = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


@lru_cache(maxsize=8)
def read_tsv(path: Path, key: str) -> dict[str, dict[str, str]]:
    """Read a table of a BIDS dataset, a row by the text in a column; empty if there is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            return {
                line[key]: {name: text for name, text in line.items() if name and text}
                for line in lines
                if line.get(key)
            }
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
