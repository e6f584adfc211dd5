"""How far a model is with an image that takes long: a bar on a terminal, else a line a minute."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

SECONDS_BETWEEN_LINES = 60


class Windows:
    """Counts the windows of one image, in a ``with`` block.

    Parameters
    ----------
    tell : callable or None
        Gets the lines where standard error is no terminal. None: neither lines nor a bar.
    """

    def __init__(self, tell: Callable[[str], object] | None) -> None:
        terminal = sys.stderr.isatty()
        self._tell = None if terminal else tell
        self._bar = tqdm(
            bar_format="{l_bar}{bar}| {n:.1f} of {total_fmt} windows, {elapsed}, {remaining} left",
            leave=False,
            smoothing=0,  # layers take turns that differ in speed
            disable=tell is None or not terminal,
        )
        self._done = 0.0
        self._start = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, share: float, total: int) -> None:
        """Count windows that were done, in fractions, of their number in all."""
        self._done = min(self._done + share, total)  # the sum may be a rounding too large
        self._bar.total = total
        self._bar.update(self._done - self._bar.n)
        now = time.monotonic()
        if self._tell is not None and now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            passed = now - self._start
            left = passed * (total - self._done) / self._done
            self._tell(
                f"{self._done:.1f} of {total} windows, {tqdm.format_interval(passed)}, "
                f"about {tqdm.format_interval(left)} left"
            )
