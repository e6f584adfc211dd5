"""Measures of quality, which need no ground truth.

`docs/quality.md` gives definitions and sources; `bids_app.measures.flags` turns them into flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_app.bids.columns import QUALITY
from bids_app.geometry.boxes import bounding_box
from bids_app.geometry.frame import STEP_MM
from bids_app.measures.flags import self_consistency
from bids_app.regions import MEDULLA, MIDBRAIN, PONS, WHOLE_NAME, of_brainstem
from bids_app.segmentation.labels import most_probable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_app.io.images import Volume
    from bids_app.measures.volumes import RegionMeasure
    from bids_app.regions import Region
    from bids_app.segmentation.types import Segmentation

SHELL_MM = 3  # thickness of what must be in view around the brainstem


def measure_quality(
    volume: Volume,
    segmentation: Segmentation,
    regions: Sequence[Region],
    measures: Sequence[RegionMeasure],
    maps: NDArray[np.float32] | None,
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
    maps : ndarray of float32, shape (K, EDGE, EDGE, EDGE), or None
        Probabilities of the K regions in the canonical frame; None without a brainstem.

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
    found |= _named(names, "pass_dice", segmentation.pass_dice)
    found |= _named([*names, WHOLE_NAME], "soft_dice", _soft_dice(segmentation, regions))
    # Labels outside the brainstem may well have two components, or be on one side only.
    parts = of_brainstem(regions)
    checked = [*(part.name for part in parts), WHOLE_NAME]
    shares = {m.name: m.largest_component_fraction for m in measures if m.voxels}
    found |= {f"{name}_largest_component_fraction": shares.get(name) for name in checked}
    centres = {m.name: m.centroid for m in measures}
    for pair in ((MIDBRAIN, PONS), (PONS, MEDULLA)):
        upper, lower = (centres.get(name) for name in pair)
        if upper is not None and lower is not None:
            found["_".join((*pair, "height_mm"))] = upper[2] - lower[2]
    if maps is not None:
        found |= _in_frame(maps, names, [part.name for part in parts])
    if maps is not None and segmentation.frame_pass is not None:
        brainstem = maps[[names.index(part.name) for part in parts]].sum(axis=0) > 0.5
        found["view_fraction"] = _in_view(brainstem, segmentation.frame_pass.inside)
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


def _in_frame(
    maps: NDArray[np.float32], names: Sequence[str], parts: Sequence[str]
) -> dict[str, float | None]:
    """Contact and symmetry of regions, whose midsagittal plane halves the frame."""
    best = most_probable(maps)
    masks = {name: best == k for k, name in enumerate(names, start=1)}
    found: dict[str, float | None] = {}
    for pair in ((MIDBRAIN, PONS), (PONS, MEDULLA)):
        upper, lower = (masks.get(name) for name in pair)
        if upper is not None and lower is not None and upper.any() and lower.any():
            found["_".join((*pair, "contact_mm2"))] = _shared_faces(upper, lower) * STEP_MM**2
    checked = {name: masks[name] for name in parts}
    checked[WHOLE_NAME] = np.isin(best, [names.index(name) + 1 for name in parts])
    for name, mask in checked.items():
        if size := np.count_nonzero(mask):
            found[f"{name}_symmetry"] = float(np.count_nonzero(mask & mask[::-1]) / size)
    return found


def _in_view(brainstem: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float | None:
    """Share of a shell of `SHELL_MM` around the brainstem within the field of view."""
    box = tuple(
        slice(max(part.start - SHELL_MM, 0), part.stop + SHELL_MM)
        for part in bounding_box(brainstem)
    )
    away = ndimage.distance_transform_edt(~brainstem[box])
    shell = (away > 0) & (away * STEP_MM <= SHELL_MM)
    return float(inside[box][shell].mean()) if shell.any() else None


def _shared_faces(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> int:
    """Count the voxel faces between two masks of one grid."""
    faces = 0
    for axis in range(3):
        before, after = (
            tuple(part if k == axis else slice(None) for k in range(3))
            for part in (slice(None, -1), slice(1, None))
        )
        faces += int(np.count_nonzero(first[before] & second[after]))
        faces += int(np.count_nonzero(first[after] & second[before]))
    return faces


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
