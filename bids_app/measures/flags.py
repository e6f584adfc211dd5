"""Flags: what to look at before trusting a result, told by measures that need no ground truth.

A flag warns; it never removes a result. `CHECKS` is the one table of all flags and thresholds;
`bids_app.measures.quality` takes the measures, and `docs/quality.md` tells their definitions and sources.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
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
        What a reader should know; ``{}`` stands for the threshold.
    measure : str or None
        Name of a measure of quality, or the end of the names of several: ``soft_dice`` for
        ``midbrain_soft_dice`` and so on, of which the worst counts. None for a fact that no
        threshold decides.
    comparison : {"<", ">"}
        The flag is raised where the measure is below or above the threshold.
    threshold : float
    most : float
        The largest value that a threshold may have: 1 for shares and Dice coefficients.
    """

    name: str
    description: str
    measure: str | None = None
    comparison: str = "<"
    threshold: float = 0.0
    most: float = math.inf

    def explain(self, thresholds: Mapping[str, float]) -> str:
        """Describe the flag with the threshold in use."""
        return self.description.format(f"{thresholds.get(self.name, self.threshold):g}")

    def limit(self, thresholds: Mapping[str, float]) -> str:
        """Tell the threshold in use by its good side: ``at least 0.85``."""
        bound = "at least" if self.comparison == "<" else "at most"
        return f"{bound} {thresholds.get(self.name, self.threshold):g}"

    def measured(self, quality: Mapping[str, float]) -> list[float]:
        """Give the measures that the flag hangs on; none for a fact."""
        return [
            value
            for key, value in quality.items()
            if self.measure and (key == self.measure or key.endswith("_" + self.measure))
        ]

    def raised(self, quality: Mapping[str, float], thresholds: Mapping[str, float]) -> bool:
        """Tell whether a measure is beyond the threshold; missing measures never are."""
        compare = {"<": operator.lt, ">": operator.gt}[self.comparison]
        limit = thresholds.get(self.name, self.threshold)
        return any(compare(value, limit) for value in self.measured(quality))


CHECKS = (
    Check("failed", "the image could not be processed; logs/*/failures.tsv tells why"),
    Check("no_brainstem", "no brainstem was found; the map is empty"),
    Check("region_missing", "at least one region is absent from the map"),
    Check(
        "out_of_view",
        "the brainstem reaches the edge of the field of view; the rest is not counted",
    ),
    Check("no_etiv", "the intracranial volume cannot be told, as on a skull-stripped image"),
    Check(
        "low_self_consistency",
        "the model agrees with itself, over its networks or mirrored images, with a mean Dice of "
        "the regions below {}",
        "self_consistency", "<", 0.96, 1.0,
    ),
    Check(
        "networks_disagree",
        "the model's networks outline a region differently, with a Dice below {}",
        "agreement", "<", 0.85, 1.0,
    ),
    Check(
        "mirrors_disagree",
        "the network outlines a region differently on the mirrored image, with a Dice below {}",
        "mirror_dice", "<", 0.85, 1.0,
    ),
    Check(
        "low_confidence",
        "the network is unsure of a region: its soft Dice confidence is below {}",
        "soft_dice", "<", 0.85, 1.0,
    ),
    Check(
        "low_localizer_confidence",
        "the brainstem was located with a mean probability below {}",
        "localizer_confidence", "<", 0.8, 1.0,
    ),
    Check(
        "fragmented",
        "a region's largest cluster holds less than {} of its voxels",
        "largest_component_fraction", "<", 0.95, 1.0,
    ),
    Check(
        "wrong_order",
        "midbrain over pons over medulla does not hold: a centre is less than {} mm above the next",
        "height_mm", "<", 5.0,
    ),
    Check(
        "regions_disconnected",
        "midbrain and pons, or pons and medulla, share less than {} mm2 of their surfaces",
        "contact_mm2", "<", 100.0,
    ),
    Check(
        "asymmetric",
        "a region overlaps its mirror image about the midsagittal plane with a Dice below {}",
        "symmetry", "<", 0.8, 1.0,
    ),
    Check("low_resolution", "an edge of the voxels is longer than {} mm", "max_voxel_edge_mm", ">", 2.1),
    Check(
        "outlier",
        "a volume lies more than {} robust standard deviations out in the dataset (group level)",
        "robust_z", ">", 3.5,
    ),
    Check(
        "outlier_in_batch",
        "a volume lies more than {} robust standard deviations out among the images of its site "
        "and scanner (group level)",
        "batch_z", ">", 3.5,
    ),
)  # fmt: skip
FLAGS = {check.name: check.explain({}) for check in CHECKS}


def self_consistency(quality: Mapping[str, float], *, empty: bool = False) -> float | None:
    """Give the main measure of quality: how well a model agrees with itself on an image.

    Parameters
    ----------
    quality : mapping of str to float
        Measures of an image: ``<region>_agreement`` of an ensemble or ``<region>_mirror_dice``.
    empty : bool
        Whether no brainstem was found.

    Returns
    -------
    float or None
        Mean over midbrain, pons and medulla, 0 to 1, where a region without the measure counts 0;
        0 of an empty map, else None of a single pass.
    """
    if empty:
        return 0.0
    for ending in ("agreement", "mirror_dice"):
        values = [quality.get(f"{region}_{ending}") for region in PARTS]
        if any(value is not None for value in values):
            return sum(value or 0.0 for value in values) / len(values)
    return None


def read_thresholds(texts: Iterable[str]) -> dict[str, float]:
    """Read thresholds as the command line has them, ``NAME=VALUE`` each; the last of a name counts.

    Raises
    ------
    UsageError
        No such flag has a threshold, or the value is none that its measure can have.
    """
    thresholds = {}
    known = {check.name: check for check in CHECKS if check.measure is not None}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals:
            raise UsageError(f"--flag-threshold {text}: give NAME=VALUE, such as low_resolution=3.")
        if name not in known:
            raise UsageError(
                f"--flag-threshold {text}: no flag {name!r} has a threshold. "
                f"Those with one: {', '.join(known)}."
            )
        try:
            value = float(number)
        except ValueError:
            raise UsageError(f"--flag-threshold {text}: {number!r} is not a number.") from None
        most = known[name].most
        if not (0 <= value <= most and math.isfinite(value)):
            fitting = "a number of 0 or more" if math.isinf(most) else f"from 0 to {most:g}"
            raise UsageError(f"--flag-threshold {text}: the threshold of {name} is {fitting}.")
        thresholds[name] = value
    return thresholds


def flags(
    segmentation: Segmentation,
    measures: Sequence[RegionMeasure],
    quality: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """Name what the user should look at before trusting an image's volumes.

    Parameters
    ----------
    segmentation : Segmentation
        Label map of the image.
    measures : sequence of RegionMeasure
        One a region, then the whole brainstem.
    quality : mapping of str to float, optional
        Measures of quality; without them the facts alone are told.
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
    return flags_again(facts, quality or {}, thresholds or {})


def flags_again(
    earlier: Iterable[str], quality: Mapping[str, float], thresholds: Mapping[str, float]
) -> tuple[str, ...]:
    """Compare an image's measures with thresholds anew; keep flags that hang on no measure.

    Parameters
    ----------
    earlier : iterable of str
        Flags of the image's record.
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
