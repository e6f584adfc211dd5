"""The midsagittal plane of a brainstem, fitted to its mask.

The plane is the one about which the brainstem is most symmetric. It does not depend on the position
or rotation of the head, nor on the middle of the voxel grid. All computations are in RAS+
millimetres, so oblique grids and anisotropic voxels need no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage, optimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_VOXELS = 100  # of a brainstem, for a plane to be fitted
_POINTS = 4000  # near the border of the brainstem, which are mirrored during the fit
_BLUR_MM = 2.0
_SCALE_MM = 20.0  # shift that has the same weight as a slope of 1


@dataclass(frozen=True, eq=False)
class Midplane:
    """A plane between left and right.

    Attributes
    ----------
    point : ndarray, shape (3,)
        The point of the plane nearest to the brainstem's centroid, RAS+ millimetres.
    normal : ndarray, shape (3,)
        Unit vector towards the participant's right.
    """

    point: Floats
    normal: Floats

    def mirror(self, points: Floats) -> Floats:
        """Mirror points, shape (N, 3), about the plane."""
        across = (points - self.point) @ self.normal
        mirrored: Floats = points - 2 * across[:, np.newaxis] * self.normal
        return mirrored

    def within(self, direction: Floats) -> Floats:
        """Project a direction, shape (3,), onto the plane, as a unit vector."""
        flat = direction - (direction @ self.normal) * self.normal
        flat /= np.linalg.norm(flat)
        return flat


def fit_midplane(mask: NDArray[np.bool_], affine: Floats) -> Midplane | None:
    """Find the plane about which a mask is most symmetric.

    The mask is blurred, and the squared differences between points near its border and their
    mirror images are minimized. The search starts at the sagittal plane through the centroid and
    finds the plane of heads rotated by up to 30 degrees.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        The brainstem, in any voxel order.
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS+ millimetres.

    Returns
    -------
    Midplane or None
        None if there are fewer than `LEAST_VOXELS` voxels.
    """
    voxels = np.argwhere(mask)
    if len(voxels) < LEAST_VOXELS:
        return None
    edges = voxel_sizes(affine)
    margin = np.ceil(2 * _BLUR_MM / edges).astype(int) + 1
    field = np.pad(mask.astype(np.float32), [(m, m) for m in margin])
    field = ndimage.gaussian_filter(field, _BLUR_MM / edges, truncate=3)
    to_field = np.linalg.inv(affine)
    centroid = apply_affine(affine, voxels.mean(axis=0))
    near = np.argwhere((field > 0.1) & (field < 0.9))
    near = near[np.random.default_rng(0).permutation(len(near))[:_POINTS]]
    points = apply_affine(affine, near - margin)
    values = field[tuple(near.T)]

    def plane(parameters: Floats) -> Midplane:
        turn, tilt, shift = parameters
        normal = np.array([1.0, turn, tilt])
        normal /= np.linalg.norm(normal)
        return Midplane(centroid + shift * _SCALE_MM * normal, normal)

    def differences(parameters: Floats) -> Floats:
        mirrored = apply_affine(to_field, plane(parameters).mirror(points)) + margin
        there: Floats = ndimage.map_coordinates(field, mirrored.T, order=1)
        there -= values
        return there

    best = optimize.least_squares(
        differences, np.zeros(3), diff_step=[0.01], xtol=1e-4, max_nfev=30
    )
    return plane(best.x)


def symmetry(mask: NDArray[np.bool_], affine: Floats, plane: Midplane) -> float:
    """Dice overlap of a mask, shape (X, Y, Z), and its mirror image about a plane; NaN if empty."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return float("nan")
    mirrored = apply_affine(np.linalg.inv(affine), plane.mirror(apply_affine(affine, voxels)))
    there = ndimage.map_coordinates(
        mask.astype(np.float32), mirrored.T, order=1, mode="grid-constant"
    )
    return float((there >= 0.5).mean())
