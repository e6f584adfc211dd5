"""Tables of text: medians with bootstrap intervals, changes, slopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RESAMPLES = 5000


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the median (Efron, 1979), seeded."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def slope(true: Sequence[float], measured: Sequence[float]) -> float:
    """Return the slope of measured over true change, by least squares through (0, 0)."""
    x, y = np.asarray(true), np.asarray(measured)
    return float(x @ y / (x @ x))


def relative(changed: Mapping[str, float], unchanged: Mapping[str, float]) -> dict[str, float]:
    """Return the relative change of each volume."""
    return {name: changed[name] / unchanged[name] - 1 for name in unchanged}


def median_row(values: Sequence[float], digits: int, *, lowest: bool = True) -> str:
    """Return the median, its interval and the worst value: the lowest or the largest in size."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "n/a"
    low, high = interval(known)
    worst = min(known) if lowest else max(known, key=abs)
    return f"{np.median(known):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] {worst:.{digits}f}"


def change_row(changes: Sequence[Mapping[str, float]]) -> list[str]:
    """Return, for each volume, the median size of its changes and the worst, in per cent."""
    cells = []
    for name in changes[0]:
        found = np.array([change[name] for change in changes])
        worst = found[np.argmax(np.where(np.isfinite(found), np.abs(found), -1))]
        cells.append(f"{100 * np.median(np.abs(found)):.2f} ({100 * worst:+.1f})")
    return cells


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table: first column left-aligned, the others right-aligned."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
