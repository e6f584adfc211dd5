"""Progress of long work: a bar on a terminal, else a line of text every minute."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

SECONDS_BEFORE_BAR = 5  # shorter work shows no bar
SECONDS_BETWEEN_LINES = 60


class Progress:
    """Shows how much of some work is done, in a ``with`` block.

    Parameters
    ----------
    report : callable or None
        Receives the lines if standard error is not a terminal. None: neither lines nor a bar.
    unit : str
        What is counted, such as ``windows``.
    digits : int
        Decimals of the amount done.
    start : float
        Amount that was done before.
    """

    def __init__(
        self, report: Callable[[str], object] | None, unit: str, digits: int = 0, start: float = 0
    ) -> None:
        terminal = sys.stderr.isatty()
        self._report = None if terminal else report
        self._unit, self._digits = unit, digits
        self._bar = tqdm(
            bar_format=f"{{l_bar}}{{bar}}| {{n:.{digits}f}} of {{total_fmt}} {unit}, {{elapsed}}, "
            "{remaining} left",
            leave=False,
            initial=start,
            smoothing=0,  # the parts of an image differ in speed
            delay=SECONDS_BEFORE_BAR,
            disable=report is None or not terminal,
        )
        self._done = self._start = start
        self._started = self._reported = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, amount: float, total: int) -> None:
        """Count an amount that was done, of a total."""
        self._done = min(self._done + amount, total)  # the sum may be a rounding error too large
        self._bar.total = total
        self._bar.update(self._done - self._bar.n)
        now = time.monotonic()
        if self._report is not None and now - self._reported >= SECONDS_BETWEEN_LINES:
            self._reported = now
            passed = now - self._started
            left = passed * (total - self._done) / max(self._done - self._start, 1e-9)
            self._report(
                f"{self._done:.{self._digits}f} of {total} {self._unit}, "
                f"{tqdm.format_interval(passed)}, about {tqdm.format_interval(left)} left"
            )
