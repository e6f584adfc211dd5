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
IMAGES_STAY = (
    "An image that is not finished by then is started over by the next run; all that are complete "
    "stay"
)


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """Raised where work can be left off, once the run was asked to end."""


class Stop:
    """Whether the run was asked to end, and by which signal.

    Parameters
    ----------
    stays : str
        What the user is told of the work that is done by then.

    Attributes
    ----------
    signal : int
        Number of the signal; 0 while there was none.
    """

    def __init__(self, stays: str) -> None:
        self.signal = 0
        self._stays = stays

    def __call__(self, number: int, _frame: object) -> None:
        """Handle a signal: the first asks for a clean end, the second ends at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        LOG.warning(
            "%s: the run ends soon (again: at once). %s", signal.Signals(number).name, self._stays
        )

    def check(self) -> None:
        """Raise `Interrupted` if the run was asked to end."""
        if self.signal:
            raise Interrupted


@contextmanager
def stoppable(stays: str = IMAGES_STAY) -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request that the work in hand can see.

    Parameters
    ----------
    stays : str
        What the user is told then of the work that is done.

    Yields
    ------
    Stop
        Set by the first signal. Outside the main thread signals cannot be caught, and it is
        never set.
    """
    stop = Stop(stays)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
