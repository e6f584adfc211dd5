"""The pose of a brainstem: where it lies in the head's space, and how it is turned.

It is found from the probabilities of midbrain, pons and medulla, or from the masks of a label map.
All is done in RAS+ millimetres, so that oblique grids and uneven voxels need no care.

The pose rests on what hardly changes when the field of view ends within the medulla or when a
region shrinks: the midsagittal plane, the centroid of the pons, and the line to the centroid of the
midbrain from that of the medulla's upper `UPPER_MEDULLA_MM`. That line is `LEAN_DEGREES` off the
upright axis, about as in a head that lies straight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.orientations import io_orientation
from scipy import ndimage

from bids_app.geometry.boxes import affine_of_box
from bids_app.geometry.midplane import Midplane, fit_midplane, symmetry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAN_DEGREES = 12.0  # of the line from medulla to midbrain, forward of upright; 14 in the mean
# Where a region is missing, the line between the other two takes the place of that line. On 29
# heads it stood so far forward of it (mean; the standard deviation is 2 degrees).
FROM_PONS_DEGREES, TO_PONS_DEGREES = -9.5, 8.0
UPPER_MEDULLA_MM = 15.0
NEAR_MM = 3.0  # probabilities farther from the largest component have no say
# Dice of a brainstem and its mirror image: 0.90 to 0.95 about the midsagittal plane, 0.81 about one
# across. Below the least there is no plane; below the good one, another start is tried.
LEAST_SYMMETRY, GOOD_SYMMETRY = 0.7, 0.88
LEAST_MM3 = 500.0  # of a region that has a centroid
_LEAST_BULGE_MM = 1.0  # of the pons in front of the line from medulla to midbrain, about 3
_BORDER_BLUR_MM = 1.0  # masks have no probabilities that overlap at a border


@dataclass(frozen=True, eq=False)
class Pose:
    """Where a brainstem lies and how it is turned.

    Attributes
    ----------
    centre : ndarray, shape (3,)
        Centroid of the pons, or of what there is without one, moved into the midsagittal plane;
        RAS+ millimetres.
    axes : ndarray, shape (3, 3)
        A rotation whose columns are the directions right, front and up of the brainstem in RAS+.
    note : str or None
        How the pose was found if a part was missing; None of a full pose.
    """

    centre: Floats
    axes: Floats
    note: str | None = None

    def angle_to(self, other: Pose) -> float:
        """Give the angle in degrees by which another pose is turned against this one."""
        cosine = (np.trace(self.axes.T @ other.axes) - 1) / 2
        return math.degrees(math.acos(min(max(float(cosine), -1.0), 1.0)))


def find_pose(parts: NDArray[Any], affine: Floats) -> Pose | None:
    """Find the pose of a brainstem.

    Parameters
    ----------
    parts : ndarray, shape (3, X, Y, Z)
        Probabilities or masks of midbrain, pons and medulla, in any voxel order.
    affine : ndarray, shape (4, 4)
        Voxel indices of a part to RAS+ millimetres.

    Returns
    -------
    Pose or None
        Without a midsagittal plane, or with fewer than two regions, the axes are those of the grid,
        and `Pose.note` says so. None where there is no brainstem.
    """
    shares, affine = _largest(parts, affine)
    if not shares.size:
        return None
    whole = shares.sum(axis=0)
    places = _millimetres(whole.shape, affine)
    present = shares.sum(axis=(1, 2, 3)) * abs(np.linalg.det(affine[:3, :3])) >= LEAST_MM3
    centre = _centroid(shares[1] if present[1] else whole, places)
    mask = whole > 0.5
    plane = _find_midplane(shares, present, mask, places, affine)
    if plane is None:
        return Pose(centre, _grid_axes(affine), "no midsagittal plane: the axes of the image")
    centre = centre - (centre - plane.point) @ plane.normal * plane.normal
    line, lean, note = _line(shares, present, places, affine)
    if line is None:
        return Pose(centre, _grid_axes(affine), "fewer than two regions: the axes of the image")
    return Pose(centre, _axes(plane, line, lean), note)


def _anatomical_axes(shares: NDArray[np.float32], places: Floats, affine: Floats) -> Floats:
    """Guess right, front and up: the pons lies in front of the line from medulla to midbrain."""
    midbrain, pons, _ = (_centroid(part, places) for part in shares)
    medulla = _centroid(_upper_medulla(shares, places, affine), places)
    up = (midbrain - medulla) / np.linalg.norm(midbrain - medulla)
    front = (pons - medulla) - (pons - medulla) @ up * up
    if np.linalg.norm(front) < _LEAST_BULGE_MM:
        return np.eye(3)
    front /= np.linalg.norm(front)
    return np.column_stack([np.cross(front, up), front, up])


def _find_midplane(
    shares: NDArray[np.float32],
    present: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    places: Floats,
    affine: Floats,
) -> Midplane | None:
    """Fit the midsagittal plane; None where the brainstem is not symmetrical about any.

    The search is local: begun with the image's axes alone it can end in a plane across a head that
    is turned by 30 degrees.
    """
    starts = [np.eye(3)]
    if present.all():
        starts.insert(0, _anatomical_axes(shares, places, affine))
    best, highest = None, LEAST_SYMMETRY
    for start in starts:
        turned = fit_midplane(mask, from_matvec(start.T) @ affine)
        if turned is None:
            return None
        plane = Midplane(start @ turned.point, start @ turned.normal)
        dice = symmetry(mask, affine, plane)
        if dice > highest:
            best, highest = plane, dice
        if highest >= GOOD_SYMMETRY:
            break
    return best


def _line(
    shares: NDArray[np.float32], present: NDArray[np.bool_], places: Floats, affine: Floats
) -> tuple[Floats | None, float, str | None]:
    """Direction along the brainstem, its lean in degrees, and a note if it is a substitute."""
    midbrain, pons, _ = shares
    if present.all():
        upper = _upper_medulla(shares, places, affine)
        return _centroid(midbrain, places) - _centroid(upper, places), LEAN_DEGREES, None
    if present[0] and present[1]:
        line = _centroid(midbrain, places) - _centroid(pons, places)
        return line, LEAN_DEGREES + FROM_PONS_DEGREES, "no medulla: axis from pons to midbrain"
    if present[1] and present[2]:
        upper = _upper_medulla(shares, places, affine)
        line = _centroid(pons, places) - _centroid(upper, places)
        return line, LEAN_DEGREES + TO_PONS_DEGREES, "no midbrain: axis from medulla to pons"
    return None, 0.0, None


def _upper_medulla(
    shares: NDArray[np.float32], places: Floats, affine: Floats
) -> NDArray[np.float32]:
    """Cut the medulla `UPPER_MEDULLA_MM` below its border with the pons."""
    pons, medulla = shares[1], shares[2]
    sigma = _BORDER_BLUR_MM / voxel_sizes(affine)
    border = ndimage.gaussian_filter(pons, sigma) * ndimage.gaussian_filter(medulla, sigma)
    start = _centroid(border if border.any() else pons, places)
    down = _centroid(medulla, places) - _centroid(pons, places)
    depth: Floats = (places - start) @ (down / np.linalg.norm(down))
    upper: NDArray[np.float32] = medulla * np.clip(UPPER_MEDULLA_MM - depth + 0.5, 0, 1)
    return upper


def _axes(plane: Midplane, line: Floats, lean_degrees: float) -> Floats:
    """Give right, front and up, such that a line within the plane is at an angle forward of up."""
    along = plane.within(line)
    ahead = np.cross(along, plane.normal)
    lean = math.radians(lean_degrees)
    up = math.cos(lean) * along - math.sin(lean) * ahead
    return np.column_stack([plane.normal, np.cross(up, plane.normal), up])


def _grid_axes(affine: Floats) -> Floats:
    """Directions of a grid's axes that are nearest to right, front and up, made orthogonal."""
    axis_of = np.argsort(io_orientation(affine)[:, 0])
    signs = io_orientation(affine)[axis_of, 1]
    left, _, right = np.linalg.svd(affine[:3, axis_of] / voxel_sizes(affine)[axis_of] * signs)
    axes: Floats = left @ right
    return axes


def _largest(parts: NDArray[Any], affine: Floats) -> tuple[NDArray[np.float32], Floats]:
    """Keep what is near the brainstem's largest component, in a box around it, and its affine."""
    nothing = np.zeros((3, 0, 0, 0), np.float32)
    whole = parts.sum(axis=0, dtype=np.float32) > 0.5
    numbered, number = ndimage.label(whole)
    if not number:
        return nothing, affine
    sizes = np.bincount(numbered.ravel())[1:]
    if sizes.max() * abs(np.linalg.det(affine[:3, :3])) < LEAST_MM3:
        return nothing, affine
    largest = int(sizes.argmax()) + 1
    edges = voxel_sizes(affine)
    found = ndimage.find_objects(numbered, max_label=largest)[largest - 1]
    margin = np.ceil(NEAR_MM / edges).astype(int) + 1
    x, y, z = (
        slice(max(part.start - m, 0), part.stop + m) for part, m in zip(found, margin, strict=True)
    )
    box = x, y, z
    away = ndimage.distance_transform_edt(numbered[box] != largest, sampling=edges)
    kept: NDArray[np.float32] = parts[(slice(None), *box)] * (away <= NEAR_MM).astype(np.float32)
    return kept, affine_of_box(affine, box)


def _millimetres(shape: tuple[int, ...], affine: Floats) -> Floats:
    """RAS+ millimetres of the voxels of a grid, shape (X, Y, Z, 3)."""
    places: Floats = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    return places


def _centroid(weights: NDArray[np.float32], places: Floats) -> Floats:
    """Weighted mean of places, shape (X, Y, Z, 3)."""
    weights = weights.astype(np.float64)
    mean: Floats = np.tensordot(weights, places, axes=3) / weights.sum()
    return mean
