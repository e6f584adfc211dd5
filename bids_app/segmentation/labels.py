"""From probabilities of regions to the voxels of each region."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def most_probable(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Find the most probable region of each voxel.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions; the background has what is left to 1.

    Returns
    -------
    ndarray of uint8, shape (X, Y, Z)
        1 for the first region, K for the last, and 0 for the background. Of equal classes the
        background wins, then the first region.
    """
    highest = 1 - probabilities.sum(axis=0)
    best = np.zeros(highest.shape, np.uint8)
    for number, part in enumerate(probabilities, start=1):
        better = part > highest
        best[better] = number
        np.maximum(highest, part, out=highest)
    return best
