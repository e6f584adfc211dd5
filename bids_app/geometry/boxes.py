"""Boxes of voxels: parts of a grid as one slice along each axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from nibabel.affines import apply_affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Find the smallest box around the true voxels of a mask, shape (X, Y, Z); empty if none."""
    box = [slice(None)] * 3
    for axis in range(3):
        inside = np.flatnonzero(mask[tuple(box)].any(axis=tuple({0, 1, 2} - {axis})))
        box[axis] = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)
    x, y, z = box
    return x, y, z


def affine_of_box(affine: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """Give the affine of a box of a grid.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        Voxel indices of the grid to millimetres.
    box : tuple of three slices

    Returns
    -------
    ndarray, shape (4, 4)
        Voxel indices of the box to millimetres.
    """
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, [part.start for part in box])
    return moved
