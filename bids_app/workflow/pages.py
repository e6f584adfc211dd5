"""Participants' pages, each written as soon as a run has finished the participant's last image."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from bids_app.bids.dataset import check_owner, read_name
from bids_app.bids.freesurfer import DATASET as FREESURFER
from bids_app.bids.outputs import report_name
from bids_app.bids.results import keep_newest, read_failures, read_results
from bids_app.errors import NoScanError, PlaceError, listing
from bids_app.io.files import check_inside, is_file, write_atomic
from bids_app.measures.flags import read_thresholds
from bids_app.reports.citations import ModelUse, write_citations
from bids_app.reports.images.figures import restore_figures
from bids_app.reports.participant import participant_page
from bids_app.workflow.comparison import compare_models
from bids_app.workflow.freesurfer import write_freesurfer
from bids_app.workflow.log import start_log, stop_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bids_app.bids.results import Failure, Result
    from bids_app.settings import Settings
    from bids_app.workflow.log import Failures

    _Record = TypeVar("_Record", Result, Failure)

LOG = logging.getLogger(__name__)


class Pages:
    """Writes the pages of a run's participants.

    Results of this run are held in memory until the page of their participant is written; those
    of earlier runs are read then. Threads may share it.

    Parameters
    ----------
    settings : Settings
        Settings of the run.
    participants : iterable of str
        The participant of each image to be done, such as ``sub-01``.
    failures : Failures
        Failures of this run and of earlier ones.
    renewed : frozenset of str
        Participants whose pages show failures of images that are complete now.

    Attributes
    ----------
    lost : list of str
        Participants whose pages cannot be written, though other files can.
    """

    def __init__(
        self,
        settings: Settings,
        participants: Iterable[str],
        failures: Failures,
        renewed: frozenset[str] = frozenset(),
    ) -> None:
        self._settings = settings
        self._failures = failures
        self._renewed = renewed
        self._left = Counter(participants)
        self._held: dict[str, list[Result]] = defaultdict(list)
        self._written: set[str] = set()
        self._lock = Lock()
        self.lost: list[str] = []

    def count(self, participant: str, result: Result | None = None) -> None:
        """Count an image that has ended, and write the participant's page after the last one.

        Parameters
        ----------
        participant : str
            The participant of the image.
        result : Result, optional
            What this run made of the image; None if nothing.

        Raises
        ------
        OutputError
            Nothing can be written.
        """
        with self._lock:
            if result is not None:
                self._held[participant].append(result)
            self._left[participant] -= 1
            last = not self._left[participant]
        if last:
            self._write(participant)

    def write_rest(self, participants: Iterable[str]) -> None:
        """Write what is missing of the pages of all participants of the run.

        These are pages that were lost, and those of participants with images that a stopped run
        did not reach.

        Parameters
        ----------
        participants : iterable of str
            Those whose images the run has found complete, done or not.
        """
        for participant in sorted({*participants, *self._held} - self._written):
            self._write(participant)

    def _write(self, participant: str) -> None:
        try:
            self._write_files(participant)
        except PlaceError as error:
            self.lost.append(participant)
            LOG.error("%s: its page is not written: %s", participant, error)  # noqa: TRY400 - a line

    def _write_files(self, participant: str) -> None:
        output_dir, freesurfer = self._settings.output_dir, self._settings.freesurfer_stats
        held = self._held.pop(participant, [])
        failed = any(failure.participant == participant for failure in self._failures.records)
        renewed = participant in self._renewed
        new = held or failed or renewed or not is_file(output_dir / report_name(participant))
        self._written.add(participant)
        if not new and not freesurfer:
            return
        results, failures = keep_newest(
            read_results(output_dir, participant, held), self._failures.of(participant)
        )
        if freesurfer:
            for result in results:
                write_freesurfer(output_dir, result)
        if new and (results or failed):
            write_page(output_dir, participant, results, failures)


def write_page(
    output_dir: Path,
    participant: str,
    results: Sequence[Result],
    failures: Sequence[Failure],
    *,
    thresholds: Mapping[str, float] | None = None,
) -> Path:
    """Write the page of a participant and the tables of how models agree on its images.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    participant : str
        As ``sub-01``.
    results : sequence of Result
        All complete results of the participant.
    failures : sequence of Failure
        Images of the participant that could not be processed.
    thresholds : mapping of str to float, optional
        Thresholds by which flags are set again.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    check_inside(output_dir, (result.outputs.folder for result in results))
    page = participant_page(
        participant,
        results,
        failures,
        compare_models(results),
        dataset_name=read_name(output_dir),
        thresholds=thresholds,
    )
    path = output_dir / report_name(participant)
    write_atomic(path, page)
    return path


def remake_pages(settings: Settings) -> int:
    """Do ``--reports-only``: remake pages and citations from the results in OUTPUT_DIR.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    NoScanError
        There is no result, or none of the participants asked for.
    OutputError
        A file cannot be written.
    """
    output_dir = settings.output_dir
    check_owner(output_dir, settings.bids_dir)
    results, failures = keep_newest(read_results(output_dir), read_failures(output_dir))
    by_results, by_failures = _by_participant(results), _by_participant(failures)
    participants = _requested(settings, by_results.keys() | by_failures.keys())
    start_log(settings, keep=False)
    try:
        for result in results:
            if result.participant not in participants:
                continue
            check_inside(output_dir, [result.outputs.figures])
            datasets = {"raw": settings.bids_dir, FREESURFER: settings.freesurfer_dir}
            dataset = datasets.get(result.source_dataset)
            if reason := restore_figures(result, dataset, assume_ras=settings.assume_ras):
                LOG.warning("%s: its page has no picture or viewer: %s", result.source, reason)
        uses = [ModelUse.from_sidecar(result.label, result.sidecar) for result in results]
        write_citations(output_dir / "logs", uses)
        thresholds = read_thresholds(settings.flag_threshold)
        for participant in participants:
            own, failed = by_results[participant], by_failures[participant]
            path = write_page(output_dir, participant, own, failed, thresholds=thresholds)
            LOG.info("%s", path)
            if settings.freesurfer_stats:
                for result in own:
                    write_freesurfer(output_dir, result)
    finally:
        stop_log()
    return 0


def _by_participant(records: Iterable[_Record]) -> dict[str, list[_Record]]:
    found: dict[str, list[_Record]] = defaultdict(list)
    for record in records:
        found[record.participant].append(record)
    return found


def _requested(settings: Settings, known: set[str]) -> list[str]:
    if not known:
        raise NoScanError(
            f"{settings.output_dir}: there are no results. Run the participant level first."
        )
    if participants := settings.requested(known):
        return participants
    names = listing("participant", (name.removeprefix("sub-") for name in known))
    raise NoScanError(
        f"{settings.output_dir}: no result matches --participant-label "
        f"{' '.join(settings.participant_label)}. There are results of {names}."
    )
