"""Surfaces, midsagittal areas, diameters and borders of the regions of a label map.

`docs/measures.md` defines each measure and states its limits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from bids_app.geometry.midplane import STEP_MM, Midplane, fit_midplane, section
from bids_app.measures.volumes import crop
from bids_app.regions import MEDULLA, MIDBRAIN, PONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_app.regions import Region

    Floats = NDArray[np.float64]
    Labels = NDArray[np.integer[Any]]

FIXED_LENGTH_MM = 20.0  # of the medulla below the pons
_SMOOTH_MM = 3.0  # along the axis, so that no single row of voxels decides a diameter
_NEAR_MM = 1.5  # thickness of the slices that are compared to find whether a map continues
_DIRECTIONS = np.array([d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0)])
_UP = np.array([0.0, 0.0, 1.0])
_NO_LENGTH = 1e-6  # of a vector whose direction is only rounding error


@dataclass(frozen=True)
class RegionShape:
    """Shape of one region, or of all regions together; None for what is not defined.

    Attributes
    ----------
    surface_mm2 : float or None
        Area of the closed surface, including borders with other regions.
    midsagittal_mm2 : float or None
        Area on the midsagittal plane.
    ap_diameter_mm : float or None
        Largest anterior-posterior diameter on the midsagittal plane, perpendicular to the axis of
        the pons (midbrain and pons) or of the medulla.
    to_20mm_mm3 : float or None
        Only of the medulla: volume down to a plane across its axis 20 mm below the pons.
    """

    surface_mm2: float | None = None
    midsagittal_mm2: float | None = None
    ap_diameter_mm: float | None = None
    to_20mm_mm3: float | None = None


@dataclass(frozen=True, eq=False)
class Border:
    """Where two regions touch.

    Attributes
    ----------
    area_mm2 : float
        Of the voxel faces that they share; on a staircase up to 1.7 times the smooth area.
    centre : ndarray, shape (3,), or None
        Mean of these faces in RAS+ millimetres; None if they do not touch.
    """

    area_mm2: float
    centre: Floats | None


@dataclass(frozen=True, eq=False)
class Shape:
    """Shape of all regions of a label map.

    Attributes
    ----------
    regions : tuple of RegionShape
        In the order of the regions, the union last.
    plane : Midplane or None
        The midsagittal plane.
    borders : tuple of two Border
        Between midbrain and pons, and between pons and medulla.
    """

    regions: tuple[RegionShape, ...]
    plane: Midplane | None
    borders: tuple[Border, Border]


def measure_shape(
    labels: Labels,
    affine: Floats,
    regions: Sequence[Region],
    whole: Sequence[Region] | None = None,
) -> Shape:
    """Measure the shape of each region of a label map, then of their union.

    Parameters
    ----------
    labels : ndarray of int, shape (X, Y, Z)
        Label map in any voxel order; labels that are not among `regions` do not count.
    affine : ndarray, shape (4, 4)
        Voxel indices of `labels` to RAS+ millimetres.
    regions : sequence of Region
        Those named midbrain, pons and medulla have diameters and borders.
    whole : sequence of Region, optional
        Regions that make up the union; all by default.
    """
    labels, affine = crop(labels, affine, regions)
    values = [region.index for region in regions]
    masks = {region.name: labels == region.index for region in regions}
    parts = [region.name for region in (regions if whole is None else whole)]
    union = np.logical_or.reduce([masks[name] for name in parts])
    nothing = np.zeros_like(union)
    midbrain, pons, medulla = (masks.get(name, nothing) for name in (MIDBRAIN, PONS, MEDULLA))
    upper, lower = border(midbrain, pons, affine), border(pons, medulla, affine)
    plane = fit_midplane(union, affine)
    areas: dict[str, float] = {}
    diameters: dict[str, float] = {}
    fixed = None
    if plane is not None:
        axis = _axis(upper, lower)
        cut = section(labels, values, affine, plane, plane.within(_UP if axis is None else axis))
        areas = {
            region.name: float(np.count_nonzero(cut == region.index)) * STEP_MM**2
            for region in regions
        }
        if axis is not None:
            for region in regions:
                if region.name in (MIDBRAIN, PONS):
                    diameters[region.name] = _ap_diameter(cut == region.index)
    if plane is not None and lower.centre is not None:
        axis = _axis_of_medulla(medulla, affine, lower.centre)
        if axis is not None:
            cut = section(medulla, [1], affine, plane, plane.within(axis))
            diameters[MEDULLA] = _ap_diameter(cut == 1)
            fixed = _volume_to(FIXED_LENGTH_MM, medulla, affine, lower.centre, axis)
    measured = [
        RegionShape(
            surface_mm2=surface_area(mask, affine) if mask.any() else None,
            midsagittal_mm2=areas.get(name) if mask.any() else None,
            ap_diameter_mm=diameters.get(name) if mask.any() else None,
            to_20mm_mm3=fixed if name == MEDULLA else None,
        )
        for name, mask in masks.items()
    ]
    of_whole = RegionShape(
        surface_mm2=surface_area(union, affine) if union.any() else None,
        midsagittal_mm2=sum(areas[name] for name in parts) if plane is not None else None,
    )
    return Shape((*measured, of_whole), plane, (upper, lower))


def surface_area(mask: NDArray[np.bool_], affine: Floats) -> float:
    """Estimate the area of a mask's surface by Crofton's formula.

    The formula counts where lines through the voxels, in the 13 directions of neighbours, cross
    the surface. Each direction is weighted by the part of the sphere that is nearest to it on a
    grid of these voxels (Lehmann and Legland, Insight Journal, 2012). The error is within 2 % on
    balls; flat faces along the grid are underestimated by 7 to 9 %.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        The surface is closed at the edges of the array.
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.

    Returns
    -------
    float
        Square millimetres.
    """
    vectors = _DIRECTIONS @ affine[:3, :3].T
    lengths = np.linalg.norm(vectors, axis=1)
    nearest = np.abs(_sphere(8000) @ (vectors / lengths[:, np.newaxis]).T).argmax(axis=1)
    shares = np.bincount(nearest, minlength=len(lengths)) / len(nearest)
    padded = np.pad(mask, 1)
    crossings = np.array([_crossings(padded, direction) for direction in _DIRECTIONS])
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    # The lines of a direction are voxel_mm3 / length mm2 apart. Crossings times that area are the
    # projected area of the surface; its mean over all directions is half the area.
    return float(2 * (shares * crossings * voxel_mm3 / lengths).sum())


@cache
def _sphere(number: int) -> Floats:
    """Spread points evenly over the unit sphere, shape (`number`, 3), by the golden angle."""
    k = np.arange(number)
    z = 1 - (2 * k + 1) / number
    angle = np.pi * (3 - np.sqrt(5)) * k
    radius = np.sqrt(1 - z**2)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), z])


def _crossings(padded: NDArray[np.bool_], direction: Sequence[int]) -> int:
    """Count pairs of neighbours along a direction with exactly one voxel in the mask."""
    pairs = list(zip(direction, padded.shape, strict=True))
    here = tuple(slice(max(-d, 0), n - max(d, 0)) for d, n in pairs)
    there = tuple(slice(max(d, 0), n - max(-d, 0)) for d, n in pairs)
    return int(np.count_nonzero(padded[here] != padded[there]))


def border(first: NDArray[np.bool_], second: NDArray[np.bool_], affine: Floats) -> Border:
    """Measure the voxel faces that two masks, each of shape (X, Y, Z), share."""
    area, moment = 0.0, np.zeros(3)
    for axis in range(3):
        side, other = (affine[:3, a] for a in range(3) if a != axis)
        face = float(np.linalg.norm(np.cross(side, other)))
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        shared = first[tuple(low)] & second[tuple(high)] | second[tuple(low)] & first[tuple(high)]
        places = np.argwhere(shared).astype(np.float64)
        places[:, axis] += 0.5
        area += face * len(places)
        moment += face * places.sum(axis=0)
    return Border(area, apply_affine(affine, moment / area) if area else None)


def _axis(upper: Border, lower: Border) -> Floats | None:
    """Direction of the pons from its lower to its upper border; None if one is missing."""
    if upper.centre is None or lower.centre is None:
        return None
    axis: Floats = upper.centre - lower.centre
    return axis


def _axis_of_medulla(medulla: NDArray[np.bool_], affine: Floats, start: Floats) -> Floats | None:
    """Upward direction of the medulla, on which its slices are centred; None if it has none.

    Only the first `FIXED_LENGTH_MM` below the pons are used, so that the direction does not depend
    on where the map ends. A medulla of one layer of voxels has no direction.
    """
    points = apply_affine(affine, np.argwhere(medulla)) - start
    axis = -points.mean(axis=0)
    for _ in range(8):
        if np.linalg.norm(axis) < _NO_LENGTH:
            return None
        axis /= np.linalg.norm(axis)
        depth = -points @ axis
        near = (depth > 0) & (depth < FIXED_LENGTH_MM)
        if np.count_nonzero(near) < 4:
            break
        offsets = points[near] - points[near].mean(axis=0)
        axis = -(depth[near] - depth[near].mean()) @ offsets / np.count_nonzero(near)
    length = np.linalg.norm(axis)
    return None if length < _NO_LENGTH else axis / length


def _ap_diameter(cut: NDArray[np.bool_]) -> float:
    """Give the largest extent of a section along its second axis, in mm."""
    rows = cut.sum(axis=1) * STEP_MM
    return float(ndimage.uniform_filter1d(rows, round(_SMOOTH_MM / STEP_MM), mode="constant").max())


def _volume_to(
    length: float, medulla: NDArray[np.bool_], affine: Floats, start: Floats, axis: Floats
) -> float | None:
    """Volume above a plane across an axis; None if the map ends above that plane.

    A voxel that the plane cuts counts with its fraction above.
    """
    depth = -(apply_affine(affine, np.argwhere(medulla)) - start) @ axis
    edge = float(np.abs(axis @ affine[:3, :3]).sum())  # extent of a voxel along the axis
    reach = max(_NEAR_MM, edge)
    above = np.count_nonzero((depth > length - reach) & (depth <= length))
    below = np.count_nonzero((depth > length) & (depth <= length + reach))
    if below < above / 2 or not above:
        return None
    parts = np.clip((length - depth) / edge + 0.5, 0, 1)
    return float(parts.sum() * abs(np.linalg.det(affine[:3, :3])))
