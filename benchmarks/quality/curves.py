"""Measures of quality as tests for bad results: areas under ROC curves, and thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.app import PARTS, self_consistency
from benchmarks.quality.runs import UNDISTURBED, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

BAD = 0.9  # a result is bad if its Dice with the undisturbed result is lower
MAIN = "self_consistency"
PREVALENCES = (0.01, 0.05, 0.2)
RESAMPLED = 2000


def accepted(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of worsened images that the app did not refuse."""
    return [r for r in runs if r.kind != UNDISTURBED and not r.refused]


def overlap(found: Run) -> float:
    """Return the Dice with the undisturbed result, mean over regions; a missing region counts 0."""
    return float(np.nanmean([found.dice[name] for name in PARTS]))


def bad(runs: Sequence[Run]) -> NDArray[np.bool_]:
    """Return which results are bad, shape (runs,)."""
    return np.array([overlap(r) < BAD for r in runs])


def lowest(ending: str) -> Callable[[Run], float]:
    """Return a function for the lowest value over regions; 0 if a region is missing."""
    return lambda found: min(found.quality.get(f"{name}_{ending}", 0.0) for name in PARTS)


def average(ending: str) -> Callable[[Run], float]:
    """Return a function for the mean over regions; a missing region counts 0."""
    return lambda found: sum(found.quality.get(f"{name}_{ending}", 0.0) for name in PARTS) / 3


def both(first: str, second: str) -> Callable[[Run], float]:
    """Return a function for the mean of two measures over regions."""
    return lambda found: (average(first)(found) + average(second)(found)) / 2


def in_view(found: Run) -> float:
    """Return the share of the brainstem's surroundings within the field of view."""
    return found.quality.get("view_fraction", 1.0)


MEASURES: dict[str, Callable[[Run], float]] = {
    MAIN: lambda found: self_consistency(found.quality) or 0.0,
    "self_consistency and mean soft_dice": lambda found: (
        ((self_consistency(found.quality) or 0.0) + average("soft_dice")(found)) / 2
    ),
    "mean mirror_dice": average("mirror_dice"),
    "lowest mirror_dice": lowest("mirror_dice"),
    "mean pass_dice": average("pass_dice"),
    "lowest pass_dice": lowest("pass_dice"),
    "mean of mirror_dice and pass_dice": both("mirror_dice", "pass_dice"),
    "mean of pass_dice and soft_dice": both("pass_dice", "soft_dice"),
    "view_fraction": in_view,
    "mean mirror_dice x view_fraction": lambda r: average("mirror_dice")(r) * in_view(r),
    "mean pass_dice x view_fraction": lambda r: average("pass_dice")(r) * in_view(r),
    "mean of mirror_dice and pass_dice x view_fraction": lambda r: (
        both("mirror_dice", "pass_dice")(r) * in_view(r)
    ),
    "mean soft_dice x view_fraction": lambda r: average("soft_dice")(r) * in_view(r),
    "mean soft_dice": average("soft_dice"),
    "lowest soft_dice": lowest("soft_dice"),
    "lowest symmetry": lowest("symmetry"),
    "lowest largest_component_fraction": lowest("largest_component_fraction"),
    "localizer_confidence": lambda found: found.quality.get("localizer_confidence", 0.0),
}


def area(scores: NDArray[np.float64], is_bad: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of a score that is low for bad results."""
    low, high = scores[is_bad], scores[~is_bad]
    if not (len(low) and len(high)):
        return float("nan")
    less = (low[:, None] < high).sum() + 0.5 * (low[:, None] == high).sum()
    return float(less) / (len(low) * len(high))


def interval(runs: Sequence[Run], measure: Callable[[Run], float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the area; heads are drawn with replacement."""
    rng = np.random.default_rng(0)
    heads = sorted({r.head for r in runs})
    scores, is_bad = np.array([measure(r) for r in runs]), bad(runs)
    of_head = [np.array([i for i, r in enumerate(runs) if r.head == head]) for head in heads]
    areas = []
    for _ in range(RESAMPLED):
        drawn = np.concatenate([of_head[i] for i in rng.integers(len(heads), size=len(heads))])
        areas.append(area(scores[drawn], is_bad[drawn]))
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return float(low), float(high)


def best_threshold(scores: NDArray[np.float64], is_bad: NDArray[np.bool_]) -> float:
    """Return the threshold with the largest sum of sensitivity and specificity.

    It is halfway between two scores, rounded to thousandths.
    """
    values = np.unique(scores)
    middles = (values[1:] + values[:-1]) / 2
    gains = [(scores[is_bad] < t).mean() - (scores[~is_bad] < t).mean() for t in middles]
    return round(float(middles[int(np.argmax(gains))]), 3)


def warned_by(
    name: str, tuning: Sequence[Run], tested: Sequence[Run]
) -> tuple[float, NDArray[np.bool_]]:
    """Set a measure's threshold on some runs; return it, and which other runs are below it."""
    measure = MEASURES[name]
    limit = best_threshold(np.array([measure(r) for r in tuning]), bad(tuning))
    return limit, np.array([measure(r) for r in tested]) < limit


def rates(warned: NDArray[np.bool_], is_bad: NDArray[np.bool_]) -> str:
    """Return sensitivity, specificity, and the predictive value at each prevalence, as cells."""
    found, false = float(warned[is_bad].mean()), float(warned[~is_bad].mean())
    values = [p * found / (p * found + (1 - p) * false or np.nan) for p in PREVALENCES]
    return "\t".join([f"{found:.2f}", f"{1 - false:.2f}", *(f"{v:.0%}" for v in values)])
