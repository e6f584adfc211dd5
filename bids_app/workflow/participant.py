"""The participant level: find the images of a dataset, and segment those not yet complete."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bids_app.bids.dataset import check_owner, claim, read_makers, write_dataset_files
from bids_app.bids.freesurfer import find_subjects
from bids_app.bids.labels import T1W
from bids_app.bids.outputs import Outputs
from bids_app.bids.results import fails_since, find_changed, read_failures
from bids_app.bids.scans import Found, Kinds, find_scans
from bids_app.bids.validation import validate
from bids_app.errors import BrainstemError, UsageError, printable
from bids_app.io.files import check_inside, clean
from bids_app.measures.flags import read_thresholds
from bids_app.models import store
from bids_app.models.manifest import verify
from bids_app.reports.citations import ModelUse, write_citations
from bids_app.workflow.interrupt import stoppable
from bids_app.workflow.log import Failures, start_log, stop_log
from bids_app.workflow.pages import Pages, remake_pages
from bids_app.workflow.pipeline import Outcome, Pipeline, Task, differing
from bids_app.workflow.summary import announce, summarise
from bids_app.workflow.write import Context, confirm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bids_app.bids.results import Failure
    from bids_app.bids.validation import Report
    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import Segmenter
    from bids_app.settings import Settings
    from bids_app.workflow.interrupt import Stop

LOG = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run the participant level.

    Returns
    -------
    int
        Exit code: 0, 1 if some images failed, or 128 plus the number of the signal that ended it.

    Raises
    ------
    BrainstemError
        The run cannot start, or the output cannot be written.
    """
    if len(settings.model) > 1:
        raise UsageError("--model: the participant level takes one; run it once for each model.")
    read_thresholds(settings.flag_threshold)  # mistakes end the run before anything is written
    if settings.reports_only:
        return remake_pages(settings)
    model = _find_model(settings)
    if settings.dry_run:
        check_owner(settings.output_dir, settings.bids_dir)
    else:
        claim(settings.output_dir, settings.bids_dir)
    with ExitStack() as stack:
        run_folder = start_log(settings, keep=not settings.dry_run)
        stack.callback(stop_log)
        announce(settings, model)
        if made_by := read_makers(settings.bids_dir):
            LOG.info("BIDS_DIR is a derivative dataset (DatasetType) by %s", made_by)
        try:
            background = stack.enter_context(ThreadPoolExecutor(1))
            return _run(settings, model, run_folder, background)
        except BrainstemError as error:
            LOG.debug("ended: %s", error)  # the command prints it
            raise
        except Exception:
            LOG.debug("ended by an error that was not foreseen", exc_info=True)
            raise


def _find_model(settings: Settings) -> Model:
    """Find and verify the model, and check the device, before the dataset is looked at."""
    model = store.find((settings.model or (store.DEFAULT,))[0], settings.models_dir)
    verify(model)
    model.check_folds(settings.folds)
    if settings.device not in ("auto", "cpu"):  # always available; others need torch to check
        from bids_app.segmentation.devices import check_device

        check_device(settings.device, model)
    return model


def _run(settings: Settings, model: Model, run_folder: Path, background: ThreadPoolExecutor) -> int:
    validation = _start_validation(settings, background)
    tasks, unreadable = _tasks(settings, model)
    context = Context.of(model, settings)
    if settings.dry_run:
        _remarks(validation)
        for folder, reason in unreadable:
            LOG.error("%s: %s", folder, reason)
        _list(tasks, _select(settings, tasks, context))
        return 0
    _clean(settings, tasks)
    todo = _select(settings, tasks, context)
    pending = {task.scan for task in todo}
    complete = [task for task in tasks if task.scan not in pending]
    outcome = Outcome(complete=[task.scan for task in complete])
    earlier = read_failures(settings.output_dir)
    failures = Failures(run_folder / "failures.tsv", model, earlier)
    for folder, reason in unreadable:
        LOG.error("%s: %s", folder, reason)
        failures.add_folder(folder, reason)
    renewed = _confirm(complete, earlier, model)
    pages = Pages(settings, [task.scan.participant for task in todo], failures, renewed)
    with stoppable() as stop:
        segmenters = _load(settings, model, stop, len(todo)) if todo else []
        remarks = _remarks(validation)
        LOG.info("Images: %d, complete before: %d", len(tasks), len(outcome.complete))
        if segmenters:
            devices = ", ".join(segmenter.device for segmenter in segmenters)
            LOG.info("Device: %s, CPU threads: %d", devices, settings.omp_nthreads)
        # From here on the folder is this dataset's; a run that ends before leaves it free.
        write_dataset_files(
            settings.output_dir, settings.bids_dir, model, freesurfer_dir=settings.freesurfer_dir
        )
        pipeline = Pipeline(settings, context, failures, outcome, pages, stop, remarks)
        try:
            if segmenters:
                pipeline.run(todo, segmenters)
        finally:
            if outcome.done or outcome.complete:  # else nothing was segmented
                _cite(settings, context)
        pages.write_rest(scan.participant for scan in outcome.complete)
        summarise(settings, model, outcome, failures, stop)
        if stop.signal:
            return 128 + stop.signal
    return 1 if failures.records or pages.lost else 0


def _start_validation(settings: Settings, background: ThreadPoolExecutor) -> Future[Report] | None:
    """Start the BIDS validator, a process of its own that takes seconds."""
    if settings.skip_bids_validation:
        LOG.info("The dataset is not validated (--skip-bids-validation)")
        return None
    if settings.freesurfer_dir is not None:
        LOG.info("The dataset is not validated: the images are those of --freesurfer-dir")
        return None
    LOG.info("The BIDS validator checks the dataset; skip it with --skip-bids-validation")
    written = [settings.output_dir]
    written += [settings.bids_database_dir] if settings.bids_database_dir else []
    return background.submit(
        validate,
        settings.bids_dir,
        settings.participant_label,
        work_dir=settings.work_dir,
        written=written,
    )


def _tasks(settings: Settings, model: Model) -> tuple[list[Task], tuple[tuple[str, str], ...]]:
    """Find the scans and name their outputs, which no two of them may share.

    Returns
    -------
    list of Task
    tuple of (str, str)
        Folders of images that cannot be read, and why.
    """
    found = _find(settings)
    for path, reason in found.left_out:
        LOG.warning("%s: left out, %s", printable(path), reason)
    for alike in found.same_but_case:
        LOG.warning(
            "%s differ in upper and lower case only. On some file systems one replaces the other: "
            "rename one of them",
            " and ".join(map(printable, alike)),
        )
    tasks: dict[str, Task] = {}
    for scan in sorted(found.scans):
        outputs = Outputs.of(settings.output_dir, scan, model.label, parts=bool(model.parts))
        if outputs.stem in tasks:
            first = tasks[outputs.stem].scan.relative
            LOG.warning("%s: left out, its results would replace those of %s", scan.relative, first)
        else:
            tasks[outputs.stem] = Task(scan, outputs)
    check_inside(settings.output_dir, _folders(tasks.values()))
    return list(tasks.values()), found.unreadable


def _find(settings: Settings) -> Found:
    people, sessions = settings.participant_label, settings.session_label
    if settings.freesurfer_dir is not None:
        if settings.suffix not in ((), (T1W,)) or settings.desc:
            raise UsageError("--freesurfer-dir excludes --suffix and --desc: its images are T1w.")
        return find_subjects(settings.freesurfer_dir, participants=people, sessions=sessions)
    descs = tuple(desc.removeprefix("desc-") for desc in settings.desc)
    return find_scans(
        settings.bids_dir,
        participants=people,
        sessions=sessions,
        filter_file=settings.bids_filter_file,
        database_dir=settings.bids_database_dir,
        include_ce=settings.include_ce,
        kinds=Kinds(settings.suffix or (T1W,), descs),
    )


def _folders(tasks: Iterable[Task]) -> set[Path]:
    return {folder for t in tasks for folder in (t.outputs.folder, t.outputs.figures)}


def _select(settings: Settings, tasks: Sequence[Task], context: Context) -> list[Task]:
    """Select the images to process, and warn about complete results that will be replaced."""
    if settings.force:
        return list(tasks)
    found = {task: differing(task, context) for task in tasks}
    ways = Counter(
        ", ".join(f"{key}: {_in_words(old)} -> {_in_words(new)}" for key, (old, new) in way.items())
        for way in found.values()
        if way
    )
    selected = [task for task, way in found.items() if way != {}]
    for task in (task for task in selected if found[task] is None and not task.outputs.too_long):
        for path in find_changed(task.outputs):
            LOG.warning(
                "%s: changed or damaged since it was written; the image is processed again",
                path.relative_to(settings.output_dir),
            )
    if ways:
        changes = "; ".join(f"{way} ({n:,})" if len(ways) > 1 else way for way, n in ways.items())
        LOG.warning(
            "%d of %d images to do have complete results (seg-%s) made with other settings or "
            "weights, which will be replaced: %s. To keep them, choose another OUTPUT_DIR",
            ways.total(),
            len(selected),
            context.model.label,
            changes,
        )
    return selected


def _confirm(complete: Iterable[Task], earlier: Iterable[Failure], model: Model) -> frozenset[str]:
    """Record that images are complete which failed in an earlier run, such as a missing file.

    Returns
    -------
    frozenset of str
        Their participants, whose pages show the failures so far.
    """
    failed = {failure.source: failure for failure in earlier if failure.label == model.label}
    renewed = set()
    for task in complete if failed else ():
        places = [task.scan.relative, *map(str, PurePosixPath(task.scan.relative).parents)]
        of_image = [failed[place] for place in places if place in failed]
        if any(fails_since(task.outputs, failure) for failure in of_image):
            confirm(task.outputs)
            renewed.add(task.scan.participant)
    return frozenset(renewed)


def _list(tasks: Iterable[Task], selected: Iterable[Task]) -> None:
    """Do the dry run; `brainstem-slurm` reads these lines."""
    todo = set(selected)
    for task in tasks:
        scan, state = task.scan, "to do" if task in todo else "complete"
        whose = "" if scan.relative.startswith(f"{scan.participant}/") else f"{scan.participant}/: "
        LOG.info("%-8s  %s%s", state, whose, scan.relative)


def _in_words(setting: object) -> str:
    if isinstance(setting, list):
        return " ".join(map(str, setting))
    return str(setting).lower() if isinstance(setting, bool) else str(setting)


def _clean(settings: Settings, tasks: Iterable[Task]) -> None:
    logs = settings.output_dir / "logs"
    runs = (folder for folder in logs.glob("*/") if not folder.is_symlink())
    clean([settings.output_dir, logs, *runs, *_folders(tasks)])


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
    """Wait for the validator; log what it says of the dataset, return what it says of images.

    Errors of metadata, tables or other images do not change a result, so they stop nothing. An
    image that cannot be used is refused when it is read.
    """
    if validation is None:
        return {}
    report = validation.result()
    if report.errors:
        LOG.warning(
            "the BIDS validator found errors in the dataset; the run goes on:\n%s",
            "\n".join(report.errors),
        )
    return dict(report.image_errors)


def _cite(settings: Settings, context: Context) -> None:
    use = ModelUse.from_sidecar(context.model.label, context.sidecar(settings.device))
    use = replace(use, suffixes=settings.suffix or (T1W,))
    write_citations(settings.output_dir / "logs", [use])
