"""Preprocessing of an image for a network, and resampling of the output to the image.

The steps are nnU-Net's (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z): crop to the non-zero
box, normalise, resample. Version 1 resamples before it normalises, and sets NaN to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from scipy import ndimage

from bids_app.engines.nnunet.z_score_v1 import z_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_app.engines.nnunet.plans import Plans

Mode = Literal["v1", "v2"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """One image on the network's grid, and what is needed to map results back.

    Attributes
    ----------
    data : ndarray of float32, shape (1, z', y', x')
        Network input, axes transposed as the plans say.
    box : tuple of three slices
        The non-zero box in the transposed image.
    shape : tuple of int
        Of the whole transposed image.
    spacing : tuple of float
        Voxel size of the transposed image in mm.
    transpose_backward : tuple of int
        Back to the image's axis order.
    """

    data: NDArray[np.float32]
    box: tuple[slice, slice, slice]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    transpose_backward: tuple[int, ...]

    @property
    def box_shape(self) -> tuple[int, ...]:
        """Voxels of the non-zero box along each transposed axis."""
        return tuple(part.stop - part.start for part in self.box)

    @property
    def scale(self) -> NDArray[np.float64]:
        """Voxel edges of the network's grid, in voxels of the transposed image; shape (3,)."""
        scale: NDArray[np.float64] = np.divide(self.box_shape, self.data.shape[1:])
        return scale

    @property
    def voxel_volume(self) -> float:
        """Volume in mm3 of a voxel of the network's grid, after rounding of its shape."""
        return math.prod(self.scale) * math.prod(self.spacing)

    def to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points from the network's grid to the image's.

        Voxel centres lie at whole numbers in both. The outer faces of the grids coincide.

        Parameters
        ----------
        points : ndarray, shape (N, 3)
            In voxels of the network's grid, transposed axes.

        Returns
        -------
        ndarray, shape (N, 3)
            In voxels of the image, in its own axis order.
        """
        start = np.array([part.start for part in self.box])
        inside: NDArray[np.float64] = (points + 0.5) * self.scale - 0.5 + start
        return inside[:, list(self.transpose_backward)]


def prepare(
    image: NDArray[np.float32], spacing: Sequence[float], plans: Plans, mode: Mode
) -> Prepared:
    """Crop an image to its non-zero box, normalise and resample it.

    Parameters
    ----------
    image : ndarray of float32, shape (z, y, x)
        It is not changed.
    spacing : sequence of three floats
        Voxel size in mm along z, y, x.
    plans : Plans
    mode : {"v1", "v2"}
        Order of the steps.
    """
    forward = plans.transpose_forward
    whole = np.array(image, dtype=np.float32, order="C").transpose(forward)
    spacing = tuple(spacing[axis] for axis in forward)
    box = nonzero_box(whole)
    data = whole[box][None]
    new_shape = tuple(int(n) for n in compute_new_shape(data.shape[1:], spacing, plans.spacing))
    outside = None
    if plans.within_nonzero:
        inside = ndimage.binary_fill_holes(data[0] != 0)
        outside = np.where(inside, np.int8(0), np.int8(-1))[None]
    if mode == "v2":
        data = plans.normalize.run(data[0], None if outside is None else outside[0])[None]
        if data.shape[1:] != new_shape:
            data = plans.resample_data(data, new_shape, spacing, plans.spacing)
    else:
        data = data.copy(order="K")  # contiguous, as in version 1: affects the rounding of the mean
        data[np.isnan(data)] = 0
        if data.shape[1:] != new_shape:
            data = plans.resample_data(data, new_shape, spacing, plans.spacing)
            if outside is not None:
                outside = plans.resample_mask(outside, new_shape, spacing, plans.spacing)
        data = z_score(data[0], None if outside is None else outside[0] >= 0)[None]
    return Prepared(
        data=np.ascontiguousarray(data),
        box=box,
        shape=whole.shape,
        spacing=spacing,
        transpose_backward=plans.transpose_backward,
    )


def restore(
    output: NDArray[np.float32], prepared: Prepared, plans: Plans, mode: Mode, *, logits: bool
) -> NDArray[np.float32]:
    """Resample logits or probabilities to the image's grid, as probabilities.

    Parameters
    ----------
    output : ndarray of float32, shape (C, z', y', x')
        On the network's grid. It may be overwritten.
    prepared : Prepared
    plans : Plans
    mode : {"v1", "v2"}
    logits : bool
        `output` holds logits: softmax is applied after resampling, as in nnU-Net v2.

    Returns
    -------
    ndarray of float32, shape (C, z, y, x)
        Background is 1 outside the non-zero box.
    """
    if output.shape[1:] != prepared.box_shape:
        # An axis of thick slices is looked for in the first spacing, then in the second; version 1
        # passes the image's spacing first.
        spacings = (plans.spacing, prepared.spacing)
        output = plans.resample_probabilities(
            output, prepared.box_shape, *(spacings if mode == "v2" else reversed(spacings))
        )
    if logits:
        softmax_(output)
    if prepared.box_shape != prepared.shape:
        inside = output
        output = np.zeros((len(inside), *prepared.shape), dtype=np.float32)
        output[0] = 1
        output[:, *prepared.box] = inside
    return output.transpose(0, *(axis + 1 for axis in prepared.transpose_backward))


def softmax_(logits: NDArray[np.float32]) -> None:
    """Convert logits, shape (C, ...), to probabilities in place."""
    values = torch.from_numpy(logits)
    values -= values.amax(0)
    values.exp_()
    values /= values.sum(0)


def nonzero_box(image: NDArray[np.float32]) -> tuple[slice, slice, slice]:
    """Smallest box, as three slices, with all non-zero voxels; the whole image if all are 0.

    nnU-Net fills holes first, which never moves the box.
    """
    nonzero = image != 0
    if not nonzero.any():
        z, y, x = image.shape
        return slice(0, z), slice(0, y), slice(0, x)
    planes = nonzero.any(axis=0)
    ends = [
        np.flatnonzero(line)[[0, -1]]
        for line in (nonzero.any(axis=(1, 2)), planes.any(axis=1), planes.any(axis=0))
    ]
    z, y, x = (slice(int(first), int(last) + 1) for first, last in ends)
    return z, y, x
