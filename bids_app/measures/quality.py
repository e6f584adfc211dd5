"""Measures of quality, which need no ground truth.

`docs/quality.md` gives definitions and sources; `bids_app.measures.flags` turns them into flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_app.bids.columns import QUALITY
from bids_app.geometry.midplane import symmetry
from bids_app.measures.flags import self_consistency
from bids_app.measures.volumes import crop
from bids_app.regions import MEDULLA, MIDBRAIN, PONS, WHOLE_NAME, of_brainstem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.io.images import Volume
    from bids_app.measures.shape import Shape
    from bids_app.measures.volumes import RegionMeasure
    from bids_app.regions import Region
    from bids_app.segmentation.types import Segmentation


def measure_quality(
    volume: Volume,
    segmentation: Segmentation,
    regions: Sequence[Region],
    measures: Sequence[RegionMeasure],
    shape: Shape,
) -> dict[str, float]:
    """Measure the quality of a result.

    Parameters
    ----------
    volume : Volume
        The image.
    segmentation : Segmentation
        Its label map and probabilities.
    regions : sequence of Region
        Of the model.
    measures : sequence of RegionMeasure
        One per region, then the whole brainstem.
    shape : Shape
        Of the same label map.

    Returns
    -------
    dict of str to float
        Those measures of `bids_app.bids.columns.QUALITY` that are defined. The measures of a region
        start with its name, also for regions that have no such column.
    """
    names = [region.name for region in regions]
    found: dict[str, float | None] = {
        "etiv_mm3": segmentation.intracranial_mm3,
        "localizer_confidence": segmentation.confidence,
    }
    found |= _named(names, "agreement", segmentation.agreement)
    found |= _named(names, "mirror_dice", segmentation.mirror_dice)
    found |= _named([*names, WHOLE_NAME], "soft_dice", _soft_dice(segmentation, regions))
    # Labels outside the brainstem may well have two components, or be on one side only.
    parts = of_brainstem(regions)
    checked = [*(part.name for part in parts), WHOLE_NAME]
    shares = {m.name: m.largest_component_fraction for m in measures if m.voxels}
    found |= {f"{name}_largest_component_fraction": shares.get(name) for name in checked}
    centres = {m.name: m.centroid for m in measures}
    for pair, border in zip(((MIDBRAIN, PONS), (PONS, MEDULLA)), shape.borders, strict=True):
        upper, lower = (centres.get(name) for name in pair)
        if upper is not None and lower is not None:
            found["_".join((*pair, "height_mm"))] = upper[2] - lower[2]
            found["_".join((*pair, "contact_mm2"))] = border.area_mm2
    labels, affine = crop(segmentation.labels, volume.affine, regions)
    whole = np.isin(labels, [part.index for part in parts])
    if shape.plane is not None:
        masks = [*(labels == part.index for part in parts), whole]
        for name, mask in zip(checked, masks, strict=True):
            found[f"{name}_symmetry"] = symmetry(mask, affine, shape.plane)
    found["max_voxel_edge_mm"] = max(volume.voxel_size)
    quality = {
        key: round(value, QUALITY[key].digits if key in QUALITY else 4)
        for key, value in found.items()
        if value is not None and np.isfinite(value)
    }
    if empty := not measures[-1].voxels:  # without a brainstem, the image may not show a head
        quality.pop("etiv_mm3", None)
    main = self_consistency(quality, empty=empty)
    return quality if main is None else quality | {"self_consistency": round(main, 4)}


def _named(
    names: Sequence[str], measure: str, values: Sequence[float] | None
) -> dict[str, float | None]:
    return {f"{n}_{measure}": v for n, v in zip(names, values or (), strict=False)}


def _soft_dice(segmentation: Segmentation, regions: Sequence[Region]) -> list[float]:
    """Dice between each region's probabilities and its label, then for the whole brainstem.

    The soft Dice confidence of Borges et al. (2024, arXiv 2402.10665); NaN for an absent region.
    """
    labels = segmentation.labels[segmentation.box]
    both, total = np.zeros(len(regions)), np.zeros(len(regions))
    for k, (region, probability) in enumerate(
        zip(regions, segmentation.probabilities, strict=True)
    ):
        mask = labels == region.index
        if size := np.count_nonzero(mask):
            both[k] = probability[mask].sum(dtype=np.float64)
            total[k] = probability.sum(dtype=np.float64) + size
    parts = of_brainstem(regions)
    whole = np.isin(labels, [region.index for region in parts])
    if not whole.any():
        return [float("nan")] * (len(regions) + 1)
    shares = np.where(total > 0, 2 * both / np.maximum(total, 1e-9), np.nan).tolist()
    sum_ = segmentation.probabilities[[regions.index(part) for part in parts]].sum(axis=0)
    of_whole = 2 * sum_[whole].sum(dtype=np.float64) / (sum_.sum(dtype=np.float64) + whole.sum())
    return [*shares, float(of_whole)]
