"""The log of a run: plain lines on the screen and in a file, and the table of failures."""

from __future__ import annotations

import logging
import sys
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from tqdm import tqdm

from bids_app.bids.columns import FAILURES
from bids_app.bids.outputs import ENTITIES
from bids_app.bids.results import Failure, timestamp
from bids_app.errors import printable
from bids_app.io.files import run_token, write_atomic
from bids_app.io.tables import dump_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bids_app.bids.scans import Scan
    from bids_app.io.tables import Value
    from bids_app.models.manifest import Model
    from bids_app.settings import Settings

LOG = logging.getLogger("bids_app")


class _Screen(logging.Handler):
    """Writes above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _File(logging.FileHandler):
    """Drops what cannot be written: a full disk is reported where results are written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Print no traceback."""


class _Printable(logging.Formatter):
    """Escapes what a terminal would not print as it stands; in paths, line breaks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a message, and its traceback."""
        return printable(super().format(_without_breaks_in_paths(record)), keep="\n\t")


class _OneLine(_Printable):
    """Leaves tracebacks to the log file."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the message only."""
        message = printable(_without_breaks_in_paths(record).getMessage(), keep="\n\t")
        return message if record.levelno <= logging.INFO else f"{record.levelname}: {message}"


def _without_breaks_in_paths(record: logging.LogRecord) -> logging.LogRecord:
    if not isinstance(record.args, tuple):
        return record
    changed = copy(record)
    changed.args = tuple(
        printable(value) if isinstance(value, Path) else value for value in record.args
    )
    return changed


def new_run_id() -> str:
    """Name a run: the current time (UTC) and eight hexadecimal digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{run_token()}"


def start_log(settings: Settings, *, keep: bool) -> Path:
    """Send log lines to the screen and, if kept, to ``run.log`` beside the run's settings.

    Parameters
    ----------
    settings : Settings
        Settings of the run; `verbose` sends details to the screen too.
    keep : bool
        Write log and settings to the run's folder.

    Returns
    -------
    Path
        The run's folder, ``logs/<run id>`` in the output folder; it exists only if kept.
    """
    folder = settings.output_dir / "logs" / new_run_id()
    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False
    stop_log()
    screen = _Screen(logging.DEBUG if settings.verbose else logging.INFO)
    screen.setFormatter(_OneLine())
    LOG.addHandler(screen)
    if keep:
        write_atomic(folder / "config.toml", settings.toml().encode())
        file = _File(folder / "run.log", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
        LOG.addHandler(file)
    return folder


def stop_log() -> None:
    """Close the log file and detach the screen."""
    for handler in LOG.handlers[:]:
        LOG.removeHandler(handler)
        handler.close()


class Failures:
    """Images that could not be processed, saved to ``failures.tsv`` as they occur.

    Parameters
    ----------
    path : Path
        The table; it has no row until an image fails. `bids_app.bids.results.read_failures` reads
        it.
    model : Model
        Model of this run.
    earlier : iterable of Failure
        Failures of earlier runs.

    Attributes
    ----------
    records : list of Failure
        Failures of this run.
    """

    def __init__(self, path: Path, model: Model, earlier: Iterable[Failure] = ()) -> None:
        self.path = path
        self.records: list[Failure] = []
        self._model = model
        self._earlier = list(earlier)
        self._lock = Lock()
        self._write()

    def add(self, scan: Scan, reason: str) -> None:
        """Record an image with a one-line reason; its path becomes relative to the dataset."""
        entities = dict(scan.entities)
        named = {key: entities[key] for key in ENTITIES if key in entities}
        reason = reason.replace(str(scan.path), scan.relative)
        self._add(scan.participant, scan.session or "", named, scan.relative, reason)

    def add_folder(self, relative: str, reason: str) -> None:
        """Record a folder of images that cannot be read, by its path in the dataset."""
        participant, *rest = relative.split("/")
        session = rest[0] if rest and rest[0].startswith("ses-") else ""
        self._add(participant, session, {}, relative, reason)

    def _add(
        self,
        participant: str,
        session: str,
        entities: dict[str, str],
        source: str,
        reason: str,
    ) -> None:
        failure = Failure(
            participant=participant,
            session=session,
            entities=entities,
            source=source,
            model=self._model.name,
            model_version=self._model.version,
            label=self._model.label,
            reason=" ".join(reason.split()),
            time=timestamp(),
        )
        with self._lock:
            self.records.append(failure)
            self._write()

    def of(self, participant: str) -> list[Failure]:
        """Select the failures of a participant; the latest of each image and model."""
        known = {
            (failure.label, failure.source): failure
            for failure in (*self._earlier, *self.records)
            if failure.participant == participant
        }
        return list(known.values())

    def _write(self) -> None:
        write_atomic(self.path, dump_rows(map(_row, self.records), FAILURES))


def _row(failure: Failure) -> dict[str, Value]:
    return {
        "participant_id": failure.participant,
        "session_id": failure.session or None,
        **failure.entities,
        **{key: getattr(failure, key) for key in ("source", "model", "model_version", "label")},
        "reason": failure.reason,
        "time": failure.time or None,
    }
