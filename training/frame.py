"""The canonical frame of a head: x across, z up along the brainstem, its middle at the centre.

The segmenter's second pass sees a head in this frame, so the near look of a case is cut in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from nibabel.affines import apply_affine

from training.cases import MCP, MEDULLA, MIDBRAIN, STEM, TECTUM

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAN_DEGREES = 12.0  # of the line from medulla to midbrain, forward of z


def image_frame(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the directions of an image's own axes as columns, shape (3, 3)."""
    return np.asarray(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))


def canonical_frame(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the canonical frame of a labelled head.

    The midsagittal plane holds the line from the centre of the medulla to that of the midbrain; x,
    its normal, follows the line between both middle peduncles (without them, a plane fitted to the
    brainstem). y and z are turned about x so that the first line leans 12 degrees forward of z.

    Parameters
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        Classes of `training.cases`.
    affine : ndarray of float64, shape (4, 4)
        From voxels to RAS mm.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Columns are the directions of x (right), y (forward) and z (up) in RAS; those of the image
        where midbrain or medulla has fewer than 100 voxels.
    """
    upper, lower = (
        apply_affine(affine, np.argwhere(np.isin(labels, classes)))
        for classes in ((MIDBRAIN, TECTUM), (MEDULLA,))
    )
    if min(len(upper), len(lower)) < 100:
        return image_frame(affine)
    along = upper.mean(0) - lower.mean(0)
    along /= np.linalg.norm(along)
    x = _across(labels, affine)
    x -= x @ along * along
    x /= np.linalg.norm(x)
    forward = np.cross(along, x)
    lean = np.deg2rad(LEAN_DEGREES)
    y = np.cos(lean) * forward + np.sin(lean) * along
    z = np.cos(lean) * along - np.sin(lean) * forward
    return np.column_stack([x, y, z])


def _across(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction from left to right, not yet square to the axis of the brainstem."""
    stem = apply_affine(affine, np.argwhere(np.isin(labels, STEM)))
    peduncles = apply_affine(affine, np.argwhere(labels == MCP))
    right = peduncles[:, 0] > stem[:, 0].mean()
    if min(right.sum(), (~right).sum()) >= 100:
        return np.asarray(peduncles[right].mean(0) - peduncles[~right].mean(0))
    slopes, *_ = np.linalg.lstsq(
        np.column_stack([stem[:, 1:], np.ones(len(stem))]), stem[:, 0], rcond=None
    )
    return np.array([1.0, -slopes[0], -slopes[1]])


def grid_affine(
    frame: NDArray[np.float64], centre: NDArray[np.float64], size: int, spacing: float
) -> NDArray[np.float64]:
    """Return the affine of a cube in a frame, shape (4, 4), from its voxels (x, y, z) to RAS mm.

    Parameters
    ----------
    frame : ndarray of float64, shape (3, 3)
        Directions of its axes as columns.
    centre : ndarray of float64, shape (3,)
        Its middle in RAS mm.
    size, spacing : int, float
        Edge in voxels, and their size in mm.
    """
    affine = np.eye(4)
    affine[:3, :3] = frame * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, (size - 1) / 2)
    return affine
