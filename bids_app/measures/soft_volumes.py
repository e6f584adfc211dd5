"""Volumes of regions as sums of probabilities.

A sum of probabilities changes smoothly where a count of voxels jumps, so it repeats far better when
a head is turned or scanned with other voxels. As in FreeSurfer's segmentation of the brainstem
(Iglesias et al. 2015, doi 10.1016/j.neuroimage.2015.02.065), the volume of a region is the sum of
its probabilities, here without those that lie far from the region's largest component.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

REACH_MM = 3.0  # from the largest component; within it fades the probability of a border


def most_probable(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the voxels of each region: those where it is more probable than all else.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions; the background has what is left to 1.

    Returns
    -------
    ndarray of bool, shape (K, X, Y, Z)
        Of equal classes the background wins, then the first region.
    """
    highest = 1 - probabilities.sum(axis=0)
    best = np.full(highest.shape, -1)
    for k, part in enumerate(probabilities):
        better = part > highest
        best[better] = k
        np.maximum(highest, part, out=highest)
    masks: NDArray[np.bool_] = np.stack([best == k for k in range(len(probabilities))])
    return masks


def near_largest(
    probabilities: NDArray[np.float32],
    affine: Floats,
    masks: NDArray[np.bool_] | None = None,
    reach_mm: float = REACH_MM,
) -> NDArray[np.float32]:
    """Set probabilities to 0 that are far from the largest component of their region.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions; they are not changed.
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    masks : ndarray of bool, shape (K, X, Y, Z), optional
        Voxels of the regions; by default those of `most_probable`.
    reach_mm : float
        Largest distance between voxel centres that counts as near.

    Returns
    -------
    ndarray of float32, shape (K, X, Y, Z)
        All 0 for a region without a voxel.
    """
    masks = most_probable(probabilities) if masks is None else masks
    edges = voxel_sizes(affine)
    margin = np.ceil(reach_mm / edges).astype(int)
    kept = np.zeros_like(probabilities)
    for part, mask, output in zip(probabilities, masks, kept, strict=True):
        numbered, number = ndimage.label(mask)
        if not number:
            continue
        largest = int(np.bincount(numbered.ravel())[1:].argmax()) + 1
        found = ndimage.find_objects(numbered, max_label=largest)[largest - 1]
        box = tuple(
            slice(max(axis.start - m, 0), axis.stop + m)
            for axis, m in zip(found, margin, strict=True)
        )
        away = ndimage.distance_transform_edt(numbered[box] != largest, sampling=edges)
        output[box] = np.where(away <= reach_mm, part[box], 0)
    return kept


def soft_volumes(
    probabilities: NDArray[np.float32], affine: Floats, masks: NDArray[np.bool_] | None = None
) -> tuple[float, ...]:
    """Measure the volume of each region as the sum of its probabilities.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions.
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    masks : ndarray of bool, shape (K, X, Y, Z), optional
        Voxels of the regions; by default those of `most_probable`.

    Returns
    -------
    tuple of K float
        Cubic millimetres; 0 for a region without a voxel. The volume of several regions together
        is their sum.
    """
    voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    kept = near_largest(probabilities, affine, masks)
    return tuple(float(part.sum(dtype=np.float64)) * voxel_mm3 for part in kept)
