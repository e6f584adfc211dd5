"""The z-score of nnU-Net v1, rounded as there.

The last bit of the mean can decide the class of a voxel. NumPy 1 (as of 1.26.4) summed float32 in
blocks of 8192 elements, pairwise within a block. NumPy 2 sums pairwise throughout, and its mean of
a large image differs by up to 1e-6 (relative).
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
        Contiguous in memory, with axes in any order; they are summed in this order.
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
