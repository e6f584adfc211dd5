"""Distributions of values as small inline drawings (SVG), without a plotting library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_app.group.zscores import robust_z

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

WIDTH = 520
MARGIN = 12  # at the left and right
BAND = 70  # height of one group: its name, its dots, its box
DOTS = (26, 48)  # extent of the dots within a band
BOX = (53, 64)  # extent of the box within a band
INTERVALS = 5  # of the axis, about
LEAST_FOR_BOX = 5  # with fewer values, the dots alone say more
MOST_DOTS = 2000  # of a group; more are drawn as a histogram
BARS = 80
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Mark:
    """A ringed value: its place in pixels, a tooltip, and the address of its report or ``""``."""

    x: str
    y: str
    title: str
    address: str


@dataclass(frozen=True)
class Band:
    """One group; `dots`, `bars`, `box` and `median` are SVG paths, empty if not drawn."""

    name: str
    top: int
    dots: str
    bars: str
    box: str
    median: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """A drawing for the macro `distribution`; `ticks` are pairs of x in pixels and text."""

    title: str
    color: str
    values: int
    bottom: int
    ticks: tuple[tuple[str, str], ...]
    bands: tuple[Band, ...]


def distribution(
    title: str,
    color: str,
    groups: Mapping[str, pd.Series[float]],
    limit: float,
    describe: Callable[[pd.Index], list[tuple[str, str]]],
) -> Plot:
    """Draw each value of a measure as a dot above a box plot, in one band per group.

    A group of more than `MOST_DOTS` values has a histogram instead of dots. Boxes extend from the
    first to the third quartile, whiskers to the furthest values within 1.5 times that length
    (Tukey). Outliers within their group (see `find_outlying`) are ringed and link to their report.

    Parameters
    ----------
    title : str
        The measure with its unit.
    color : str
        ``#RRGGBB`` of the dots.
    groups : mapping of str to Series
        Finite values by group, at least one; the name of a single group is not written.
    limit : float
        Robust z score from which a value is ringed.
    describe : callable
        Gives for index labels of the groups the name of each value and the address of its report.
    """
    everything = np.concatenate([values.to_numpy() for values in groups.values()])
    ticks = _ticks(float(everything.min()), float(everything.max()))
    low, high = ticks[0], ticks[-1]

    def across(value: Values) -> Values:
        return MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN)

    bands = []
    for row, (name, series) in enumerate(groups.items()):
        values: Values = np.asarray(series, dtype=np.float64)
        top = row * BAND
        # Steps of the golden section spread the dots evenly, and the same way each time.
        heights = top + DOTS[0] + (DOTS[1] - DOTS[0]) * (np.arange(len(values)) * _GOLDEN % 1)
        places, many = across(values), len(values) > MOST_DOTS
        ringed = np.flatnonzero(find_outlying(values, limit))
        described = zip(ringed, describe(series.index[ringed]), strict=True)
        marks = [
            Mark(f"{places[i]:.1f}", f"{heights[i]:.1f}", f"{label}: {values[i]:.2f}", address)
            for i, (label, address) in described
        ]
        # One path for all dots: thousands of circles would slow the page down.
        dots = "" if many else "".join(map("M{:.1f} {:.1f}h0".format, places, heights))
        bars = _histogram(values, top, across) if many else ""
        bands.append(Band(name, top, dots, bars, *_box(values, top, across), tuple(marks)))
    places = across(np.array(ticks))
    labels = tuple((f"{x:.1f}", f"{tick:g}") for x, tick in zip(places, ticks, strict=True))
    return Plot(title, color, len(everything), BAND * len(groups), labels, tuple(bands))


def find_outlying(values: Values, limit: float) -> NDArray[np.bool_]:
    """Find values whose robust z score exceeds a limit; none if the spread is unknown."""
    return np.abs(robust_z(values, least=LEAST_FOR_BOX)) > limit


def _box(values: Values, top: int, across: Callable[[Values], Values]) -> tuple[str, str]:
    """Draw a box with whiskers, and the median; nothing for a few values."""
    if len(values) < LEAST_FOR_BOX:
        return "", ""
    first, middle, third = np.percentile(values, (25, 50, 75))
    reach = 1.5 * (third - first)
    low = values[values >= first - reach].min()
    high = values[values <= third + reach].max()
    low, left, centre, right, high = across(np.array([low, first, middle, third, high]))
    upper, lower = top + BOX[0], top + BOX[1]
    line = (upper + lower) / 2
    outline = (
        f"M{low:.1f} {line}H{left:.1f}M{right:.1f} {line}H{high:.1f}"
        f"M{left:.1f} {upper}H{right:.1f}V{lower}H{left:.1f}Z"
    )
    return outline, f"M{centre:.1f} {upper}V{lower}"


def _histogram(values: Values, top: int, across: Callable[[Values], Values]) -> str:
    counts, edges = np.histogram(values, bins=BARS)
    bottom, tall = top + DOTS[1] + 3, DOTS[1] - DOTS[0] + 6
    heights, edges = bottom - tall * counts / counts.max(), across(edges)
    return "".join(
        f"M{left:.1f} {bottom}V{height:.1f}H{right:.1f}V{bottom}Z"
        for height, left, right in zip(heights, edges[:-1], edges[1:], strict=True)
        if height < bottom
    )


def _ticks(low: float, high: float) -> list[float]:
    """Choose round numbers around a range; at least two."""
    spread = (high - low) or abs(high) or 1.0
    magnitude = 10 ** math.floor(math.log10(spread / INTERVALS))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= spread / INTERVALS)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(i * step, 10) for i in range(first, last + 1)]
