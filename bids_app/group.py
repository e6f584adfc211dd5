"""The group level: one table of all images and models, its data dictionary and its report."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app import __version__
from bids_app.columns import FROM_VOLUMES, GROUP, QUALITY, REGIONS
from bids_app.comparison import write_group_comparison
from bids_app.dataset import check_owner
from bids_app.derivatives import (
    GROUP_TABLE,
    NOT_AVAILABLE,
    dump_json,
    read_json,
    read_results,
    table,
)
from bids_app.errors import DatasetError, NoScanError, UsageError
from bids_app.files import write_atomic
from bids_app.normalise import normalise
from bids_app.quality import CHECKS, flags_again, read_thresholds
from bids_app.reports.group import write_group_report
from bids_app.runlog import start_log, stop_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bids_app.derivatives import Result
    from bids_app.settings import Settings

LOG = logging.getLogger(__name__)
Row = dict[str, str]


def run(settings: Settings) -> int:
    """Do the group level.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    BrainstemError
        The folder is another dataset's, holds no result, or cannot be written.
    """
    read_thresholds(settings.flag_threshold)  # mistakes end the run before anything is written
    check_owner(settings.output_dir, settings.bids_dir)
    start_log(settings, keep=settings.output_dir.is_dir() and not settings.dry_run)
    try:
        return _run(settings)
    finally:
        stop_log()


def _run(settings: Settings) -> int:
    LOG.info("brainstem BIDS App %s, group level", __version__)
    output_dir = settings.output_dir
    thresholds = read_thresholds(settings.flag_threshold)
    rows = [row for row in read_rows(output_dir, thresholds) if _asked_for(row, settings)]
    if not rows:
        raise NoScanError(f"{output_dir}: no result matches. Run the participant level first.")
    normalise(rows)
    columns = dict(GROUP)
    explained = {check.name: check.explain(thresholds) for check in CHECKS}
    columns["flags"] = {**columns["flags"], "Levels": explained}
    if settings.covariates:
        columns |= _join_covariates(rows, settings)
    if settings.dry_run:
        LOG.info("would write %d rows to %s", len(rows), output_dir / GROUP_TABLE)
        return 0
    content = [[row[column] for column in columns] for row in rows]
    write_atomic(output_dir / GROUP_TABLE, table(list(columns), content))
    write_atomic((output_dir / GROUP_TABLE).with_suffix(".json"), dump_json(columns))
    write_group_comparison(output_dir, sorted({row["participant_id"] for row in rows}))
    report = write_group_report(output_dir)
    LOG.info("%s", _overview(rows))
    for participant in _without_result(settings, rows):
        LOG.warning("%s has no result", participant)
    LOG.info("\nRows: %d, in %s\nReport: %s", len(rows), output_dir / GROUP_TABLE, report)
    return 0


def read_rows(output_dir: Path, thresholds: Mapping[str, float]) -> list[Row]:
    """Read every complete image and every failure of an output dataset.

    Flags are told anew from the measures on record, so that other thresholds need no other maps.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset; participants may still be running on it.
    thresholds : mapping of str to float
        By name of the flag, in place of those of `bids_app.quality.CHECKS`.

    Returns
    -------
    list of dict
        One row an image and model with the keys of `bids_app.columns.GROUP`, sorted by
        participant, session, source and model; what `normalise` fills in is not available yet.
    """
    rows = {(failure.pop("label"), failure["source"]): failure for failure in _failures(output_dir)}
    for result in read_results(output_dir):
        try:
            rows[result.label, result.source] = _row(result, thresholds)
        except OSError:
            continue  # a run is making it again just now
    order = ("participant_id", "session_id", "source", "model")
    return sorted(rows.values(), key=lambda row: [row[key] for key in order])


def _row(result: Result, thresholds: Mapping[str, float]) -> Row:
    row = dict.fromkeys(GROUP, NOT_AVAILABLE)
    row |= {"participant_id": result.participant, "source": result.source, **result.entities}
    row["session_id"] = result.session or NOT_AVAILABLE
    model = result.sidecar.get("Model", {})
    row |= {"model": model.get("Name", result.label), "model_version": model.get("Version", "")}
    for region in result.volumes():
        if (name := region["name"]) in REGIONS:
            for ending, column in FROM_VOLUMES.items():
                if f"{name}_{ending}" in row:
                    row[f"{name}_{ending}"] = region.get(column, NOT_AVAILABLE)
    quality = dict(result.sidecar.get("Quality", {}))
    row["voxel_size_mm"] = "x".join(f"{edge:g}" for edge in quality.pop("voxel_size_mm", []))
    row |= {key: str(value) for key, value in quality.items() if key in QUALITY}
    flags = flags_again(result.sidecar.get("Flags", []), quality, thresholds)
    row["flags"] = ",".join(flags) or NOT_AVAILABLE
    return row


def _failures(output_dir: Path) -> Iterator[Row]:
    """Give a row for each failure on record, older runs first, with the model's label beside."""
    for path in sorted(output_dir.glob("logs/*/failures.tsv")):
        with path.open(encoding="utf-8", newline="") as stream:
            for failure in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
                known = {key: value for key, value in failure.items() if key in GROUP}
                row = dict.fromkeys(GROUP, NOT_AVAILABLE) | known
                yield row | {"flags": "failed", "label": failure["label"]}


def _asked_for(row: Row, settings: Settings) -> bool:
    def matches(value: str, wanted: Sequence[str], prefix: str = "") -> bool:
        return not wanted or value in {prefix + w.removeprefix(prefix) for w in wanted}

    return (
        matches(row["participant_id"], settings.participant_label, "sub-")
        and matches(row["session_id"], settings.session_label, "ses-")
        and matches(row["model"], [Path(name).name for name in settings.model])
    )


def _join_covariates(rows: Sequence[Row], settings: Settings) -> dict[str, dict[str, str]]:
    """Add columns of participants.tsv to rows; give their entries of the data dictionary."""
    path = settings.bids_dir / "participants.tsv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            names = reader.fieldnames or []
            people = {row["participant_id"]: row for row in reader if row.get("participant_id")}
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"--covariates: {path} cannot be read ({error}).") from None
    for column in settings.covariates:
        if column not in names or column in GROUP:
            raise UsageError(
                f"--covariates {column}: participants.tsv has no such column to join. It has: "
                f"{', '.join(name for name in names if name not in GROUP)}."
            )
        for row in rows:
            person = people.get(row["participant_id"], {})
            row[column] = (person.get(column) or NOT_AVAILABLE).strip() or NOT_AVAILABLE
    described = read_json(path.with_suffix(".json"))
    return {
        column: described.get(column, {"Description": f"{column}, from participants.tsv"})
        for column in settings.covariates
    }


def _without_result(settings: Settings, rows: Iterable[Row]) -> list[str]:
    """Participants of the input dataset, among those asked for, that have no complete image."""
    done = {row["participant_id"] for row in rows if row["flags"] != "failed"}
    there = {path.name for path in settings.bids_dir.glob("sub-*") if path.is_dir()}
    return [name for name in settings.asked_for(there) if name not in done]


def _overview(rows: Sequence[Row]) -> str:
    """Write the volumes of all rows as a table in ml."""
    names = [
        " ".join(row[key] for key in ("participant_id", "session_id", "run") if row[key] != "n/a")
        for row in rows
    ]
    width = max(len(name) for name in [*names, "volumes in ml"])
    lines = [f"{'volumes in ml':<{width}}  {'model':<12}" + "".join(f"{r:>11}" for r in REGIONS)]
    for name, row in zip(names, rows, strict=True):
        values = "".join(f"{_millilitres(row[f'{r}_mm3']):>11}" for r in REGIONS)
        flags = "" if row["flags"] == NOT_AVAILABLE else f"  {row['flags']}"
        lines.append(f"{name:<{width}}  {row['model']:<12}{values}{flags}")
    return "\n".join(lines)


def _millilitres(cubic_millimetres: str) -> str:
    if cubic_millimetres == NOT_AVAILABLE:
        return NOT_AVAILABLE
    return f"{float(cubic_millimetres) / 1000:.2f}"
