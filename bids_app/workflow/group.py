"""The group level: one table of all images and models, its data dictionary and its report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app import __version__
from bids_app.bids.columns import GROUP
from bids_app.bids.dataset import check_owner
from bids_app.bids.outputs import RATINGS, SELECTION, WHOLE, GroupFiles
from bids_app.bids.results import read_results
from bids_app.bids.sidecars import add_scanners, add_years, read_dates
from bids_app.errors import NoScanError, few, listing
from bids_app.group.covariates import join_covariates, join_ratings
from bids_app.group.head_size import normalise
from bids_app.group.longitudinal import write_longitudinal
from bids_app.group.model_agreement import write_group_comparison
from bids_app.group.norms import add_norm_scores, describe, read_norms
from bids_app.group.outliers import add_outliers
from bids_app.group.table import read_rows, shows_brainstem
from bids_app.io.files import write_atomic
from bids_app.io.tables import NOT_AVAILABLE, data_dictionary, dump_json, read_table, table
from bids_app.measures.flags import CHECKS, read_thresholds
from bids_app.regions import REGIONS
from bids_app.reports.citations import Used, mixed_settings, write_citations, write_group_citations
from bids_app.reports.from_files import sidecar
from bids_app.reports.group import write_group_report
from bids_app.reports.methods_text import group_sentences
from bids_app.workflow.log import start_log, stop_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bids_app.group.table import Row
    from bids_app.settings import Settings

LOG = logging.getLogger(__name__)
MOST_TOLD = 100  # rows of the overview on the screen
MOST_NAMED = 5  # images there that failed


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
    found = read_rows(output_dir, read_thresholds(settings.flag_threshold))
    rows = [row for row in found if _asked_for(row, settings)]
    if not rows:
        raise NoScanError(f"{output_dir}: {_why_none(found, settings)}")
    # A part of the results never takes the place of the table of all.
    files = GroupFiles(output_dir, WHOLE if len(rows) == len(found) else SELECTION)
    dates = read_dates(rows, settings.bids_dir)
    add_years(rows, dates)
    columns = _fill_in(rows, settings, whole=files.stem == WHOLE)
    for line in _not_there(found, settings):
        LOG.warning("%s", line)
    used = _used(output_dir, rows)
    for line in mixed_settings(used):
        LOG.warning("results of one model were made with different settings, %s", line)
    if settings.dry_run:
        LOG.info("would write %d rows to %s", len(rows), files.volumes)
        return 0
    content = [[row[column] for column in columns] for row in rows]
    write_atomic(files.volumes, table(list(columns), content))
    write_atomic(files.volumes.with_suffix(".json"), dump_json(columns))
    shown = [row for row in rows if shows_brainstem(row)]
    changes = write_longitudinal(files.longitudinal, shown, dates)
    participants = sorted({row["participant_id"] for row in rows})
    compared = write_group_comparison(files.comparison, output_dir, participants)
    report = write_group_report(files, left_out=len(found) - len(rows))
    if files.stem == WHOLE:
        told = read_table(files.longitudinal) if changes else []
        sentences = group_sentences(rows, told, read_thresholds(settings.flag_threshold))
        write_citations(output_dir / "logs", used)
        write_group_citations(output_dir / "logs", sentences)
    LOG.info("%s", _overview(rows))
    if lacking := _without_result(settings, rows):
        LOG.warning("no result of %s", few(lacking))
    failed = [row for row in rows if row["flags"] == "failed"]
    _tell_failed(failed)
    counts = f"{len(rows) - len(failed)}" + (f", failed: {len(failed)}" if failed else "")
    LOG.info("\nResults: %s, in %s", counts, files.volumes)
    if changes:
        LOG.info("Changes between sessions: %d, in %s", changes, files.longitudinal)
    if compared:
        LOG.info("Images with several models: %d, compared in %s", compared, files.comparison)
    if files.stem == SELECTION:
        LOG.info(
            "Left out: %d results of the folder, which were not asked for. %s_* stays as it was.",
            len(found) - len(rows),
            WHOLE,
        )
    LOG.info("Report: %s", report)
    if files.stem == WHOLE:
        LOG.info(
            "participant --reports-only puts its flags and changes on the participants' pages."
        )
    return 0


def _fill_in(rows: Sequence[Row], settings: Settings, *, whole: bool) -> dict[str, Any]:
    """Fill in what hangs on other rows or on the input dataset; give the data dictionary."""
    thresholds = read_thresholds(settings.flag_threshold)
    columns: dict[str, Any] = data_dictionary(GROUP)
    explained = {check.name: check.explain(thresholds) for check in CHECKS}
    columns["flags"] = {**columns["flags"], "Levels": explained, "Thresholds": thresholds}
    if settings.covariates:
        columns |= join_covariates(rows, settings.bids_dir, settings.covariates, whole=whole)
    add_scanners(rows, settings.bids_dir)
    for reason in normalise(rows):
        LOG.info("%s", reason)
    shown = [row for row in rows if shows_brainstem(row)]
    add_outliers(shown, thresholds)
    join_ratings(rows, settings.output_dir / RATINGS, whole=whole)
    if settings.norms is not None:
        norms = read_norms(settings.norms, columns)
        for row in rows:
            row |= dict.fromkeys(describe(norms), NOT_AVAILABLE)
        add_norm_scores(shown, norms)
        columns |= describe(norms)
    return columns


def _asked_for(row: Row, settings: Settings) -> bool:
    def matches(value: str, wanted: Sequence[str], prefix: str = "") -> bool:
        return not wanted or value in {prefix + w.removeprefix(prefix) for w in wanted}

    return (
        matches(row["participant_id"], settings.participant_label, "sub-")
        and matches(row["session_id"], settings.session_label, "ses-")
        and matches(row["model"], [Path(name).name for name in settings.model])
    )


def _why_none(found: Sequence[Row], settings: Settings) -> str:
    """Say what to check where no result was asked for."""
    if not found:
        return "no result is there. Run the participant level first."
    options, there = [], []
    for option, wanted, column, prefix in _choices(settings):
        if wanted:
            options.append(f"{option} {' '.join(wanted)}")
            known = (row[column].removeprefix(prefix) for row in found)
            named = (None if value == NOT_AVAILABLE else value for value in known)
            there.append(listing(column.removesuffix("_id"), named))
    return (
        f"none of its {len(found)} results matches {' and '.join(options)}. They have "
        f"{'; '.join(there)}."
    )


def _not_there(found: Sequence[Row], settings: Settings) -> list[str]:
    """Name values of options that no result has, where others have some."""
    lines = []
    for option, wanted, column, prefix in _choices(settings):
        known = {row[column].removeprefix(prefix) for row in found}
        if lacking := [value for value in wanted if value.removeprefix(prefix) not in known]:
            lines.append(f"{option} {' '.join(lacking)}: no result has this")
    return lines


def _choices(settings: Settings) -> list[tuple[str, Sequence[str], str, str]]:
    """Options that choose results: what was asked for, the column, and the prefix there."""
    models = [Path(name).name for name in settings.model]
    return [
        ("--participant-label", settings.participant_label, "participant_id", "sub-"),
        ("--session-label", settings.session_label, "session_id", "ses-"),
        ("--model", models, "model", ""),
    ]


def _used(output_dir: Path, rows: Sequence[Row]) -> list[Used]:
    """Tell how the results in some rows were made."""
    chosen = {(row["source"], row["model"], row["model_version"]) for row in rows}
    return [
        Used.from_sidecar(result.label, sidecar(result))
        for result in read_results(output_dir)
        if (result.source, *result.model) in chosen
    ]


def _without_result(settings: Settings, rows: Iterable[Row]) -> list[str]:
    """Participants of the input dataset, among those asked for, that have no row."""
    done = {row["participant_id"] for row in rows}
    there = {path.name for path in settings.bids_dir.glob("sub-*") if path.is_dir()}
    return [name for name in settings.asked_for(there) if name not in done]


def _tell_failed(rows: Sequence[Row]) -> None:
    """Name the first images that could not be processed, each once, and why."""
    images: dict[str, list[Row]] = {}
    for row in rows:
        images.setdefault(row["source"], []).append(row)
    for source, of_image in list(images.items())[:MOST_NAMED]:
        models = ", ".join(row["model"] for row in of_image)
        reasons = "; ".join(dict.fromkeys(row["failure"] for row in of_image))
        LOG.warning("failed: %s, model %s: %s", source, models, reasons)
    if (more := len(images) - MOST_NAMED) > 0:
        LOG.warning("failed: and %d more images; the table's column failure tells why", more)


def _overview(rows: Sequence[Row]) -> str:
    """Write the volumes of the first rows as a table in ml; what failed has none."""
    rows = [row for row in rows if row["flags"] != "failed"]
    shown = rows[:MOST_TOLD]
    names = [
        " ".join(row[key] for key in ("participant_id", "session_id", "run") if row[key] != "n/a")
        for row in shown
    ]
    width = max(len(name) for name in [*names, "volumes in ml"])
    lines = [f"{'volumes in ml':<{width}}  {'model':<12}" + "".join(f"{r:>11}" for r in REGIONS)]
    for name, row in zip(names, shown, strict=True):
        values = "".join(f"{_millilitres(row[f'{r}_mm3']):>11}" for r in REGIONS)
        flags = "" if row["flags"] == NOT_AVAILABLE else f"  {row['flags']}"
        lines.append(f"{name:<{width}}  {row['model']:<12}{values}{flags}")
    if len(rows) > len(shown):
        lines.append(f"and {len(rows) - len(shown):,} more")
    return "\n".join(lines)


def _millilitres(cubic_millimetres: str) -> str:
    if cubic_millimetres == NOT_AVAILABLE:
        return NOT_AVAILABLE
    return f"{float(cubic_millimetres) / 1000:.2f}"
