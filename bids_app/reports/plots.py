"""Distributions of volumes as small inline drawings (SVG), without a plotting library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING

import numpy as np

from bids_app.group.zscores import robust_z
from bids_app.reports.markup import element

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bids_app.reports.markup import Markup

WIDTH = 520
MARGIN = 12  # at the left and right
BAND = 70  # height of one group: its name, its dots, its box
DOTS = (26, 48)  # where in a band the dots lie
BOX = (53, 64)
AXIS = 24  # height of the axis
INTERVALS = 5  # of the axis, about
LEAST_FOR_BOX = 5  # values; below that a box says less than the dots
OUTLYING = 3.5  # robust z from which a value is marked (Iglewicz and Hoaglin, 1993)
MOST_DOTS = 2000  # of a group; more are drawn as a histogram
BARS = 80
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Point:
    """One value: what it is of, and the address of its report (empty where there is none)."""

    value: float
    name: str
    address: str


def distribution(title: str, color: str, groups: Mapping[str, Sequence[Point]]) -> Markup:
    """Draw every value of a measure as a dot over a box plot, in a band for each group.

    Of a group of more than `MOST_DOTS` values a histogram stands in the place of the dots.
    Boxes reach from the first to the third quartile, whiskers to the furthest values within one
    and a half times that length (Tukey). Values that lie out within their group (see
    `outlier`) are ringed and lead to their report.

    Parameters
    ----------
    title : str
        The measure with its unit.
    color : str
        ``#RRGGBB`` of the dots.
    groups : mapping of str to sequence of Point
        Values by group, one at least; a single group's name is not written.

    Returns
    -------
    Markup
        A ``figure``.
    """
    values = [point.value for points in groups.values() for point in points]
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def across(value: float) -> float:
        return MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN)

    bottom = BAND * len(groups)
    parts = [part for tick in ticks for part in _tick(across(tick), bottom, f"{tick:g}")]
    for row, (name, points) in enumerate(groups.items()):
        if len(groups) > 1:
            parts.append(element("text", name, x="0", y=str(row * BAND + 13), class_="name"))
        parts += _band(points, row * BAND, color, across)
    drawing = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {bottom + AXIS}",
        class_="plot",
        role="group",
        aria_label=f"{title}: distribution of {len(values):,} values",
    )
    return element("figure", element("figcaption", title), drawing)


def outlying(values: Sequence[float]) -> list[bool]:
    """Tell which values lie out by `robust_z`; none where it cannot be told."""
    z = robust_z(np.array(values, dtype=np.float64), least=LEAST_FOR_BOX)
    out: list[bool] = (np.abs(z) > OUTLYING).tolist()
    return out


def _band(
    points: Sequence[Point], top: int, color: str, across: Callable[[float], float]
) -> Iterator[Markup]:
    values = [point.value for point in points]
    # Steps by the golden section spread the dots evenly, and the same way each time.
    heights = [top + DOTS[0] + (DOTS[1] - DOTS[0]) * (i * _GOLDEN % 1) for i in range(len(points))]
    if len(values) > MOST_DOTS:
        yield _histogram(values, top, color, across)
    else:  # one path for all: thousands of circles would slow the page down
        dots = "".join(f"M{across(v):.1f} {y:.1f}h0" for v, y in zip(values, heights, strict=True))
        yield element("path", d=dots, stroke=color, class_="dots")
    if len(values) >= LEAST_FOR_BOX:
        first, middle, third = quantiles(values, n=4, method="inclusive")
        reach = 1.5 * (third - first)
        low = across(min(v for v in values if v >= first - reach))
        high = across(max(v for v in values if v <= third + reach))
        left, centre, right = (across(v) for v in (first, middle, third))
        upper, lower = top + BOX[0], top + BOX[1]
        line = (upper + lower) / 2
        outline = (
            f"M{low:.1f} {line}H{left:.1f}M{right:.1f} {line}H{high:.1f}"
            f"M{left:.1f} {upper}H{right:.1f}V{lower}H{left:.1f}Z"
        )
        yield element("path", d=outline, class_="box")
        yield element("path", d=f"M{centre:.1f} {upper}V{lower}", class_="middle")
    for point, y, out in zip(points, heights, outlying(values), strict=True):
        if out:
            yield _marked(point, across(point.value), y, color)


def _histogram(
    values: Sequence[float], top: int, color: str, across: Callable[[float], float]
) -> Markup:
    counts, edges = np.histogram(values, bins=BARS)
    bottom, tall = top + DOTS[1] + 3, DOTS[1] - DOTS[0] + 6
    bars = "".join(
        f"M{across(left):.1f} {bottom}V{bottom - tall * count / counts.max():.1f}"
        f"H{across(right):.1f}V{bottom}Z"
        for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True)
        if count
    )
    return element("path", d=bars, fill=color, class_="bars")


def _marked(point: Point, x: float, y: float, color: str) -> Markup:
    title = element("title", f"{point.name}: {point.value:.2f}")
    circle = element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="5", fill=color)
    if not point.address:
        return element("g", title, circle)
    return element("a", title, circle, href=point.address)


def _tick(x: float, bottom: int, text: str) -> tuple[Markup, Markup]:
    return (
        element("path", d=f"M{x:.1f} 0V{bottom}", class_="grid"),
        element("text", text, x=f"{x:.1f}", y=str(bottom + 16), text_anchor="middle"),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Choose round numbers around a range; two at least."""
    spread = (high - low) or abs(high) or 1.0
    magnitude = 10 ** math.floor(math.log10(spread / INTERVALS))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= spread / INTERVALS)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(i * step, 10) for i in range(first, last + 1)]
