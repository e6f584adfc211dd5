"""Flags: reasons to inspect a result, from measures that need no ground truth.

A flag warns; it never removes a result. `CHECKS` is the only table of flags and thresholds;
`bids_app.measures.quality` computes the measures, and `docs/quality.md` gives their definitions and
sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bids_app.errors import UsageError
from bids_app.regions import PARTS, of_brainstem, region

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bids_app.measures.volumes import RegionMeasure
    from bids_app.segmentation.types import Segmentation


@dataclass(frozen=True)
class Check:
    """A flag and what raises it.

    Attributes
    ----------
    name : str
        As tables and reports show it.
    description : str
        Meaning, with ``{}`` in the place of the threshold.
    measure : str or None
        Name of a measure of quality, or the end of the names of several, of which the worst
        counts: ``soft_dice`` for ``midbrain_soft_dice`` and so on. None for a fact without a
        threshold.
    comparison : {"<", ">"}
        The flag is raised if the measure is below or above the threshold.
    threshold : float
    most : float
        The largest possible threshold: 1 for fractions and Dice coefficients.
    """

    name: str
    description: str
    measure: str | None = None
    comparison: str = "<"
    threshold: float = 0.0
    most: float = math.inf

    def explain(self, thresholds: Mapping[str, float]) -> str:
        """Describe the flag with the threshold in use."""
        return self.description.format(f"{self.in_use(thresholds):g}")

    def in_use(self, thresholds: Mapping[str, float]) -> float:
        """Give the threshold in use."""
        return thresholds.get(self.name, self.threshold)

    def limit(self, thresholds: Mapping[str, float]) -> str:
        """Describe values that do not raise the flag: ``at least 0.85``."""
        bound = "at least" if self.comparison == "<" else "at most"
        return f"{bound} {self.in_use(thresholds):g}"

    def measured(self, quality: Mapping[str, float]) -> list[float]:
        """Give the measures that the flag depends on; none for a fact."""
        if self.measure is None:
            return []
        return [quality[name] for name in _names(self.measure, tuple(quality))]

    def raised(self, quality: Mapping[str, float], thresholds: Mapping[str, float]) -> bool:
        """Check whether a measure is beyond the threshold; a missing one never is."""
        if not (values := self.measured(quality)):
            return False
        limit = self.in_use(thresholds)
        return min(values) < limit if self.comparison == "<" else max(values) > limit


@lru_cache(maxsize=1024)
def _names(measure: str, quality: tuple[str, ...]) -> tuple[str, ...]:
    """Choose those names of measures that are one measure, or end with it."""
    return tuple(name for name in quality if name == measure or name.endswith("_" + measure))


CHECKS = (
    Check("failed", "the image could not be processed; see logs/*/failures.tsv"),
    Check("no_brainstem", "no brainstem was found; the map is empty"),
    Check("region_missing", "at least one region is missing from the map"),
    Check(
        "out_of_view",
        "the brainstem reaches the edge of the field of view; the part outside is not counted",
    ),
    Check(
        "no_etiv",
        "the intracranial volume cannot be estimated, for example on a skull-stripped image",
    ),
    Check(
        "low_self_consistency",
        "the networks, the passes on mirror images or the passes on both sets of axes agree with a "
        "mean Dice below {}, or part of the brainstem's surroundings is out of view",
        "self_consistency", "<", 0.935, 1.0,
    ),
    Check(
        "networks_disagree",
        "the model's networks outline a region differently, with a Dice below {}",
        "agreement", "<", 0.85, 1.0,
    ),
    Check(
        "mirrors_disagree",
        "the network outlines a region differently on mirror images, with a Dice below {}",
        "mirror_dice", "<", 0.85, 1.0,
    ),
    Check(
        "low_confidence",
        "low confidence of the network in a region: its soft Dice is below {}",
        "soft_dice", "<", 0.85, 1.0,
    ),
    Check(
        "low_localizer_confidence",
        "the mean probability of the located brainstem is below {}",
        "localizer_confidence", "<", 0.8, 1.0,
    ),
    Check(
        "fragmented",
        "the largest connected component of a region has less than {} of its voxels",
        "largest_component_fraction", "<", 0.95, 1.0,
    ),
    Check(
        "wrong_order",
        "midbrain, pons and medulla are not above each other: a centroid is less than {} mm above "
        "the next one",
        "height_mm", "<", 5.0,
    ),
    Check(
        "regions_disconnected",
        "midbrain and pons, or pons and medulla, share less than {} mm2 of their surfaces",
        "contact_mm2", "<", 100.0,
    ),
    Check(
        "asymmetric",
        "a region and its mirror image about the midsagittal plane overlap with a Dice below {}",
        "symmetry", "<", 0.8, 1.0,
    ),
    Check(
        "low_resolution",
        "a voxel edge is longer than {} mm",
        "max_voxel_edge_mm", ">", 2.1,
    ),
    Check(
        "outlier",
        "a volume is more than {} robust standard deviations from the median of the dataset "
        "(group level)",
        "robust_z", ">", 3.5,
    ),
    Check(
        "outlier_in_batch",
        "a volume is more than {} robust standard deviations from the median of the images of its "
        "site and scanner (group level)",
        "batch_z", ">", 3.5,
    ),
)  # fmt: skip
FLAGS = {check.name: check.explain({}) for check in CHECKS}


def self_consistency(quality: Mapping[str, float], *, empty: bool = False) -> float | None:
    """Compute the main measure of quality: how well a model agrees with itself on an image.

    Parameters
    ----------
    quality : mapping of str to float
        Measures of an image: ``<region>_agreement`` of an ensemble or ``<region>_mirror_dice``,
        ``<region>_pass_dice`` and ``view_fraction``.
    empty : bool
        Whether no brainstem was found.

    Returns
    -------
    float or None
        Mean over midbrain, pons and medulla of the agreement or the Dice on mirror images, averaged
        with that of the pass Dice and multiplied by the fraction in view where there are such; 0 to
        1. A region without a measure counts as 0. 0 for an empty map; None for a single pass.
    """
    if empty:
        return 0.0

    def mean(ending: str) -> float | None:
        values = [quality.get(f"{region}_{ending}") for region in PARTS]
        if all(value is None for value in values):
            return None
        return sum(value or 0.0 for value in values) / len(values)

    agreement = mean("agreement")
    if agreement is None:
        agreement = mean("mirror_dice")
    means = [value for value in (agreement, mean("pass_dice")) if value is not None]
    return quality.get("view_fraction", 1.0) * sum(means) / len(means) if means else None


def read_thresholds(texts: Iterable[str]) -> dict[str, float]:
    """Read thresholds from the command line, ``NAME=VALUE`` each; the last one of a name counts.

    Raises
    ------
    UsageError
        No such flag has a threshold, or its measure cannot have the value.
    """
    thresholds = {}
    known = {check.name: check for check in CHECKS if check.measure is not None}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals:
            raise UsageError(f"--flag-threshold {text}: give NAME=VALUE, such as low_resolution=3.")
        if name not in known:
            raise UsageError(
                f"--flag-threshold {text}: there is no flag {name!r} with a threshold. Flags with "
                f"one: {', '.join(known)}."
            )
        try:
            value = float(number)
        except ValueError:
            raise UsageError(f"--flag-threshold {text}: {number!r} is not a number.") from None
        most = known[name].most
        if not (0 <= value <= most and math.isfinite(value)):
            fitting = (
                "a number of 0 or more" if math.isinf(most) else f"a number from 0 to {most:g}"
            )
            raise UsageError(f"--flag-threshold {text}: the threshold of {name} must be {fitting}.")
        thresholds[name] = value
    return thresholds


def find_flags(
    segmentation: Segmentation,
    measures: Sequence[RegionMeasure],
    quality: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """Find the flags of an image.

    Parameters
    ----------
    segmentation : Segmentation
        Label map of the image.
    measures : sequence of RegionMeasure
        One per region, then the whole brainstem.
    quality : mapping of str to float, optional
        Measures of quality; without them only the facts are checked.
    thresholds : mapping of str to float, optional
        By name of the flag, in place of those of `CHECKS`.

    Returns
    -------
    tuple of str
        Keys of `FLAGS`, in its order.
    """
    *regions, whole = measures
    parts = of_brainstem([region(m.index, m.name) for m in regions if m.index is not None])
    values = [part.index for part in parts]
    faces = (segmentation.labels.take(end, axis) for axis in range(3) for end in (0, -1))
    facts = set()
    if whole.voxels == 0:
        facts.add("no_brainstem")
    elif any(measure.voxels == 0 for measure in regions):
        facts.add("region_missing")
    if segmentation.out_of_view or any(np.isin(face, values).any() for face in faces):
        facts.add("out_of_view")
    if segmentation.confidence is not None and segmentation.intracranial_mm3 is None:
        facts.add("no_etiv")
    return reapply_thresholds(facts, quality or {}, thresholds or {})


def reapply_thresholds(
    earlier: Iterable[str], quality: Mapping[str, float], thresholds: Mapping[str, float]
) -> tuple[str, ...]:
    """Compare an image's measures with thresholds; keep flags that depend on no measure.

    Parameters
    ----------
    earlier : iterable of str
        Flags on record.
    quality : mapping of str to float
        Its measures of quality.
    thresholds : mapping of str to float
        By name of the flag, in place of those of `CHECKS`.

    Returns
    -------
    tuple of str
        Keys of `FLAGS`, in its order.
    """
    kept = set(earlier)
    return tuple(
        check.name
        for check in CHECKS
        if check.raised(quality, thresholds) or (check.name in kept and not check.measured(quality))
    )
