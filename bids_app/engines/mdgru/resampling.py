"""Resampling between an image's grid and a 1 mm grid, on which the network was trained.

Images with voxel edges near 1 mm are not resampled, as in the original pipeline. Both grids have
the same centre and axes, so that only the voxel size is needed, not the affine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
NEAREST_MM, FARTHEST_MM = 0.795, 1.205  # range of voxel edges that are not resampled
_MARGIN = 8  # voxels beyond which a border has no effect on a cubic spline


def is_coarse_or_fine(spacing: Sequence[float]) -> bool:
    """Whether an image with these voxel edges (mm) is resampled to 1 mm."""
    return not all(NEAREST_MM <= edge <= FARTHEST_MM for edge in spacing)


def to_millimetres(image: NDArray[np.float32], spacing: Sequence[float]) -> NDArray[np.float32]:
    """Resample an image to 1 mm voxels by a cubic spline; negative values become 0.

    Parameters
    ----------
    image : ndarray of float32, shape (X, Y, Z)
    spacing : sequence of three floats
        Voxel size in mm.

    Returns
    -------
    ndarray of float32, shape (X', Y', Z')
        With the extent of the image, to half a millimetre.
    """
    shape = [max(round(size * edge), 1) for size, edge in zip(image.shape, spacing, strict=True)]
    scale = [1 / edge for edge in spacing]
    offset = [
        (1 - n) / 2 * step + (size - 1) / 2
        for n, step, size in zip(shape, scale, image.shape, strict=True)
    ]
    fine: NDArray[np.float32] = ndimage.affine_transform(
        image, np.diag(scale), offset, tuple(shape), order=3, mode="mirror"
    )
    return np.maximum(fine, 0, out=fine)


def box_in_millimetres(
    box: Box, shape: Sequence[int], spacing: Sequence[float], fine_shape: Sequence[int]
) -> Box:
    """Part of the 1 mm grid that `from_millimetres` needs for a box of the image."""
    parts = []
    for part, size, edge, n in zip(box, shape, spacing, fine_shape, strict=True):
        middle, fine_middle = (size - 1) / 2, (n - 1) / 2
        first = math.floor((part.start - middle) * edge + fine_middle) - _MARGIN
        last = math.ceil((part.stop - 1 - middle) * edge + fine_middle) + _MARGIN
        parts.append(slice(max(first, 0), min(last + 1, n)))
    x, y, z = parts
    return x, y, z


def from_millimetres(
    probabilities: NDArray[np.float32],
    fine_box: Box,
    fine_shape: Sequence[int],
    box: Box,
    shape: Sequence[int],
    spacing: Sequence[float],
) -> NDArray[np.float32]:
    """Resample probabilities from the 1 mm grid to the image's, each class by a cubic spline.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (C, x', y', z')
        Within `fine_box`.
    fine_box, fine_shape : tuple of three slices, sequence of three ints
        Part of the 1 mm grid, and the shape of the whole grid.
    box, shape : tuple of three slices, sequence of three ints
        Part of the image's grid to compute, and the shape of the whole grid.
    spacing : sequence of three floats
        Voxel size of the image in mm.

    Returns
    -------
    ndarray of float32, shape (C, x, y, z)
        Within `box`; clipped to 0 to 1.
    """
    offset = [
        (part.start - (size - 1) / 2) * edge + (n - 1) / 2 - fine.start
        for part, size, edge, n, fine in zip(box, shape, spacing, fine_shape, fine_box, strict=True)
    ]
    there = tuple(part.stop - part.start for part in box)
    matrix = np.diag(spacing)
    maps = np.empty((len(probabilities), *there), dtype=np.float32)
    for map_, fine in zip(maps, probabilities, strict=True):
        ndimage.affine_transform(fine, matrix, offset, output=map_, order=3, mode="mirror")
    return np.clip(maps, 0, 1, out=maps)
