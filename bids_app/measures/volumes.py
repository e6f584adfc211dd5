"""Measures of the regions of a label map: volumes, clusters, centroids.

A voxel's volume is the absolute determinant of the affine; the product of its edges would be wrong
on sheared grids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from bids_app.geometry.boxes import affine_of_box, bounding_box
from bids_app.regions import WHOLE_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_app.regions import Region

WHOLE_ABBREVIATION = "BS"


@dataclass(frozen=True)
class RegionMeasure:
    """Measures of one region, or of the whole brainstem.

    Attributes
    ----------
    index : int or None
        Value in the label map; None for the whole brainstem.
    name, abbreviation : str
        As written to tables.
    voxels : int
        Number of voxels with the label.
    volume_mm3 : float
        Their volume.
    clusters : int
        Number of connected components.
    largest_component_fraction : float
        Fraction of the region's voxels in its largest component; 0 for an absent region.
    centroid : tuple of float, or None
        Mean position (x, y, z) of its voxels in RAS+ millimetres; None for an absent region.
    """

    index: int | None
    name: str
    abbreviation: str
    voxels: int
    volume_mm3: float
    clusters: int
    largest_component_fraction: float
    centroid: tuple[float, float, float] | None


def measure_regions(
    labels: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    regions: Sequence[Region],
    *,
    whole: Sequence[Region] | None = None,
    connectivity: int = 1,
) -> tuple[RegionMeasure, ...]:
    """Measure each region of a label map, then the union of those that make up the whole.

    Parameters
    ----------
    labels : ndarray of int, shape (X, Y, Z)
        Label map in any voxel order; labels that are not among `regions` do not count.
    affine : ndarray, shape (4, 4)
        Voxel indices of `labels` to RAS+ millimetres.
    regions : sequence of Region
        The K regions to measure.
    whole : sequence of Region, optional
        Regions that make up the union; all by default.
    connectivity : int
        Voxels of one cluster share at least a face (1), an edge (2) or a corner (3).

    Returns
    -------
    tuple of RegionMeasure
        K rows in the order of `regions`, then the union.
    """
    parts = regions if whole is None else whole
    labels, affine_of_box = crop(labels, affine, regions)
    masks = [labels == region.index for region in regions]
    union = np.isin(labels, [region.index for region in parts])
    return tuple(
        _measure(region, mask, affine_of_box, connectivity)
        for region, mask in zip([*regions, None], [*masks, union], strict=True)
    )


def crop(
    labels: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    regions: Sequence[Region],
) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
    """Crop a label map to the box around its regions, a small part of a head.

    Parameters
    ----------
    labels : ndarray of int, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        Voxel indices of `labels` to millimetres.
    regions : sequence of Region
        Regions that the box encloses.

    Returns
    -------
    labels : ndarray of int, shape (x, y, z)
        Without voxels if there is no region.
    affine : ndarray, shape (4, 4)
        Voxel indices of the box to millimetres.
    """
    outer = bounding_box(labels != 0)
    inner = bounding_box(np.isin(labels[outer], [region.index for region in regions]))
    x, y, z = (
        slice(a.start + b.start, a.start + b.stop) if b.stop else slice(0, 0)
        for a, b in zip(outer, inner, strict=True)
    )
    box = x, y, z
    return labels[box], affine_of_box(affine, box)


def _measure(
    region: Region | None,
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    connectivity: int,
) -> RegionMeasure:
    """Measure one region (None: the union) from its mask."""
    voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    neighbours = ndimage.generate_binary_structure(3, connectivity)
    numbered, clusters = ndimage.label(mask, neighbours)
    sizes = np.bincount(numbered.ravel())[1:]
    voxels = int(sizes.sum())
    centroid = None
    if voxels:
        x, y, z = apply_affine(affine, np.argwhere(mask).mean(axis=0))
        centroid = (float(x), float(y), float(z))
    return RegionMeasure(
        index=region.index if region else None,
        name=region.name if region else WHOLE_NAME,
        abbreviation=region.abbreviation if region else WHOLE_ABBREVIATION,
        voxels=voxels,
        volume_mm3=voxels * voxel_mm3,
        clusters=int(clusters),
        largest_component_fraction=float(sizes.max()) / voxels if voxels else 0.0,
        centroid=centroid,
    )
