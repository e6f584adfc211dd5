"""Images through a loaded model: read, segment, write, each at its own pace.

While the network works on one image, a thread reads and checks the next one and another writes
the last one. At most three images are in memory. Where the model is loaded onto several devices,
each of them takes the next image when it is ready. An image that fails never stops the others,
unless that is asked for; output that cannot be written stops the run.
"""

from __future__ import annotations

import logging
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from bids_app.bids.results import other_settings
from bids_app.errors import BrainstemError, ImageError, OutputError
from bids_app.io.files import lock
from bids_app.io.images import file_sha256, read_volume
from bids_app.workflow.interrupt import Interrupted
from bids_app.workflow.write import Context, Record, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bids_app.bids.outputs import Outputs
    from bids_app.bids.scans import Scan
    from bids_app.io.images import Volume
    from bids_app.segmentation.types import Segmentation, Segmenter
    from bids_app.settings import Settings
    from bids_app.workflow.interrupt import Stop
    from bids_app.workflow.log import Failures

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One image and where its results go."""

    scan: Scan
    outputs: Outputs


@dataclass
class Outcome:
    """What became of the images of a run, failures aside.

    Attributes
    ----------
    done : list of (Scan, Record)
        Made by this run.
    complete : list of Scan
        Found complete.
    elsewhere : list of Scan
        Left to another run that was at them.
    cut_short : list of Scan
        Begun, and not finished before the run was asked to end.
    """

    done: list[tuple[Scan, Record]] = field(default_factory=list)
    complete: list[Scan] = field(default_factory=list)
    elsewhere: list[Scan] = field(default_factory=list)
    cut_short: list[Scan] = field(default_factory=list)


@dataclass
class _Read:
    """An image that was read, and the lock on its outputs, held until they are written."""

    task: Task
    place: str
    volume: Volume
    held: ExitStack
    seconds: float


def differing(task: Task, context: Context) -> dict[str, tuple[Any, Any]] | None:
    """Tell whether an image is complete, or by which models and settings its results are others.

    Returns
    -------
    dict of str to tuple, or None
        As of `bids_app.bids.results.other_settings`.
    """
    if not task.outputs.sidecar.is_file():
        return None
    try:
        digest = file_sha256(task.scan.path)
    except ImageError:
        return None
    return other_settings(
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
        Of the run.
    context : Context
        Model and settings that the results tell of.
    failures : Failures
        Takes up the images that fail.
    outcome : Outcome
        Takes up the others.
    stop : Stop
        Whether the run was asked to end.
    remarks : mapping of str to str
        By path in the dataset, what the validator says of single images.
    """

    def __init__(
        self,
        settings: Settings,
        context: Context,
        failures: Failures,
        outcome: Outcome,
        stop: Stop,
        remarks: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._context = context
        self._failures = failures
        self._outcome = outcome
        self._stop = stop
        self._remarks = remarks
        self._broken = False

    def run(self, tasks: Sequence[Task], segmenters: Sequence[Segmenter]) -> None:
        """Do all images, begun in order.

        Parameters
        ----------
        tasks : sequence of Task
        segmenters : sequence of Segmenter
            One a device; they share the images.

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
        """Do images until none is left. Other threads may do so too: `next` is one step to them."""
        writing: Future[None] | None = None
        try:
            with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
                ahead = self._read_next(queue, reader)
                while ahead:
                    read = ahead.result()
                    ahead = self._read_next(queue, reader)
                    try:
                        segmentation = self._segment(read, segmenter) if read else None
                    except Interrupted:
                        continue  # not one that the bar counts
                    if writing:
                        writing.result()
                    if read and segmentation:
                        writing = writer.submit(self._write, read, segmentation)
                    bar.update()
                if writing:
                    writing.result()
        except BaseException:
            self._broken = True
            raise

    def _read_next(
        self, queue: Iterator[tuple[Task, str]], reader: ThreadPoolExecutor
    ) -> Future[_Read | None] | None:
        if self._ends() or not (following := next(queue, None)):
            return None
        return reader.submit(self._read, *following)

    def _ends(self) -> bool:
        failed = self._settings.stop_on_first_crash and bool(self._failures.reasons)
        return failed or self._broken or bool(self._stop.signal)

    def _read(self, task: Task, place: str) -> _Read | None:
        start = time.perf_counter()
        path = task.scan.relative
        held = ExitStack()
        try:
            if not held.enter_context(lock(task.outputs.lock)):
                LOG.info("%s: another run is at it; left to that run", path)
                self._outcome.elsewhere.append(task.scan)
                return None
            # Another run may have done it since this one looked.
            if not self._settings.force and differing(task, self._context) == {}:
                self._outcome.complete.append(task.scan)
                held.close()
                return None
            volume = read_volume(task.scan.path, assume_ras=self._settings.assume_ras)
        except OutputError:
            raise
        except Exception as error:
            held.close()
            self._fail(task.scan, error)
            return None
        for warning in volume.warnings:
            LOG.warning("%s: %s", path, warning)
        if path in self._remarks:
            LOG.warning("%s: the BIDS validator says: %s", path, self._remarks[path])
        return _Read(task, place, volume, held, time.perf_counter() - start)

    def _segment(self, read: _Read, segmenter: Segmenter) -> Segmentation | None:
        if self._ends():
            read.held.close()
            raise Interrupted
        start = time.perf_counter()
        try:
            return segmenter(read.volume, partial(self._tell, read))
        except Interrupted:
            self._outcome.cut_short.append(read.task.scan)
            read.held.close()
            raise
        except Exception as error:
            read.held.close()
            self._fail(read.task.scan, error)
            return None
        finally:
            read.seconds += time.perf_counter() - start

    def _tell(self, read: _Read, line: str) -> None:
        LOG.info("%s %s: %s", read.place, read.task.scan.relative, line)

    def _write(self, read: _Read, segmentation: Segmentation) -> None:
        scan = read.task.scan
        with read.held:
            try:
                record = write_image(
                    read.task.outputs, scan, read.volume, segmentation, self._context, read.seconds
                )
            except OutputError:
                raise
            except Exception as error:
                self._fail(scan, error)
                return
        self._outcome.done.append((scan, record))
        LOG.info(
            "%s %s: brainstem %.2f ml, %.1f s%s",
            read.place,
            scan.relative,
            record.volumes[-1].volume_mm3 / 1000,
            read.seconds,
            f", flags: {', '.join(record.flags)}" if record.flags else "",
        )

    def _fail(self, scan: Scan, error: Exception) -> None:
        if isinstance(error, BrainstemError):
            reason = str(error)
        else:  # ours to mend, not the user's: keep where it came from
            reason = f"{type(error).__name__}: {error}"
            LOG.debug("%s", scan.relative, exc_info=error)
        self._failures.add(scan, reason)
        LOG.error("%s: %s", scan.relative, reason)
