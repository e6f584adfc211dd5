"""Ending a run cleanly on Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger(__name__)
IMAGES_STAY = "Complete images are kept; the next run starts unfinished ones from the beginning"


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """Raised at a point where work can stop, after the run was asked to end."""


class Stop:
    """Whether the run was asked to end, and by which signal.

    Parameters
    ----------
    kept : str
        Message to the user about the work done so far.

    Attributes
    ----------
    signal : int
        Number of the signal; 0 if there was none.
    """

    def __init__(self, kept: str) -> None:
        self.signal = 0
        self._kept = kept

    def __call__(self, number: int, _frame: object) -> None:
        """Handle a signal: the first requests a clean end, the second ends the run at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        LOG.warning(
            "%s: the run ends soon; a second signal ends it at once. %s",
            signal.Signals(number).name,
            self._kept,
        )

    def check(self) -> None:
        """Raise `Interrupted` if the run was asked to end."""
        if self.signal:
            raise Interrupted


@contextmanager
def stoppable(kept: str = IMAGES_STAY) -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request that running work can check.

    Parameters
    ----------
    kept : str
        Message to the user about the work done so far.

    Yields
    ------
    Stop
        Set by the first signal. Outside the main thread signals cannot be caught, and it is
        never set.
    """
    stop = Stop(kept)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
