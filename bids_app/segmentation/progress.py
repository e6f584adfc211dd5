"""How far a model is with an image that takes long: a bar on a terminal, else a line a minute."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

SECONDS_BEFORE_BAR = 5  # an image that is done by then needs none
SECONDS_BETWEEN_LINES = 60


class Progress:
    """Counts the parts of one image that are done, in a ``with`` block.

    Parameters
    ----------
    tell : callable or None
        Gets the lines where standard error is no terminal. None: neither lines nor a bar.
    parts : str
        What is counted, such as ``windows``.
    digits : int
        Of the number of parts that are done, after the point.
    """

    def __init__(self, tell: Callable[[str], object] | None, parts: str, digits: int = 0) -> None:
        terminal = sys.stderr.isatty()
        self._tell = None if terminal else tell
        self._parts, self._digits = parts, digits
        self._bar = tqdm(
            bar_format=f"{{l_bar}}{{bar}}| {{n:.{digits}f}} of {{total_fmt}} {parts}, {{elapsed}}, "
            "{remaining} left",
            leave=False,
            smoothing=0,  # parts take turns that differ in speed
            delay=SECONDS_BEFORE_BAR,
            disable=tell is None or not terminal,
        )
        self._done = 0.0
        self._start = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, share: float, total: int) -> None:
        """Count parts that were done, whole ones or fractions, of their number in all."""
        self._done = min(self._done + share, total)  # the sum may be a rounding too large
        self._bar.total = total
        self._bar.update(self._done - self._bar.n)
        now = time.monotonic()
        if self._tell is not None and now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            passed = now - self._start
            left = passed * (total - self._done) / self._done
            self._tell(
                f"{self._done:.{self._digits}f} of {total} {self._parts}, "
                f"{tqdm.format_interval(passed)}, about {tqdm.format_interval(left)} left"
            )
