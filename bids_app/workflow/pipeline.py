"""Run images through a loaded model: read, segment and write each one.

If the model is loaded onto several devices, one thread per device takes the next image as soon as
it is free. An image that fails does not stop the others, unless ``--stop-on-first-crash`` is given;
so does one whose own output cannot be
written. A disk that is full stops the run.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from bids_app.bids.results import find_differences
from bids_app.errors import (
    BrainstemError,
    ImageError,
    OutputError,
    PlaceError,
    printable,
    unforeseen,
)
from bids_app.io.files import is_file, lock
from bids_app.io.images import file_sha256, read_volume
from bids_app.workflow.interrupt import Interrupted
from bids_app.workflow.write import write_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bids_app.bids.outputs import Outputs
    from bids_app.bids.results import Result
    from bids_app.bids.scans import Scan
    from bids_app.segmentation.types import Segmenter
    from bids_app.settings import Settings
    from bids_app.workflow.interrupt import Stop
    from bids_app.workflow.log import Failures
    from bids_app.workflow.pages import Pages
    from bids_app.workflow.write import Context

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One image and where its results go."""

    scan: Scan
    outputs: Outputs


@dataclass
class Outcome:
    """What became of the images of a run; `Failures` has those that failed.

    Attributes
    ----------
    done : list of (Scan, Result)
        Segmented by this run.
    complete : list of Scan
        Complete before.
    elsewhere : list of Scan
        Skipped because another run was processing them.
    cut_short : list of Scan
        Started, but not finished before the run was asked to end.
    """

    done: list[tuple[Scan, Result]] = field(default_factory=list)
    complete: list[Scan] = field(default_factory=list)
    elsewhere: list[Scan] = field(default_factory=list)
    cut_short: list[Scan] = field(default_factory=list)


def differing(task: Task, context: Context) -> dict[str, tuple[Any, Any]] | None:
    """Compare the models and settings of an image's results with those of the run.

    Returns
    -------
    dict of str to tuple, or None
        As `bids_app.bids.results.find_differences`: if empty, the image is complete.
    """
    if task.outputs.too_long or not is_file(task.outputs.sidecar):
        return None
    try:
        digest = file_sha256(task.scan.path)
    except ImageError:
        return None
    return find_differences(
        task.outputs,
        digest,
        context.models,
        context.settings,
        probabilities=context.probabilities,
    )


class Pipeline:
    """Runs images through segmenters.

    Parameters
    ----------
    settings : Settings
        Settings of the run.
    context : Context
        Model and settings that the results state.
    failures : Failures
        Collects the images that fail.
    outcome : Outcome
        Collects the others.
    pages : Pages
        Counts the images that have ended, and writes participants' pages.
    stop : Stop
        Whether the run was asked to end.
    remarks : mapping of str to str
        What the validator says of single images, by path in the dataset.
    """

    def __init__(
        self,
        settings: Settings,
        context: Context,
        failures: Failures,
        outcome: Outcome,
        pages: Pages,
        stop: Stop,
        remarks: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._context = context
        self._failures = failures
        self._outcome = outcome
        self._pages = pages
        self._stop = stop
        self._remarks = remarks
        self._broken = False

    def run(self, tasks: Sequence[Task], segmenters: Sequence[Segmenter]) -> None:
        """Process all images, started in order.

        Parameters
        ----------
        tasks : sequence of Task
        segmenters : sequence of Segmenter
            One per device; they share the images.

        Raises
        ------
        OutputError
            The output cannot be written; what was written before stays.
        """
        from bids_app.engines.threads import side_by_side  # torch, which is loaded by now

        queue = iter([(task, f"[{n}/{len(tasks)}]") for n, task in enumerate(tasks, 1)])
        first, *others = segmenters
        bar = tqdm(total=len(tasks), unit="image", disable=not sys.stderr.isatty())
        with bar, side_by_side(len(segmenters), self._settings.omp_nthreads) as pool:
            workers = [pool.submit(self._work, queue, other, bar) for other in others]
            self._work(queue, first, bar)  # in this thread, which a second Ctrl-C ends at once
            for worker in workers:
                worker.result()

    def _work(
        self, queue: Iterator[tuple[Task, str]], segmenter: Segmenter, bar: tqdm[NoReturn]
    ) -> None:
        """Process images until none is left; `next` is atomic, so threads can share the queue."""
        try:
            while not self._ends() and (following := next(queue, None)):
                task, place = following
                try:
                    result = self._process(task, place, segmenter)
                except Interrupted:  # not finished, so neither counted nor on a page
                    self._outcome.cut_short.append(task.scan)
                    continue
                self._pages.count(task.scan.participant, result)
                bar.update()
        except BaseException:
            self._broken = True
            raise

    def _ends(self) -> bool:
        failed = self._settings.stop_on_first_crash and bool(self._failures.records)
        return failed or self._broken or bool(self._stop.signal)

    def _process(self, task: Task, place: str, segmenter: Segmenter) -> Result | None:
        scan = task.scan
        if task.outputs.too_long:
            self._fail(scan, ImageError("its name is too long to name its results; shorten it"))
            return None
        try:
            return self._process_alone(task, place, segmenter)
        except PlaceError as error:
            self._fail(scan, error)
            return None

    def _process_alone(self, task: Task, place: str, segmenter: Segmenter) -> Result | None:
        scan = task.scan
        with lock(task.outputs.lock) as held:
            if not held:
                LOG.info("%s: skipped: another run is processing it", scan.relative)
                self._outcome.elsewhere.append(scan)
                return None
            # Another run may have completed it since this one looked.
            if not self._settings.force and differing(task, self._context) == {}:
                self._outcome.complete.append(scan)
                return None
            try:
                result = self._segment(task, place, segmenter)
            except (OutputError, Interrupted):
                raise
            except Exception as error:
                self._fail(scan, error)
                return None
        self._outcome.done.append((scan, result.without_figures()))
        _log_result(place, result)
        return result

    def _segment(self, task: Task, place: str, segmenter: Segmenter) -> Result:
        start = time.perf_counter()
        path = task.scan.relative
        volume = read_volume(task.scan.path, assume_ras=self._settings.assume_ras)
        for warning in volume.warnings:
            LOG.warning("%s: %s", path, warning)
        if path in self._remarks:
            LOG.warning("%s: the BIDS validator says: %s", path, self._remarks[path])
        segmentation = segmenter(volume, partial(LOG.info, "%s %s: %s", place, path))
        seconds = time.perf_counter() - start
        return write_image(task.outputs, task.scan, volume, segmentation, self._context, seconds)

    def _fail(self, scan: Scan, error: Exception) -> None:
        if isinstance(error, BrainstemError):
            reason = str(error)
        else:  # ours to fix, not the user's: keep where it came from
            reason = unforeseen(error)
            LOG.debug("%s", scan.relative, exc_info=error)
        self._failures.add(scan, reason)
        LOG.error("%s: %s", scan.relative, printable(reason))


def _log_result(place: str, result: Result) -> None:
    sidecar = result.sidecar
    LOG.info(
        "%s %s: brainstem %.2f ml, %.1f s%s",
        place,
        result.source,
        result.volumes[-1].volume_mm3 / 1000,
        sidecar.seconds,
        f", flags: {', '.join(sidecar.flags)}" if sidecar.flags else "",
    )
