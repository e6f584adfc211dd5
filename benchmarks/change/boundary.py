"""Boundary shift: volumes from the intensities of a fixed band at the border with CSF.

After Freeborough and Fox 1997 (doi 10.1109/42.640753), with a share of tissue in place of their
window of intensities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOW, HIGH = 0.15, 0.85  # shares of tissue that count as none and as all
BAND = 2  # voxels on either side of the border
FLUID = 0.6  # of the tissue's intensity, below which a voxel is CSF
REACH = 3.5  # voxels from CSF, in which the band counts
LOCAL = 4.0  # standard deviation in voxels, over which intensities are averaged


def boundary_volumes(
    images: NDArray[np.float32], probabilities: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Measure the band of each region in several scans.

    Parameters
    ----------
    images : ndarray of float32, shape (N, X, Y, Z)
        Scans of one head in one frame, with matched intensities.
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions, the mean over the scans.

    Returns
    -------
    ndarray, shape (N, K)
        Voxels of tissue in the band. Only differences between scans are meaningful.
    """
    stem, mean = probabilities.sum(axis=0), images.mean(axis=0)
    inner = ndimage.binary_erosion(stem > 0.5, iterations=BAND)
    outer = ndimage.binary_dilation(stem > 0.5, iterations=BAND)

    def local(where: NDArray[np.bool_]) -> NDArray[np.float64]:
        weight = ndimage.gaussian_filter(where.astype(np.float64), LOCAL)
        total = ndimage.gaussian_filter(mean.astype(np.float64) * where, LOCAL)
        return np.asarray(total / np.maximum(weight, 1e-6))

    tissue = local(inner & (stem > 0.95))
    ring = ndimage.binary_dilation(stem > 0.5, iterations=2 * BAND) & (stem < 0.2)
    dark = ring & (mean < FLUID * tissue)
    fluid = local(dark)
    band = outer & ~inner & (ndimage.distance_transform_edt(~dark) <= REACH)
    shares = np.stack([ndimage.gaussian_filter(part, 2.0) for part in probabilities])
    shares = shares * band / np.maximum(shares.sum(axis=0), 1e-6)
    parts = (images - fluid) / np.maximum(tissue - fluid, 1e-6)
    filled = np.clip((parts - LOW) / (HIGH - LOW), 0, 1)
    return np.einsum("nxyz,kxyz->nk", filled, shares)  # type: ignore[no-any-return]
