"""Contrast and noise of an image in and around the brainstem, as its label map outlines it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

REACH_MM = 5.0  # around the brainstem that is looked at
_CORE_MM = 2.0  # from the border, where voxels hold no CSF
_RIM_MM = (1.0, 4.0)  # outside the border, where CSF is
_STEP_MM = 1.5  # to both sides of the border
_DARKER = 0.9  # of the intensity inside: what counts as darker
_LEAST_VOXELS = 30
_DARK_SHARE = 10.0  # per cent of the rim that is CSF for sure
_MAD_TO_SIGMA = 1.4826


class Contrast(NamedTuple):
    """What `measure_contrast` finds; nan where it cannot be told.

    Attributes
    ----------
    signal_to_noise : float
        Median inside over the noise inside.
    contrast_to_noise : float
        Median inside less CSF, over the noise inside.
    border_contrast : float
        Share of the border, 0 to 1, across which the image darkens outwards by a tenth.
    """

    signal_to_noise: float
    contrast_to_noise: float
    border_contrast: float


def measure_contrast(
    data: NDArray[np.float32], mask: NDArray[np.bool_], voxel_size: Sequence[float]
) -> Contrast:
    """Measure contrast and noise in a box around the brainstem.

    Noise is the robust standard deviation (from the median absolute deviation) of the pseudo-
    residuals, each voxel less the mean of its six neighbours times the root of 6/7 (Coupe et al.,
    2010, doi 10.1016/j.media.2010.03.001), over voxels well inside. CSF is the tenth percentile
    of the rim around the brainstem; zeros, as around stripped brains, do not count.

    Parameters
    ----------
    data : ndarray of float32, shape (x, y, z)
        Intensities, `REACH_MM` around the brainstem where the image reaches that far.
    mask : ndarray of bool, shape (x, y, z)
        The brainstem.
    voxel_size : sequence of three float
        Edges of a voxel in mm.
    """
    nan = float("nan")
    if not mask.any() or min(mask.shape) < 2:
        return Contrast(nan, nan, nan)
    inside = ndimage.distance_transform_edt(mask, sampling=voxel_size)
    outside = ndimage.distance_transform_edt(~mask, sampling=voxel_size)
    core = inside > _CORE_MM
    rim = data[(outside > _RIM_MM[0]) & (outside <= _RIM_MM[1]) & (data != 0)]
    signal_to_noise = contrast_to_noise = nan
    if np.count_nonzero(core) >= _LEAST_VOXELS and (noise := _noise(data, core)) > 0:
        signal = float(np.median(data[core]))
        signal_to_noise = signal / noise
        if rim.size >= _LEAST_VOXELS:
            contrast_to_noise = (signal - float(np.percentile(rim, _DARK_SHARE))) / noise
    return Contrast(
        signal_to_noise,
        contrast_to_noise,
        _border_contrast(data, (inside - outside).astype(np.float32), voxel_size),
    )


def _noise(data: NDArray[np.float32], core: NDArray[np.bool_]) -> float:
    """Robust standard deviation of the noise of voxels, from their differences to neighbours."""
    cross = ndimage.generate_binary_structure(3, 1).astype(np.float32) / 6
    cross[1, 1, 1] = -1
    residuals = np.sqrt(6 / 7) * ndimage.convolve(data, cross)[core]
    return float(_MAD_TO_SIGMA * np.median(np.abs(residuals - np.median(residuals))))


def _border_contrast(
    data: NDArray[np.float32], depth: NDArray[np.float32], voxel_size: Sequence[float]
) -> float:
    """Share of the border across which the image darkens; `depth` in mm is negative outside."""
    edges = np.asarray(voxel_size)
    depth = ndimage.gaussian_filter(depth, 1.0 / edges)
    places = np.argwhere(np.abs(depth) < edges.max() * 0.7)
    if len(places) < _LEAST_VOXELS:
        return float("nan")
    inwards = np.stack([slope[tuple(places.T)] for slope in np.gradient(depth, *edges)], axis=-1)
    inwards /= np.maximum(np.linalg.norm(inwards, axis=-1, keepdims=True), 1e-6)
    step = max(_STEP_MM, float(edges.max())) * inwards / edges
    within, beyond = (
        ndimage.map_coordinates(data, (places + sign * step).T, order=1, mode="nearest")
        for sign in (1, -1)
    )
    return float((beyond < _DARKER * within).mean())
