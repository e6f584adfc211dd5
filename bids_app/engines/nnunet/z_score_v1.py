"""The z-score of nnU-Net v1, rounded as there.

A voxel between two classes can hang on the last bit of the mean. NumPy summed float32 in blocks of
8192 elements, pairwise within a block, when nnU-Net v1 was current (seen in 1.26.4); newer ones sum
pairwise throughout, and their mean of a large image differs by up to 1e-6 of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 8192  # elements, NumPy 1's buffer


def z_score(image: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Normalise an image to mean 0 and standard deviation 1.

    Parameters
    ----------
    image : ndarray of float32, shape (z, y, x)
        Compact in memory, in any order of its axes, which is that of the sum.
    inside : ndarray of bool, shape (z, y, x), optional
        Voxels that count; the others become 0.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
    """
    counted = image.ravel(order="K") if inside is None else image[inside]
    mean = _mean(counted)
    spread = np.sqrt(_mean(np.square(counted - mean)))
    scored = (image - mean) / np.float32(float(spread) + 1e-8)
    return scored if inside is None else np.where(inside, scored, np.float32(0))


def _mean(values: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for start in range(0, values.size, BLOCK):
        total += values[start : start + BLOCK].sum()
    return np.float32(total / np.float32(values.size))
