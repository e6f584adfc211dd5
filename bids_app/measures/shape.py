"""Shape of the regions in the canonical frame, at sub-voxel precision.

Surfaces lie where a region's probability is 0.5. Between voxel centres the logit of the probability
is interpolated, which near a surface grows in proportion to the distance from it. The midsagittal
plane is the frame's own. `docs/measures.md` defines each measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_app.geometry.frame import MIDDLE, STEP_MM
from bids_app.regions import MEDULLA, MIDBRAIN, PONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_app.regions import Region

    Floats = NDArray[np.float64]
    Maps = NDArray[np.float32]

FIXED_LENGTH_MM = 20.0  # of the medulla below the pons
FINE_MM = 0.25  # between the points of a section
_LARGEST_LOGIT = 4.0
_SMOOTH_MM = 3.0  # along the axis; a diameter is the mean of so many millimetres
_NEAR_MM = 1.5  # above and below the plane, where it is seen whether the medulla goes on
_LEAST_MM3 = 50.0
_BLUR_MM = 1.0  # masks have no probabilities that overlap at a border
_HALFWAY = np.array([-1, 9, 9, -1]) / 16  # cubic interpolation between two planes of voxels
_UP = np.array([0.0, 0.0, 1.0])
_RIGHT = np.array([1.0, 0.0, 0.0])


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


def measure_shape(
    probabilities: Maps, regions: Sequence[Region], whole: Sequence[Region] | None = None
) -> tuple[RegionShape, ...]:
    """Measure the shape of each region, then of those that make a whole together.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions in the canonical frame, without what is far from a region's largest component
        (`bids_app.measures.probabilities.near_largest`).
    regions : sequence of Region
        Those named midbrain, pons and medulla have diameters.
    whole : sequence of Region, optional
        Those of them that make the union; all by default.

    Returns
    -------
    tuple of RegionShape
        K in the order of `regions`, then the union's. Measures are None for an absent region.
    """
    maps = {region.name: part for region, part in zip(regions, probabilities, strict=True)}
    parts = [region.name for region in (regions if whole is None else whole)]
    union = np.minimum(np.sum([maps[name] for name in parts], axis=0), np.float32(1))
    nothing = np.zeros_like(union)
    midbrain, pons, medulla = (maps.get(name, nothing) for name in (MIDBRAIN, PONS, MEDULLA))
    upper, lower = border_centre(midbrain, pons), border_centre(pons, medulla)
    diameters: dict[str, float] = {}
    fixed = None
    if upper is not None and lower is not None:
        axis = _within_plane(upper - lower)
        diameters = {name: ap_diameter(maps[name], axis) for name in (MIDBRAIN, PONS)}
    if lower is not None and (medullary := medulla_axis(medulla, lower)) is not None:
        diameters[MEDULLA] = ap_diameter(medulla, _within_plane(medullary))
        fixed = volume_to(FIXED_LENGTH_MM, medulla, lower, medullary)

    def measure(name: str, part: Maps) -> RegionShape:
        if not _is_present(part):
            return RegionShape()
        return RegionShape(
            surface_mm2=surface_area(part),
            midsagittal_mm2=midsagittal_area(part),
            ap_diameter_mm=diameters.get(name),
            to_20mm_mm3=fixed if name == MEDULLA else None,
        )

    return (*(measure(name, part) for name, part in maps.items()), measure("", union))


def midsagittal_area(part: Maps) -> float:
    """Measure the area of a region on the midsagittal plane in mm2.

    Parameters
    ----------
    part : ndarray of float32, shape (X, Y, Z)
        Probabilities of the region in the frame.
    """
    return float(_coverage(part, _UP).sum()) * FINE_MM**2


def ap_diameter(part: Maps, axis: Floats) -> float:
    """Measure the largest extent of a region on the midsagittal plane, square to an axis, in mm.

    Parameters
    ----------
    part : ndarray of float32, shape (X, Y, Z)
        Probabilities of the region in the frame.
    axis : ndarray, shape (3,)
        Direction within the plane, of length 1.
    """
    rows = _coverage(part, axis).sum(axis=1) * FINE_MM
    means = ndimage.uniform_filter1d(rows, round(_SMOOTH_MM / FINE_MM), mode="constant")
    return float(means.max())


def surface_area(part: Maps) -> float:
    """Measure the area of the closed surface of a region in mm2, by marching cubes.

    Parameters
    ----------
    part : ndarray of float32, shape (X, Y, Z)
        Probabilities of the region in the frame.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    places = np.argwhere(part > 0.5)
    if not len(places):
        return 0.0
    first, last = places.min(axis=0), places.max(axis=0)
    box = tuple(slice(max(a - 2, 0), b + 3) for a, b in zip(first, last, strict=True))
    field = np.pad(_logit(part[box]), 1, constant_values=-_LARGEST_LOGIT)
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(STEP_MM,) * 3)
    return float(mesh_surface_area(vertices, faces))


def border_centre(first: Maps, second: Maps) -> Floats | None:
    """Find the middle of the border between two regions.

    Parameters
    ----------
    first, second : ndarray of float32, shape (X, Y, Z)
        Probabilities of the regions in the frame.

    Returns
    -------
    ndarray, shape (3,), or None
        In voxels of the frame; None where they do not touch.
    """
    both = ndimage.gaussian_filter(first, _BLUR_MM) * ndimage.gaussian_filter(second, _BLUR_MM)
    if both.sum() < 1:
        return None
    return _centroid(both)


def medulla_axis(medulla: Maps, start: Floats) -> Floats | None:
    """Find the direction of the medulla upwards, along which its slices are centred.

    It rests on the first `FIXED_LENGTH_MM` below the pons alone, so that it does not depend on
    where the field of view ends.

    Parameters
    ----------
    medulla : ndarray of float32, shape (X, Y, Z)
        Probabilities in the frame.
    start : ndarray, shape (3,)
        Middle of the border with the pons, in voxels of the frame.

    Returns
    -------
    ndarray, shape (3,), or None
        Of length 1; None where too little of the medulla is there.
    """
    if not _is_present(medulla):
        return None
    places = np.argwhere(medulla > 0.01)
    weights = medulla[tuple(places.T)].astype(np.float64)
    points = (places - start) * STEP_MM
    axis = -(weights @ points)
    for _ in range(8):
        axis /= np.linalg.norm(axis)
        depth = -points @ axis
        near = weights * np.clip(depth + 0.5, 0, 1) * np.clip(FIXED_LENGTH_MM - depth + 0.5, 0, 1)
        if near.sum() * STEP_MM**3 < _LEAST_MM3:
            return None
        offsets = points - near @ points / near.sum()
        axis = -(near * (depth - near @ depth / near.sum())) @ offsets
    direction: Floats = axis / np.linalg.norm(axis)
    return direction


def volume_to(length: float, medulla: Maps, start: Floats, axis: Floats) -> float | None:
    """Measure the volume of the medulla above a plane across its axis in mm3.

    Parameters
    ----------
    length : float
        Distance in mm of the plane from `start` along the axis.
    medulla : ndarray of float32, shape (X, Y, Z)
        Probabilities in the frame.
    start, axis : ndarray, shape (3,)
        Middle of the border with the pons in voxels of the frame, and direction upwards.

    Returns
    -------
    float or None
        None where the medulla ends before that plane.
    """
    places = np.argwhere(medulla > 0)
    weights = medulla[tuple(places.T)].astype(np.float64)
    depth = -((places - start) * STEP_MM) @ axis
    above, below = (
        weights @ np.clip(1 - np.abs(depth - length - offset) / _NEAR_MM, 0, 1)
        for offset in (-_NEAR_MM, _NEAR_MM)
    )
    if below < above / 2 or not above:
        return None
    edge = STEP_MM * float(np.abs(axis).sum())  # extent of a voxel along the axis
    shares = np.clip((length - depth) / edge + 0.5, 0, 1)
    return float(weights @ shares) * STEP_MM**3


def _coverage(part: Maps, axis: Floats) -> Floats:
    """Cut a region along the midsagittal plane; shape (U, F), along `axis` and to the front.

    Values are the shares of cells of `FINE_MM` that the region covers.
    """
    front = np.cross(axis, _RIGHT)
    middle = int(MIDDLE)
    logits = np.tensordot(_HALFWAY, _logit(part[middle - 1 : middle + 3]), axes=1)
    steps = np.arange(-MIDDLE * 1.2, MIDDLE * 1.2, FINE_MM / STEP_MM)
    y = MIDDLE + steps[:, np.newaxis] * axis[1] + steps * front[1]
    z = MIDDLE + steps[:, np.newaxis] * axis[2] + steps * front[2]
    field = ndimage.map_coordinates(logits, [y, z], order=1, mode="nearest")
    slopes = np.hypot(*np.gradient(field))
    covered: Floats = np.clip(field / np.maximum(slopes, 1e-6) + 0.5, 0, 1)
    return covered


def _logit(part: Maps) -> NDArray[np.float64]:
    """Logit of probabilities, within `_LARGEST_LOGIT`."""
    least = 1 / (1 + np.exp(_LARGEST_LOGIT))
    clipped = np.clip(part.astype(np.float64), least, 1 - least)
    return np.log(clipped / (1 - clipped))


def _within_plane(direction: Floats) -> Floats:
    """Move a direction into the midsagittal plane; of length 1."""
    flat = direction * (0, 1, 1)
    within: Floats = flat / np.linalg.norm(flat)
    return within


def _is_present(part: Maps) -> bool:
    return bool(part.sum(dtype=np.float64) * STEP_MM**3 >= _LEAST_MM3)


def _centroid(weights: Maps) -> Floats:
    """Weighted mean of voxel indices, shape (3,)."""
    places = np.argwhere(weights > 0)
    shares = weights[tuple(places.T)].astype(np.float64)
    mean: Floats = shares @ places / shares.sum()
    return mean
