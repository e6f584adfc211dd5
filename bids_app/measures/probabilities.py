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

from bids_app.segmentation.labels import most_probable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

REACH_MM = 3.0  # from the largest component; within it fades the probability of a border


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
        Voxels of the regions; by default those where it is the most probable.
    reach_mm : float
        Largest distance between voxel centres that counts as near.

    Returns
    -------
    ndarray of float32, shape (K, X, Y, Z)
        All 0 for a region without a voxel.
    """
    if masks is None:
        best = most_probable(probabilities)
        masks = np.stack([best == k for k in range(1, len(probabilities) + 1)])
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


def sum_volumes(kept: NDArray[np.float32], affine: Floats) -> tuple[float, ...]:
    """Measure the volume of each region as the sum of its probabilities.

    Parameters
    ----------
    kept : ndarray of float32, shape (K, X, Y, Z)
        Probabilities of K regions from `near_largest`.
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.

    Returns
    -------
    tuple of K float
        Cubic millimetres. The volume of several regions together is their sum.
    """
    voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    return tuple(float(part.sum(dtype=np.float64)) * voxel_mm3 for part in kept)
