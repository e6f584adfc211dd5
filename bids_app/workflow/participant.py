"""The participant level: find the T1w images of a dataset, and do those not yet complete."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bids_app import __version__
from bids_app.bids.dataset import check_owner, claim, write_dataset_files
from bids_app.bids.outputs import Outputs, report_name
from bids_app.bids.results import Sidecar, read_agreement, read_failures, read_results
from bids_app.bids.scans import find_scans
from bids_app.bids.validation import validate
from bids_app.errors import BrainstemError, DatasetError, NoScanError, UsageError, few, listing
from bids_app.io.files import clean, write_atomic
from bids_app.io.tables import read_json
from bids_app.measures.flags import read_thresholds
from bids_app.models import store
from bids_app.models.manifest import verify
from bids_app.regions import REGIONS, of_brainstem
from bids_app.reports.citations import ModelUse, write_citations
from bids_app.reports.images.figures import restore_figures
from bids_app.reports.participant import participant_page
from bids_app.workflow.comparison import compare_models
from bids_app.workflow.freesurfer import write_freesurfer
from bids_app.workflow.interrupt import stoppable
from bids_app.workflow.log import Failures, start_log, stop_log
from bids_app.workflow.pipeline import Outcome, Pipeline, Task, differing
from bids_app.workflow.write import Context, software_versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bids_app.bids.results import Failure
    from bids_app.bids.scans import Scan
    from bids_app.bids.validation import Report
    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import Segmenter
    from bids_app.settings import Settings
    from bids_app.workflow.interrupt import Stop

LOG = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Do the participant level.

    Returns
    -------
    int
        Exit code: 0, 1 if some images failed, or 128 and the number of the signal that ended it.

    Raises
    ------
    BrainstemError
        The run cannot begin, or the output cannot be written.
    """
    if len(settings.model) > 1:
        raise UsageError("--model: the participant level takes one; run it once for each model.")
    read_thresholds(settings.flag_threshold)  # mistakes end the run before anything is written
    if settings.reports_only:
        return _make_reports_again(settings)
    model = store.find((settings.model or (store.DEFAULT,))[0], settings.models_dir)
    verify(model)
    model.check_folds(settings.folds)
    if settings.device not in ("auto", "cpu"):  # these are there; others need torch to tell
        from bids_app.segmentation.devices import check_device

        check_device(settings.device, model)
    if settings.dry_run:
        check_owner(settings.output_dir, settings.bids_dir)
    else:
        claim(settings.output_dir, settings.bids_dir)
    with ExitStack() as stack:
        start_log(settings, keep=not settings.dry_run)
        stack.callback(stop_log)
        _announce(settings, model)
        try:
            return _run(settings, model, stack.enter_context(ThreadPoolExecutor(1)))
        except BrainstemError as error:
            LOG.debug("ended: %s", error)  # the screen gets it from the command
            raise


def _make_reports_again(settings: Settings) -> int:
    check_owner(settings.output_dir, settings.bids_dir)
    output_dir = settings.output_dir
    results = list(read_results(output_dir))
    failures = read_failures(output_dir)
    there = {result.participant for result in results}
    known = there | {failure.participant for failure in failures}
    if not known:
        raise NoScanError(f"{output_dir}: no result is there. Run the participant level first.")
    participants = settings.asked_for(known)
    if not participants:
        names = listing("participant", (name.removeprefix("sub-") for name in known))
        raise NoScanError(
            f"{output_dir}: no result matches --participant-label "
            f"{' '.join(settings.participant_label)}. Results are there of {names}."
        )
    start_log(settings, keep=False)
    try:
        for result in results:
            if result.participant in participants and (
                reason := restore_figures(result, settings.bids_dir, assume_ras=settings.assume_ras)
            ):
                LOG.warning("%s: no picture or no viewer, as %s", result.source, reason)
        uses = (ModelUse.from_sidecar(r.label, r.sidecar) for r in results)
        write_citations(output_dir / "logs", uses)
        thresholds = read_thresholds(settings.flag_threshold)
        for participant in participants:
            LOG.info("%s", _write_report(output_dir, participant, failures, thresholds))
        if settings.freesurfer_stats:
            write_freesurfer(settings.output_dir, participants)
    finally:
        stop_log()
    return 0


def _run(settings: Settings, model: Model, background: ThreadPoolExecutor) -> int:
    # The validator is a process of its own and takes seconds, so it starts first.
    validation = None
    if not settings.skip_bids_validation:
        LOG.info("The BIDS validator checks the dataset; --skip-bids-validation goes without")
        validation = background.submit(
            validate,
            settings.bids_dir,
            settings.participant_label,
            work_dir=settings.work_dir,
        )
    tasks = _tasks(settings, model)
    context = Context(
        model,
        settings.of_result(model),
        settings.write_probabilities,
        read_thresholds(settings.flag_threshold),
    )
    if settings.dry_run:
        _remarks(validation)
        left = set(_left(settings, tasks, context))
        for task in tasks:
            LOG.info("%-8s  %s", "to do" if task in left else "complete", task.scan.relative)
        return 0
    _clean(settings, tasks)
    todo = _left(settings, tasks, context)
    pending = {task.scan for task in todo}
    outcome = Outcome(complete=[task.scan for task in tasks if task.scan not in pending])
    failures = Failures(settings.run_folder / "failures.tsv", model)
    with stoppable() as stop:
        segmenters = _load(settings, model, stop, len(todo)) if todo else []
        remarks = _remarks(validation)
        LOG.info("Images: %d, complete before: %d", len(tasks), len(outcome.complete))
        if segmenters:
            devices = ", ".join(segmenter.device for segmenter in segmenters)
            LOG.info("Device: %s, CPU threads: %d", devices, settings.omp_nthreads)
        # From here on the folder is this dataset's; a run that ends before leaves it free.
        write_dataset_files(settings.output_dir, settings.bids_dir, model)
        told = {
            **context.models,
            "Settings": context.settings,
            "SoftwareVersions": software_versions(settings.device),
            "FlagThresholds": context.thresholds,
        }
        try:
            if segmenters:
                Pipeline(settings, context, failures, outcome, stop, remarks).run(todo, segmenters)
        finally:
            if outcome.done or outcome.complete:  # else nothing was segmented
                use = ModelUse.from_sidecar(model.label, Sidecar.model_validate(told))
                write_citations(settings.output_dir / "logs", [use])
        _write_reports(settings, outcome, {scan.participant for scan, _ in failures.reasons})
        _summarise(settings, model, outcome, failures, stop)
        if stop.signal:
            return 128 + stop.signal
    return 1 if failures.reasons else 0


def _announce(settings: Settings, model: Model) -> None:
    LOG.info("brainstem BIDS App %s. For research only; not a medical device.", __version__)
    LOG.info("Model: %s, version %s (seg-%s)", model.name, model.version, model.label)
    LOG.info("Licence of the model: %s", model.licence)
    if line := model.ineffective_options(vars(settings)):
        LOG.warning("%s", line)
    if others := [region.name for region in model.regions if region.name not in REGIONS]:
        LOG.warning(
            "the group table has no columns for %s of the model %s; *_volumes.tsv of each image "
            "tells of them. %s",
            ", ".join(others),
            model.name,
            "All of its regions together count as the brainstem"
            if len(of_brainstem(model.regions)) == len(model.regions)
            else "They do not count in the brainstem",
        )


def _tasks(settings: Settings, model: Model) -> list[Task]:
    """Find the scans and name their outputs, which no two of them may share."""
    found = find_scans(
        settings.bids_dir,
        participants=settings.participant_label,
        sessions=settings.session_label,
        filter_file=settings.bids_filter_file,
        database_dir=settings.bids_database_dir,
        include_ce=settings.include_ce,
    )
    for path, reason in found.left_out:
        LOG.warning("%s: left out, %s", path, reason)
    tasks: dict[str, Task] = {}
    for scan in sorted(found.scans):
        outputs = Outputs.of(settings.output_dir, scan, model.label)
        if outputs.stem in tasks:
            first = tasks[outputs.stem].scan.relative
            LOG.warning("%s: left out, its results would replace those of %s", scan.relative, first)
        else:
            tasks[outputs.stem] = Task(scan, outputs)
    return list(tasks.values())


def _left(settings: Settings, tasks: Sequence[Task], context: Context) -> list[Task]:
    """Find the images that are to be done, and warn of results that others will replace."""
    if settings.force:
        return list(tasks)
    found = {task: differing(task, context) for task in tasks}
    ways = Counter(
        ", ".join(f"{key}: {_in_words(old)} -> {_in_words(new)}" for key, (old, new) in way.items())
        for way in found.values()
        if way
    )
    left = [task for task, way in found.items() if way != {}]
    if ways:
        told = "; ".join(f"{way} ({n:,})" if len(ways) > 1 else way for way, n in ways.items())
        LOG.warning(
            "of %d images to do, %d have complete results of the label seg-%s by other settings or "
            "weights, which are replaced: %s. To keep them, take another OUTPUT_DIR",
            len(left),
            ways.total(),
            context.model.label,
            told,
        )
    return left


def _in_words(setting: object) -> str:
    if isinstance(setting, list):
        return " ".join(map(str, setting))
    return str(setting).lower() if isinstance(setting, bool) else str(setting)


def _clean(settings: Settings, tasks: Iterable[Task]) -> None:
    logs = settings.output_dir / "logs"
    folders = {folder for t in tasks for folder in (t.outputs.folder, t.outputs.figures)}
    clean([settings.output_dir, logs, *logs.glob("*/"), *folders])


def _load(settings: Settings, model: Model, stop: Stop, images: int) -> list[Segmenter]:
    # Not at the top: torch takes seconds to import, and there may be nothing left to do.
    from bids_app.segmentation.segmenter import load_segmenters
    from bids_app.segmentation.types import InferenceOptions

    options = InferenceOptions(
        device=settings.device,
        folds=settings.folds,
        mirror=not settings.no_tta,
        half=not settings.float32,
        region=settings.region,
        threads=settings.omp_nthreads,
        check=stop.check,
    )
    return load_segmenters(model, options, images)


def _remarks(validation: Future[Report] | None) -> dict[str, str]:
    """Wait for the validator; give back what it says of single images.

    Raises
    ------
    DatasetError
        It found an error that does not lie in one image.
    """
    if validation is None:
        return {}
    report = validation.result()
    if report.errors:
        raise DatasetError(
            "the BIDS validator found:\n" + "\n".join(report.errors) + "\n"
            "Mend the dataset, or go on with --skip-bids-validation."
        )
    return dict(report.image_errors)


def _write_reports(settings: Settings, outcome: Outcome, failed: set[str]) -> None:
    changed = {scan.participant for scan, _ in outcome.done}
    for participant in sorted(changed):
        compare_models(read_results(settings.output_dir, participant))
    missing = {
        scan.participant
        for scan in outcome.complete
        if not (settings.output_dir / report_name(scan.participant)).is_file()
    }
    if to_write := sorted(changed | missing | failed):
        failures = read_failures(settings.output_dir)
        for participant in to_write:
            _write_report(settings.output_dir, participant, failures)
    if settings.freesurfer_stats:
        there = {scan.participant for scan in outcome.complete}
        write_freesurfer(settings.output_dir, sorted(changed | there))


def _write_report(
    output_dir: Path,
    participant: str,
    failures: Sequence[Failure],
    thresholds: Mapping[str, float] | None = None,
) -> Path:
    results = list(read_results(output_dir, participant))
    page = participant_page(
        participant,
        results,
        failures,
        read_agreement(results),
        dataset_name=str(read_json(output_dir / "dataset_description.json").get("Name", "")),
        thresholds=thresholds,
    )
    path = output_dir / report_name(participant)
    write_atomic(path, page)
    return path


def _summarise(
    settings: Settings, model: Model, outcome: Outcome, failures: Failures, stop: Stop
) -> None:
    if outcome.done:
        LOG.info("\n%s", _summary_table(model, outcome))
    if failures.reasons:
        names = few(scan.relative for scan, _ in failures.reasons)
        LOG.error("failed: %s. Reasons: above and in %s", names, failures.path)
    for scan in outcome.elsewhere:
        LOG.info("left to another run: %s", scan.relative)
    for scan in outcome.cut_short:
        LOG.info("not finished, to be started over: %s", scan.relative)
    counts = (
        f"{len(outcome.done)} done, {len(outcome.complete)} complete before, "
        f"{len(failures.reasons)} failed, {len(outcome.elsewhere)} left to another run"
    )
    if stop.signal:
        counts += "; ended early, the same command goes on from here"
    LOG.info("\n%s\nResults: %s", counts, settings.output_dir)
    if outcome.done or outcome.complete or failures.reasons:
        LOG.info(
            "Reports: %s/%s. Next: the group level.", settings.output_dir, report_name("sub-*")
        )
    if outcome.done:
        LOG.info("Please cite: %s", settings.output_dir / "logs" / "CITATION.md")


def _summary_table(model: Model, outcome: Outcome) -> str:
    names = {scan: _name(scan) for scan, _ in outcome.done}
    title = "volumes in ml"
    width = max(map(len, [title, *names.values()]))
    heads = [*(region.name for region in model.regions), "brainstem"]
    columns = "  ".join(f"{head:>10}" for head in heads)
    lines = [f"{title:<{width}}  {columns}  {'seconds':>7}  flags"]
    for scan, record in sorted(outcome.done, key=lambda pair: pair[0]):
        volumes = "  ".join(f"{m.volume_mm3 / 1000:10.2f}" for m in record.volumes)
        flags = ", ".join(record.flags) or "-"
        lines.append(f"{names[scan]:<{width}}  {volumes}  {record.seconds:7.1f}  {flags}")
    return "\n".join(lines)


def _name(scan: Scan) -> str:
    return "_".join(f"{key}-{value}" for key, value in scan.entities)
