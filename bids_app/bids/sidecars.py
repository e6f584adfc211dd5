"""Metadata of source images: scanner, field strength, site and dates.

Scanner and site come from the images' JSON sidecars, following the BIDS inheritance principle;
dates from ``acq_time`` in ``*_scans.tsv``, or else in ``*_sessions.tsv``. See
https://bids-specification.readthedocs.io/en/stable/modality-specific-files/magnetic-resonance-imaging-data.html
and .../modality-agnostic-files/data-summary-files.html. Dates themselves are never written.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_app.bids.columns import ACQUISITION
from bids_app.bids.labels import suffix_of
from bids_app.io.files import is_file, list_folder
from bids_app.io.tables import read_json, read_user_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DAYS_PER_YEAR = 365.25
# Column of the group table: field of a BIDS sidecar.
FIELDS = {
    "site": "InstitutionName",
    "manufacturer": "Manufacturer",
    "scanner_model": "ManufacturersModelName",
    "field_strength_t": "MagneticFieldStrength",
}


# --- scanners -----------------------------------------------------------------------------


def read_scanners(
    sources: Iterable[str], bids_dir: Path
) -> dict[str, dict[str, str | float | None]]:
    """Read where and with which scanner images were acquired.

    Parameters
    ----------
    sources : iterable of str
        Paths of images in the dataset.
    bids_dir : Path
        The dataset.

    Returns
    -------
    dict of str to dict
        By path, the columns of `FIELDS`; None for what is unknown.
    """
    _sidecars.cache_clear()  # files may have changed since an earlier call
    _content.cache_clear()
    found = {}
    for source in dict.fromkeys(sources):
        fields = inherited(bids_dir, source)
        found[source] = {column: _value(column, fields.get(key)) for column, key in FIELDS.items()}
    return found


def inherited(bids_dir: Path, source: str) -> dict[str, Any]:
    """Read the metadata of an image from all sidecars that apply to it.

    Parameters
    ----------
    bids_dir : Path
        The dataset.
    source : str
        Path of an image in it.
    """
    *folders, name = source.split("/")
    entities, suffix = frozenset(name.split("_")[:-1]), suffix_of(source)
    merged: dict[str, Any] = {}
    for depth in range(len(folders) + 1):
        for path, of_sidecar in _sidecars(bids_dir.joinpath(*folders[:depth]), suffix):
            if of_sidecar <= entities:  # the one with the most entities comes last
                merged |= _content(path)
    return merged


@lru_cache(maxsize=32)
def _sidecars(folder: Path, suffix: str) -> list[tuple[Path, frozenset[str]]]:
    """List the sidecars of images in a folder with their entities, the fewest first."""
    named = (f"_{suffix}.json", f"/{suffix}.json")
    try:
        names = [e.name for e in list_folder(folder) if f"/{e.name}".endswith(named)]
    except OSError:
        return []
    found = [(folder / name, frozenset(name.split("_")[:-1])) for name in names]
    return sorted(found, key=lambda pair: (len(pair[1]), pair[0]))


@lru_cache(maxsize=64)
def _content(path: Path) -> dict[str, Any]:
    """Read a sidecar, which may apply to many images."""
    return read_json(path)


def _value(column: str, value: object) -> str | float | None:
    """Give a value that fits one cell of a table; None for anything else."""
    if isinstance(value, bool | list | dict) or value is None:
        return None
    if ACQUISITION[column].dtype == "float":
        try:
            return float(str(value))
        except ValueError:
            return None
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace('"', "'").split()) or None


# --- dates and sessions -------------------------------------------------------------------


def read_dates(sources: Iterable[str], bids_dir: Path) -> dict[str, datetime]:
    """Read when images were acquired, by their path; images without a date are left out."""
    _rows_by.cache_clear()  # files may have changed since an earlier call
    dates = {}
    for source in dict.fromkeys(sources):
        date = _date(bids_dir, PurePosixPath(source))
        if date is not None:
            dates[source] = date
    return dates


def read_sessions(
    participants: Iterable[str], bids_dir: Path
) -> dict[tuple[str, str], dict[str, str]]:
    """Read what ``*_sessions.tsv`` says, by participant and session."""
    _rows_by.cache_clear()
    return {
        (participant, session): row
        for participant in participants
        for session, row in _sessions(bids_dir, participant).items()
    }


def years(start: datetime, end: datetime) -> float:
    """Years from one date to another."""
    return (end - start).total_seconds() / 86400 / DAYS_PER_YEAR


def parse_date(text: str | None) -> datetime | None:
    """Read a date as BIDS writes it, ``YYYY-MM-DDThh:mm:ss[.000000][Z]`` or the day alone."""
    try:
        date = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _date(bids_dir: Path, source: PurePosixPath) -> datetime | None:
    folder = source.parent.parent  # of the participant, or of the session
    stem = "_".join(folder.parts)
    relative = source.relative_to(folder).as_posix()
    scan = _rows_by("filename", bids_dir / folder / f"{stem}_scans.tsv").get(relative, {})
    if date := parse_date(scan.get("acq_time")):
        return date
    session = _sessions(bids_dir, source.parts[0]).get(folder.name, {})
    return parse_date(session.get("acq_time"))


def _sessions(bids_dir: Path, participant: str) -> dict[str, dict[str, str]]:
    rows = _rows_by("session_id", bids_dir / participant / f"{participant}_sessions.tsv")
    return {f"ses-{session.strip().removeprefix('ses-')}": row for session, row in rows.items()}


@lru_cache(maxsize=8)
def _rows_by(key: str, path: Path) -> dict[str, dict[str, str]]:
    """Read a table of a BIDS dataset by the texts in one column; empty if there is none."""
    if not is_file(path):
        return {}
    try:
        _, rows = read_user_table(path)
    except ValueError:
        return {}
    return {
        row[key]: {name: text for name, text in row.items() if name and text}
        for row in rows
        if row.get(key)
    }
