"""The log of a run: plain lines on the screen and in a file, and the list of failures."""

from __future__ import annotations

import logging
import sys
from threading import Lock
from typing import TYPE_CHECKING

from tqdm import tqdm

from bids_app.bids.outputs import ENTITIES
from bids_app.io.files import write_atomic
from bids_app.io.tables import NOT_AVAILABLE, table

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.bids.scans import Scan
    from bids_app.models.manifest import Model
    from bids_app.settings import Settings

LOG = logging.getLogger("bids_app")
_SCAN_COLUMNS = ("participant_id", "session_id", *ENTITIES, "source")
_MODEL_COLUMNS = ("model", "model_version", "label", "reason")


class _Screen(logging.Handler):
    """Writes above a progress bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _OneLine(logging.Formatter):
    """Leaves tracebacks to the log file."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the message alone."""
        message = record.getMessage()
        return message if record.levelno <= logging.INFO else f"{record.levelname}: {message}"


def start_log(settings: Settings, *, keep: bool) -> None:
    """Send log lines to the screen, and to ``run.log`` beside the run's settings if kept.

    Parameters
    ----------
    settings : Settings
        Of the run; `verbose` says whether the screen tells details too.
    keep : bool
        Write log and settings to the run's folder.
    """
    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False
    stop_log()
    screen = _Screen(logging.DEBUG if settings.verbose else logging.INFO)
    screen.setFormatter(_OneLine())
    LOG.addHandler(screen)
    if keep:
        write_atomic(settings.run_folder / "config.toml", settings.toml().encode())
        file = logging.FileHandler(settings.run_folder / "run.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOG.addHandler(file)


def stop_log() -> None:
    """Close the log file and forget the screen."""
    for handler in LOG.handlers[:]:
        LOG.removeHandler(handler)
        handler.close()


class Failures:
    """Images that could not be done, kept in ``failures.tsv`` as they come.

    Parameters
    ----------
    path : Path
        The table; without a row while nothing has failed.
    model : Model
        Model of this run.

    Attributes
    ----------
    reasons : list of (Scan, str)
        The images and why each failed.
    """

    def __init__(self, path: Path, model: Model) -> None:
        self.path = path
        self._model = (model.name, model.version, model.label)
        self._rows: list[list[str]] = []
        self.reasons: list[tuple[Scan, str]] = []
        self._lock = Lock()
        self._write()

    def add(self, scan: Scan, reason: str) -> None:
        """Note one image with one line that says why; paths become relative to the dataset."""
        reason = " ".join(reason.replace(str(scan.path), scan.relative).split())
        entities = dict(scan.entities)
        row = [
            scan.participant,
            scan.session or NOT_AVAILABLE,
            *(entities.get(key, NOT_AVAILABLE) for key in ENTITIES),
            scan.relative,
            *self._model,
            reason,
        ]
        with self._lock:
            self.reasons.append((scan, reason))
            self._rows.append(row)
            self._write()

    def _write(self) -> None:
        write_atomic(self.path, table([*_SCAN_COLUMNS, *_MODEL_COLUMNS], self._rows))
