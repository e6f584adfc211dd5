"""What a participant's page says about the quality of one result: its checks and all measures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_app.bids.columns import QUALITY
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.measures.flags import CHECKS
from bids_app.regions import REGIONS
from bids_app.reports.page import measure_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bids_app.measures.flags import Check

# What a check looks at, as a statement that holds if all is in order; other checks go by the name
# of their measure.
_STATEMENTS = {
    "low_self_consistency": "Self-consistency, the main measure (mean Dice)",
    "networks_disagree": "Networks agree (Dice)",
    "mirrors_disagree": "Same result on the mirrored image (Dice)",
    "low_confidence": "Network is confident (soft Dice)",
    "low_localizer_confidence": "Brainstem was located with confidence (probability)",
    "fragmented": "Each region is in one piece (share of the largest)",
    "wrong_order": "Midbrain lies above pons, pons above medulla (mm)",
    "regions_disconnected": "Neighbouring regions touch (mm²)",
    "asymmetric": "Left and right are alike (Dice)",
    "low_resolution": "Longest voxel edge (mm)",
}
_REGION = re.compile(f"({'|'.join(REGIONS)})_((?!{'|'.join(REGIONS)}).+)")


@dataclass(frozen=True)
class CheckLine:
    """A check of a result: what it looks at, the worst value, where that is, and the limit."""

    flag: str
    name: str
    worst: str
    where: str
    limit: str


@dataclass(frozen=True)
class MeasureLine:
    """A quality measure: its values (text, and whether beyond the limit), one per column."""

    name: str
    meaning: str
    values: tuple[tuple[str, bool], ...]
    limit: str


def check_lines(
    quality: Mapping[str, float], thresholds: Mapping[str, float]
) -> Iterator[CheckLine]:
    """List the checks whose measures are known.

    Parameters
    ----------
    quality : mapping of str to float
        Quality measures of the result.
    thresholds : mapping of str to float
        Thresholds that differ from those of `bids_app.measures.flags.CHECKS`.
    """
    for check in CHECKS:
        measured = check.measured(quality)
        if measured and check.measure is not None:
            worst = min(measured) if check.comparison == "<" else max(measured)
            yield CheckLine(
                check.name,
                _STATEMENTS.get(check.name, measure_name(check.measure)),
                f"{worst:,.0f}" if worst >= 1000 else f"{worst:.3g}",
                _where(check, quality, worst) if len(set(measured)) > 1 else "",
                check.limit(thresholds),
            )


def measure_lines(
    quality: Mapping[str, float], thresholds: Mapping[str, float]
) -> tuple[list[str], list[MeasureLine], list[MeasureLine]]:
    """List all quality measures, those with a limit first.

    Returns
    -------
    regions : list of str
        Columns of the measures of regions.
    by_region, others : list of MeasureLine
        Measures of regions, a value for each of `regions`; and measures with a single value.
    """
    found: dict[str, dict[str, str]] = {}  # key by measure and region
    for key in sorted(quality, key=lambda key: _check_of(key) is None):
        match = _REGION.fullmatch(key)
        name, measure = (match[1], match[2]) if match else ("", key)
        found.setdefault(measure, {})[name] = key
    regions = [name for name in REGIONS if any(name in keys for keys in found.values())]
    by_region: list[MeasureLine] = []
    others: list[MeasureLine] = []
    for measure, keys in found.items():
        lines, columns = (others, [""]) if "" in keys else (by_region, regions)
        name, key = next(iter(keys.items()))
        check = _check_of(key)
        meaning = QUALITY[key].description if key in QUALITY else ""
        if name:
            meaning = re.sub(rf"\bthe {name}\b", "the region", meaning)
        statement = check and (name or key == check.measure) and _STATEMENTS.get(check.name)
        values = tuple(_value(quality, keys.get(column), thresholds) for column in columns)
        limit = check.limit(thresholds) if check else "none"
        lines.append(MeasureLine(statement or measure_name(measure), meaning, values, limit))
    return regions, by_region, others


def _where(check: Check, quality: Mapping[str, float], worst: float) -> str:
    """Name the region, or the two regions, with the worst value of a check."""
    ending = f"_{check.measure}"
    key = next(key for key, v in quality.items() if v == worst and key.endswith(ending))
    return key.removesuffix(ending).replace("_", " and ")


def _check_of(key: str) -> Check | None:
    """Find the check that looks at a measure, if there is one."""
    return next((check for check in CHECKS if check.measured({key: 0.0})), None)


def _value(
    quality: Mapping[str, float], key: str | None, thresholds: Mapping[str, float]
) -> tuple[str, bool]:
    if key is None:
        return NOT_AVAILABLE, False
    check = _check_of(key)
    text = f"{quality[key]:,.4f}".rstrip("0").rstrip(".")
    return text, bool(check and check.raised({key: quality[key]}, thresholds))
