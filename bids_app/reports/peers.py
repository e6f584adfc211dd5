"""A result among all results of the same model in its dataset: how large its volumes are there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from statistics import quantiles
from typing import TYPE_CHECKING

import numpy as np

from bids_app.bids.results import read_results
from bids_app.group.zscores import robust_z
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.regions import REGIONS, WHOLE_NAME
from bids_app.reports.from_files import volumes
from bids_app.reports.markup import element
from bids_app.reports.plots import LEAST_FOR_BOX, OUTLYING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from bids_app.bids.results import Result
    from bids_app.reports.markup import Markup

_WIDTH, _ROW, _LEFT, _RIGHT = 640, 46, 96, 500
_MOST_DOTS = 300  # of a drawing; of more, evenly spread ranks are drawn

Key = tuple[str, str, str]  # model, version, region


@dataclass(frozen=True)
class Spread:
    """Volumes of one region by one model in a dataset, in mm3, sorted."""

    values: tuple[float, ...]

    @cached_property
    def quartiles(self) -> tuple[float, float, float]:
        """Quartiles of at least two values."""
        first, middle, third = quantiles(self.values, n=4, method="inclusive")
        return first, middle, third

    def rank(self, value: float) -> str:
        """Place of a value among all, the smallest first: ``5 of 27``."""
        low, high = bisect_left(self.values, value), bisect_right(self.values, value)
        return f"{(low + high + 1) // 2} of {len(self.values):,}"

    def robust_z(self, value: float) -> float | None:
        """Distance from the median in robust standard deviations; None where it says nothing."""
        trusted = np.array([True] * len(self.values) + [False])
        z = robust_z(np.array([*self.values, value]), trusted, LEAST_FOR_BOX)[-1]
        return None if np.isnan(z) else float(z)


@dataclass(frozen=True)
class Peers:
    """Volumes of a dataset by model and region.

    Attributes
    ----------
    spreads : dict
        By name and version of the model and name of the region.
    """

    spreads: Mapping[Key, Spread] = field(default_factory=dict)

    def of(self, model: str, version: str, region: str) -> Spread | None:
        """Give the volumes that a result is compared with; None where they are too few."""
        spread = self.spreads.get((model, version, region))
        return spread if spread and len(spread.values) >= LEAST_FOR_BOX else None


def read_peers(
    output_dir: Path, rows: Iterable[Mapping[str, str]] = (), participants: Iterable[str] = ()
) -> Peers:
    """Gather the volumes that a dataset's results are compared with.

    They are those of the group table, where the group level was run, with what some participants'
    own tables say now in its place. Reading every table of a large dataset for each of many jobs
    would keep a shared disk busy for nothing.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    rows : iterable of dict
        Of the group table.
    participants : iterable of str
        Those whose own tables are read, such as the run's.
    """
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        volumes = {r: row.get(f"{r}_mm3", NOT_AVAILABLE) for r in REGIONS}
        key = (row.get("model", ""), row.get("model_version", ""), row.get("source", ""))
        found[key] = {r: float(v) for r, v in volumes.items() if v != NOT_AVAILABLE}
    for participant in participants:
        for result in read_results(output_dir, participant):
            found[*result.model, result.source] = dict(_volumes(result))
    values: dict[Key, list[float]] = {}
    for (model, version, _), volumes_ in found.items():
        if volumes_.get(WHOLE_NAME) == 0:  # no brainstem was found, so none was measured
            continue
        for region, value in volumes_.items():
            values.setdefault((model, version, region), []).append(value)
    return Peers({key: Spread(tuple(sorted(numbers))) for key, numbers in values.items()})


def _volumes(result: Result) -> Iterator[tuple[str, float]]:
    try:
        for row in volumes(result):
            yield row["name"], float(row["volume_mm3"])
    except (OSError, ValueError, KeyError):
        return  # a run is making it again


def strips(
    volumes: Mapping[str, tuple[float, str]], model: tuple[str, str], peers: Peers
) -> Markup | None:
    """Draw where a result's volumes lie among those of its dataset, a strip a region.

    Each strip has its own scale, from the smallest to the largest volume.

    Parameters
    ----------
    volumes : mapping of str to (float, str)
        By region, volume in mm3 and colour.
    model : tuple of str
        Name and version.
    peers : Peers
        Of the dataset.
    """
    rows: list[Markup] = []
    told: list[str] = []
    for region, (value, color) in volumes.items():
        if (spread := peers.of(*model, region)) is None:
            continue
        rows += _strip(region, value, color, spread, _ROW * len(told))
        told.append(f"{region} {value / 1000:.2f} ml, {spread.rank(value)} from the smallest")
    if not told:
        return None
    drawing = element(
        "svg",
        *rows,
        viewBox=f"0 0 {_WIDTH} {_ROW * len(told)}",
        class_="plot strips",
        role="img",
        aria_label=f"Volumes among those of the dataset: {'; '.join(told)}",
    )
    caption = element(
        "figcaption",
        "This result (large dot) among all of this dataset by the same model. Boxes hold the "
        "middle half, with a line at the median; numbers are the smallest and the largest volume "
        "in ml.",
    )
    return element("figure", drawing, caption)


def _strip(region: str, value: float, color: str, spread: Spread, top: int) -> Iterator[Markup]:
    low, high = min(spread.values[0], value), max(spread.values[-1], value)
    room = (high - low) or 1.0

    def across(volume: float) -> float:
        return _LEFT + 50 + (volume - low) / room * (_RIGHT - _LEFT - 50)

    middle = top + _ROW / 2
    step = max(1, len(spread.values) // _MOST_DOTS)
    dots = "".join(f"M{across(v):.1f} {middle}h0" for v in spread.values[::step])
    first, centre, third = (across(v) for v in spread.quartiles)
    upper, lower = middle - 9, middle + 9
    box = f"M{first:.1f} {upper}H{third:.1f}V{lower}H{first:.1f}Z"
    yield element("text", region, x="0", y=f"{middle + 4}", class_="region")
    for volume, x, place in ((low, _LEFT + 40, "end"), (high, _RIGHT + 12, "start")):
        text = f"{volume / 1000:.2f}"
        yield element("text", text, x=str(x), y=f"{middle + 4}", text_anchor=place)
    yield element("path", d=f"M{across(low):.1f} {middle}H{across(high):.1f}", class_="grid")
    yield element("path", d=box, class_="box")
    yield element("path", d=f"M{centre:.1f} {upper}V{lower}", class_="middle")
    yield element("path", d=dots, class_="dots peers")
    yield element("circle", cx=f"{across(value):.1f}", cy=f"{middle}", r="7", fill=color)


def outlying(
    volumes: Mapping[str, float],
    model: tuple[str, str],
    peers: Peers,
    thresholds: Mapping[str, float] | None = None,
) -> list[str]:
    """Tell in words which volumes lie out in their dataset.

    Parameters
    ----------
    volumes : mapping of str to float
        By region, in mm3.
    model : tuple of str
        Name and version.
    peers : Peers
        Of the dataset.
    thresholds : mapping of str to float, optional
        That of the flag ``outlier`` stands in the place of `OUTLYING`.
    """
    limit = (thresholds or {}).get("outlier", OUTLYING)
    said = []
    for region, value in volumes.items():
        spread = peers.of(*model, region)
        z = spread.robust_z(value) if spread else None
        if z is not None and abs(z) > limit:
            size = "larger" if z > 0 else "smaller"
            said.append(
                f"{region}: much {size} than in the rest of the dataset, {abs(z):.1f} robust "
                "standard deviations from the median"
            )
    return said
