"""Measures of trust and the flags that follow from them.

A flag warns; it never removes a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.measures import RegionMeasure
    from bids_app.segment import Segmentation

FLAGS = {
    "failed": "the image could not be processed; logs/*/failures.tsv tells why",
    "no_brainstem": "no brainstem was found; the map is empty",
    "region_missing": "at least one region is absent from the map",
    "out_of_view": "the brainstem reaches the edge of the field of view; the rest is not counted",
    "scattered": "a region's largest cluster holds less than 95 % of its voxels",
    "no_etiv": "the intracranial volume cannot be told, as on a skull-stripped image",
}
MIN_LARGEST_SHARE = 0.95


def flags(segmentation: Segmentation, measures: Sequence[RegionMeasure]) -> tuple[str, ...]:
    """Name what the user should look at before trusting an image's volumes.

    Parameters
    ----------
    segmentation : Segmentation
        Label map of the image.
    measures : sequence of RegionMeasure
        One a region, then the whole brainstem.

    Returns
    -------
    tuple of str
        Keys of `FLAGS`, in its order.
    """
    *regions, whole = measures
    faces = (segmentation.labels.take(end, axis) for axis in range(3) for end in (0, -1))
    found = set()
    if whole.voxels == 0:
        found.add("no_brainstem")
    elif any(region.voxels == 0 for region in regions):
        found.add("region_missing")
    if segmentation.out_of_view or any(face.any() for face in faces):
        found.add("out_of_view")
    if any(r.voxels and r.largest_share < MIN_LARGEST_SHARE for r in regions):
        found.add("scattered")
    if segmentation.confidence is not None and segmentation.intracranial_mm3 is None:
        found.add("no_etiv")
    return tuple(flag for flag in FLAGS if flag in found)
