"""The group level: tables of all images and models, their data dictionaries and the report."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.bids.columns import GROUP, GROUP_COMPARISON, LONGITUDINAL
from bids_app.bids.dataset import check_owner
from bids_app.bids.labels import T1W
from bids_app.bids.outputs import RATINGS, SELECTION, WHOLE, GroupFiles, report_name
from bids_app.bids.results import keep_newest, read_agreement, read_failures, read_results
from bids_app.bids.sidecars import read_dates, read_scanners, read_sessions
from bids_app.errors import BrainstemError, DatasetError, NoScanError, UsageError, few, listing
from bids_app.group.covariates import add_acquisition, join_covariates, join_ratings
from bids_app.group.head_size import add_head_size
from bids_app.group.longitudinal import find_changes
from bids_app.group.model_agreement import count_images, gather_agreement
from bids_app.group.table import FAILED, GroupTables, gather
from bids_app.group.zscores import add_norm_scores, add_outliers, norm_columns, parse_norms
from bids_app.io.files import is_file, remove, write_atomic
from bids_app.io.tables import (
    NOT_AVAILABLE,
    data_dictionary,
    dump_frame,
    dump_json,
    read_json,
    read_user_table,
)
from bids_app.measures.flags import CHECKS, read_thresholds
from bids_app.regions import REGIONS
from bids_app.reports.citations import ModelUse, mixed_settings, write_citations
from bids_app.reports.group import group_page
from bids_app.reports.methods_text import group_sentences
from bids_app.version import __version__
from bids_app.workflow.log import start_log, stop_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pandas as pd

    from bids_app.bids.results import Result
    from bids_app.io.tables import Columns
    from bids_app.settings import Settings

LOG = logging.getLogger(__name__)
MOST_SHOWN = 100  # rows of the overview on the screen
MOST_NAMED = 5  # failed images that are named


@dataclass(frozen=True)
class _Chosen:
    """Results that the user asked for.

    Attributes
    ----------
    volumes : pandas.DataFrame
        Their rows, from `gather`.
    results : list of Result
        Without the failures.
    left_out : int
        How many rows of the folder are not among them.
    """

    volumes: pd.DataFrame
    results: list[Result]
    left_out: int

    @property
    def whole(self) -> bool:
        """Whether these are all results of the folder."""
        return not self.left_out


def run(settings: Settings) -> int:
    """Run the group level.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    BrainstemError
        The folder belongs to another dataset, holds no result, or cannot be written.
    """
    thresholds = read_thresholds(settings.flag_threshold)  # before anything is written
    check_owner(settings.output_dir, settings.bids_dir)
    start_log(settings, keep=settings.output_dir.is_dir() and not settings.dry_run)
    try:
        _run(settings, thresholds)
    except BrainstemError:
        raise  # the command prints it
    except Exception:
        LOG.debug("ended by an error that was not foreseen", exc_info=True)
        raise
    finally:
        stop_log()
    return 0


def _run(settings: Settings, thresholds: Mapping[str, float]) -> None:
    LOG.info("brainstem BIDS App %s, group level", __version__)
    chosen = _choose(settings, thresholds)
    uses = [ModelUse.from_sidecar(result.label, result.sidecar) for result in chosen.results]
    dates = read_dates(chosen.volumes["source"], settings.bids_dir)
    volumes, columns = _fill_in(chosen, settings, thresholds, dates)
    for line in mixed_settings(uses):
        LOG.warning("results of one model were made with different settings, %s", line)
    # Some of the results never replace the table of all.
    files = GroupFiles(settings.output_dir, WHOLE if chosen.whole else SELECTION)
    if settings.dry_run:
        LOG.info("would write %d rows to %s", len(volumes), files.volumes)
        return
    participants = set(volumes["participant_id"])
    tables = GroupTables(
        volumes=volumes,
        columns=data_dictionary(columns),
        changes=find_changes(volumes, dates),
        agreement=gather_agreement(read_agreement(chosen.results)),
        thresholds=thresholds,
        left_out=chosen.left_out,
        dataset_name=str(
            read_json(settings.output_dir / "dataset_description.json").get("Name", "")
        ),
        reported=frozenset(
            name for name in participants if is_file(settings.output_dir / report_name(name))
        ),
        stem=files.stem,
    )
    _write(tables, columns, files)
    sentences = group_sentences(tables)
    write_atomic(files.report, group_page(tables, sentences))
    if chosen.whole:
        write_citations(settings.output_dir / "logs", uses, sentences)
    LOG.info("%s", _overview(volumes))
    if lacking := _without_result(settings, participants):
        LOG.warning("no result of %s", few(lacking))
    _report_failed(volumes)
    _summarise(tables, files)
    LOG.info("Report: %s", files.report)


# --- choosing results ---------------------------------------------------------------------


def _choose(settings: Settings, thresholds: Mapping[str, float]) -> _Chosen:
    """Read the folder, and choose the results that the user asked for.

    Raises
    ------
    NoScanError
        There are none.
    """
    results, failures = keep_newest(
        read_results(settings.output_dir), read_failures(settings.output_dir)
    )
    found = gather(results, failures, thresholds)
    asked = _asked_for(found, settings)
    if not asked.any():
        raise NoScanError(f"{settings.output_dir}: {_why_none(found, settings)}")
    for line in _without_match(found, settings):
        LOG.warning("%s", line)
    volumes = found[asked].reset_index(drop=True)
    done = volumes[volumes["flags"].ne(FAILED)]
    keys = set(zip(done["source"], done["model"], done["model_version"], strict=True))
    return _Chosen(
        volumes,
        [result for result in results if (result.source, *result.model) in keys],
        len(found) - len(volumes),
    )


def _asked_for(found: pd.DataFrame, settings: Settings) -> pd.Series[bool]:
    asked = found["source"].notna()
    for _, wanted, column, prefix in _options(settings):
        if wanted:
            names = {prefix + value.removeprefix(prefix) for value in wanted}
            asked &= found[column].isin(names)
    return asked


def _options(settings: Settings) -> list[tuple[str, Sequence[str], str, str]]:
    """Options that choose results: values, the column of the table, and the prefix there."""
    models = [Path(name).name for name in settings.model]
    return [
        ("--participant-label", settings.participant_label, "participant_id", "sub-"),
        ("--session-label", settings.session_label, "session_id", "ses-"),
        ("--suffix", settings.suffix, "suffix", ""),
        ("--model", models, "model", ""),
    ]


def _why_none(found: pd.DataFrame, settings: Settings) -> str:
    """Say what to check if no result was asked for."""
    if found.empty:
        return "no result is there. Run the participant level first."
    options, there = [], []
    for option, wanted, column, prefix in _options(settings):
        if wanted:
            options.append(f"{option} {' '.join(wanted)}")
            known = [None if v != v else v.removeprefix(prefix) for v in found[column]]
            there.append(listing(column.removesuffix("_id"), known))
    return (
        f"none of its {len(found)} results matches {' and '.join(options)}. They have "
        f"{'; '.join(there)}."
    )


def _without_match(found: pd.DataFrame, settings: Settings) -> list[str]:
    """Name values of options that match no result, where others match some."""
    lines = []
    for option, wanted, column, prefix in _options(settings):
        known = {value.removeprefix(prefix) for value in found[column].dropna()}
        if lacking := [value for value in wanted if value.removeprefix(prefix) not in known]:
            lines.append(f"{option} {' '.join(lacking)}: no result has this")
    return lines


# --- computing ----------------------------------------------------------------------------


def _fill_in(
    chosen: _Chosen,
    settings: Settings,
    thresholds: Mapping[str, float],
    dates: Mapping[str, datetime],
) -> tuple[pd.DataFrame, Columns]:
    """Fill in what depends on other rows or on the input dataset; give the table's columns too."""
    volumes, columns = chosen.volumes, dict(GROUP)
    columns["flags"] = replace(
        columns["flags"],
        levels={check.name: check.explain(thresholds) for check in CHECKS},
        extra={"Thresholds": dict(thresholds)},
    )
    if settings.covariates:
        volumes, joined = _join_covariates(chosen, settings)
        columns |= joined
    scanners = read_scanners(volumes["source"], settings.bids_dir)
    volumes = add_acquisition(volumes, scanners, dates)
    volumes, reasons = add_head_size(volumes)
    for reason in reasons:
        LOG.info("%s", reason)
    volumes = add_outliers(volumes, thresholds)
    volumes = _join_ratings(volumes, settings.output_dir / RATINGS, whole=chosen.whole)
    if settings.norms is not None:
        norms = parse_norms(_norms(settings.norms), columns, str(settings.norms))
        volumes = add_norm_scores(volumes, norms, columns)
        columns |= norm_columns(norms)
    return volumes, columns


def _join_covariates(chosen: _Chosen, settings: Settings) -> tuple[pd.DataFrame, Columns]:
    path = settings.bids_dir / "participants.tsv"
    try:
        people = read_user_table(path)
    except ValueError as error:
        raise DatasetError(f"--covariates: {path} {error}") from None
    of_sessions = chosen.volumes[chosen.volumes["session_id"].notna()]
    sessions = read_sessions(of_sessions["participant_id"].unique(), settings.bids_dir)
    described = read_json(path.with_suffix(".json"))
    return join_covariates(
        chosen.volumes, settings.covariates, people, sessions, described, whole=chosen.whole
    )


def _join_ratings(volumes: pd.DataFrame, path: Path, *, whole: bool) -> pd.DataFrame:
    if not is_file(path):
        return volumes
    try:
        names, lines = read_user_table(path)
    except ValueError as error:
        raise UsageError(f"{path} {error}") from None
    return join_ratings(volumes, names, lines, path.name, whole=whole)


def _norms(path: Path) -> list[dict[str, str]]:
    try:
        return read_user_table(path)[1]
    except ValueError as error:
        raise UsageError(f"--norms {path}: {error}") from None


# --- writing ------------------------------------------------------------------------------


def _write(tables: GroupTables, columns: Columns, files: GroupFiles) -> None:
    """Write each table with its data dictionary; remove an earlier one that is empty now.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    for path, frame, described in (
        (files.volumes, tables.volumes, columns),
        (files.longitudinal, tables.changes, LONGITUDINAL),
        (files.comparison, tables.agreement, GROUP_COMPARISON),
    ):
        dictionary = path.with_suffix(".json")
        if frame.empty:
            remove([path, dictionary])
        else:
            write_atomic(path, dump_frame(frame, described))
            write_atomic(dictionary, dump_json(data_dictionary(described, frame)))


# --- messages -----------------------------------------------------------------------------


def _summarise(tables: GroupTables, files: GroupFiles) -> None:
    """Log how much was written, and where."""
    failed = int(tables.volumes["flags"].eq(FAILED).sum())
    counts = f"{len(tables.volumes) - failed}" + (f", failed: {failed}" if failed else "")
    LOG.info("\nResults: %s, in %s", counts, files.volumes)
    if len(tables.changes):
        LOG.info("Changes between sessions: %d, in %s", len(tables.changes), files.longitudinal)
    if compared := count_images(tables.agreement):
        LOG.info("Images with several models: %d, compared in %s", compared, files.comparison)
    if tables.left_out:
        LOG.info(
            "Left out: %d results of the folder that were not asked for. %s_* is unchanged.",
            tables.left_out,
            WHOLE,
        )


def _without_result(settings: Settings, done: set[str]) -> list[str]:
    """Find participants of the input dataset, among those asked for, that have no row."""
    there = {path.name for path in settings.bids_dir.glob("sub-*") if path.is_dir()}
    return [name for name in settings.requested(there) if name not in done]


def _report_failed(volumes: pd.DataFrame) -> None:
    """Name the first images that could not be processed, each once, and why."""
    failed = volumes[volumes["flags"].eq(FAILED)]
    images = list(failed.groupby("source", sort=False))
    for source, of_image in images[:MOST_NAMED]:
        reasons = "; ".join(of_image["failure"].unique())
        LOG.warning("failed: %s, model %s: %s", source, ", ".join(of_image["model"]), reasons)
    if (more := len(images) - MOST_NAMED) > 0:
        LOG.warning("failed: and %d more images; see the column failure of the table", more)


def _overview(volumes: pd.DataFrame) -> str:
    """Write the volumes of the first results as a table in ml."""
    done = volumes[volumes["flags"].ne(FAILED)]
    shown = done.head(MOST_SHOWN)
    names = [
        " ".join(part for part in parts if part == part and part != T1W)
        for parts in shown[["participant_id", "session_id", "run", "suffix"]].itertuples(
            index=False
        )
    ]
    width = max(len(name) for name in [*names, "volumes in ml"])
    lines = [f"{'volumes in ml':<{width}}  {'model':<12}" + "".join(f"{r:>11}" for r in REGIONS)]
    columns = [f"{region}_mm3" for region in REGIONS]
    sizes = shown[columns].itertuples(index=False)
    for name, model, flags, row in zip(names, shown["model"], shown["flags"], sizes, strict=True):
        values = "".join(f"{_millilitres(size):>11}" for size in row)
        lines.append(
            f"{name:<{width}}  {model:<12}{values}{'' if flags != flags else f'  {flags}'}"
        )
    if len(done) > len(shown):
        lines.append(f"and {len(done) - len(shown):,} more")
    return "\n".join(lines)


def _millilitres(cubic_millimetres: float) -> str:
    if math.isnan(cubic_millimetres):
        return NOT_AVAILABLE
    return f"{cubic_millimetres / 1000:.2f}"
