"""nnU-Net's resampling as one matrix per axis: the same up to rounding, several times as fast.

Spline interpolation is linear and separable. Along an axis of n voxels it is a matrix, whose
columns are the interpolations of the n unit vectors. They are computed with the function of scipy
that nnU-Net uses through scikit-image.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def resample(
    data: NDArray[np.float32],
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    **options: Any,
) -> NDArray[np.float32]:
    """Resample channels as nnunetv2's ``resample_data_or_seg_to_shape`` does.

    Label maps and images with thick slices are passed to that function.

    Parameters
    ----------
    data : ndarray of float32, shape (C, z, y, x)
        It is not changed.
    new_shape : sequence of three ints
    current_spacing, new_spacing : sequence of three floats
        In mm; only used to detect thick slices.
    **options
        As in plans.

    Returns
    -------
    ndarray of float32, shape (C, *new_shape)
        Within the range of each channel.
    """
    thick, _ = determine_do_sep_z_and_axis(
        options.get("force_separate_z", False), current_spacing, new_spacing
    )
    if options.get("is_seg", False) or thick or not np.isfinite(data).all():
        resampled: NDArray[np.float32] = resample_data_or_seg_to_shape(
            data, new_shape, current_spacing, new_spacing, **options
        )
        return resampled
    z, y, x = (
        torch.from_numpy(_matrix(old, int(new), options.get("order", 3)))
        for old, new in zip(data.shape[1:], new_shape, strict=True)
    )
    output = np.empty((len(data), *map(int, new_shape)), dtype=data.dtype)
    for channel, place in zip(data, output, strict=True):
        values = torch.from_numpy(channel.astype(np.float64, order="C"))
        low, high = values.min(), values.max()
        values = y @ (values @ x.T)
        values = (z @ values.flatten(1)).reshape(place.shape)
        place[...] = values.clamp_(low, high).numpy()
    return output


@lru_cache(maxsize=32)
def _matrix(old: int, new: int, order: Any) -> NDArray[np.float64]:
    """Interpolation matrix from `old` to `new` voxels along an axis, shape (new, old)."""
    columns = [
        ndimage.zoom(voxel, 1 / (old / new), order=order, mode="nearest", grid_mode=True)
        for voxel in np.eye(old)
    ]
    return np.ascontiguousarray(np.stack(columns, axis=1))
