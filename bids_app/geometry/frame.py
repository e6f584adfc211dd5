"""The canonical frame: a grid that is fixed to the brainstem, and sampling into and out of it.

An image that is segmented on this grid gives the same volumes however the head was turned and
whatever its voxels were, because the network always sees the brainstem in one pose and position.
The grid has `EDGE` voxels of `STEP_MM` along each axis. Its first axis runs to the participant's
right along the normal of the midsagittal plane, which lies halfway between two planes of voxels.
`bids_app.geometry.pose` defines the other axes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from scipy import ndimage, special

from bids_app.geometry.boxes import bounding_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_app.geometry.boxes import Box
    from bids_app.geometry.pose import Pose

    Floats = NDArray[np.float64]

EDGE = 96
STEP_MM = 1.0
MIDDLE = (EDGE - 1) / 2  # index of the midsagittal plane along the first axis, and of the centre
LOW_PASS_MM = 0.5  # standard deviation of the Gaussian before sampling
_SPLINE_MARGIN = 8  # voxels around a crop; the spline filter forgets its border within them


@dataclass(frozen=True, eq=False)
class Frame:
    """A canonical frame in the space of one image.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        Voxel indices of the frame to RAS+ millimetres. Axes: right, front, up.
    """

    affine: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return (EDGE, EDGE, EDGE)


@dataclass(frozen=True, eq=False)
class Sampled:
    """An image sampled in a frame.

    Attributes
    ----------
    data : ndarray of float32, shape (EDGE, EDGE, EDGE)
        Axes right, front, up; 0 outside the image's field of view.
    inside : ndarray of bool, same shape
        Voxels whose centres lie in the field of view.
    """

    data: NDArray[np.float32]
    inside: NDArray[np.bool_]

    def normalized(self) -> NDArray[np.float32]:
        """Scale the image as nnU-Net's preprocessing does, for a network that takes the frame.

        Returns
        -------
        ndarray of float32, shape (EDGE, EDGE, EDGE)
            In the box of the non-zero voxels: mean 0 and standard deviation 1 over the field of
            view. Outside of either: 0.
        """
        seen = np.zeros_like(self.inside)
        box = bounding_box(self.data != 0)
        seen[box] = self.inside[box]
        values = self.data[seen]
        if not values.size:
            return np.zeros_like(self.data)
        mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        scaled = (self.data - np.float32(mean)) / np.float32(max(deviation, 1e-8))
        return np.where(seen, scaled, np.float32(0))


def make_frame(pose: Pose) -> Frame:
    """Place the canonical frame on a brainstem: its centre in the middle, its axes along the grid.

    Parameters
    ----------
    pose : Pose

    Returns
    -------
    Frame
    """
    matrix = pose.axes * STEP_MM
    return Frame(from_matvec(matrix, pose.centre - matrix @ np.full(3, MIDDLE)))


def sample(data: NDArray[np.float32], affine: Floats, frame: Frame) -> Sampled:
    """Sample an image in a frame by cubic splines, once and from its own voxels.

    A Gaussian of `LOW_PASS_MM` first takes away what the frame's voxels cannot hold, and makes
    images of one head with fine and coarse voxels more alike. It does not depend on the voxels:
    their size says little of the resolution of an image that was interpolated, as many are.
    Voxels that are exactly 0 in the image, such as the surroundings of a skull-stripped head, stay
    0, and values stay in the image's range.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        In any voxel order; it is not changed.
    affine : ndarray, shape (4, 4)
        Voxel indices of `data` to RAS+ millimetres; may be oblique, sheared or left-handed.
    frame : Frame

    Returns
    -------
    Sampled
    """
    to_image = np.linalg.inv(affine) @ frame.affine
    inside = _inside(to_image, frame.shape, data.shape)
    drawn = np.zeros(frame.shape, np.float32)
    if not inside.any():
        return Sampled(drawn, inside)
    box = _image_box(to_image, frame.shape, data.shape, _SPLINE_MARGIN)
    to_box = to_image.copy()
    to_box[:3, 3] -= [part.start for part in box]
    crop = data[box]
    low, high = crop.min(), crop.max()
    matrix, offset = to_box[:3, :3], to_box[:3, 3]
    smooth = _low_pass(crop, LOW_PASS_MM / voxel_sizes(affine))
    spline = ndimage.spline_filter(smooth, order=3, output=np.float32, mode="mirror")
    ndimage.affine_transform(
        spline, matrix, offset, output=drawn, order=3, mode="mirror", prefilter=False
    )
    np.clip(drawn, low, high, out=drawn)
    if (empty := crop == 0).any():
        kept = ndimage.affine_transform(
            (~empty).view(np.uint8), matrix, offset, frame.shape, order=0, mode="nearest"
        )
        drawn[kept == 0] = 0
    drawn[~inside] = 0
    return Sampled(drawn, inside)


def to_grid(
    probabilities: NDArray[np.float32],
    frame: Frame,
    affine: Floats,
    shape: tuple[int, ...],
    *,
    least: float = 1e-3,
) -> tuple[NDArray[np.float32], Box]:
    """Bring probabilities from a frame back to an image's grid by linear interpolation.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, EDGE, EDGE, EDGE)
        Of K regions, without the background.
    frame : Frame
    affine : ndarray, shape (4, 4)
        Voxel indices of the image to RAS+ millimetres.
    shape : tuple of three int
        Of the image.
    least : float
        Sums of probabilities below this count as 0, which keeps the box small.

    Returns
    -------
    maps : ndarray of float32, shape (K, x, y, z)
        Without a voxel where no probability reaches `least`.
    box : tuple of three slices
        Part of the image's grid that `maps` covers; they are 0 elsewhere.
    """
    to_image = np.linalg.inv(affine) @ frame.affine
    places = np.argwhere(probabilities.sum(axis=0) >= least)
    nothing = slice(0, 0)
    box = (nothing, nothing, nothing)
    if len(places):
        first, last = places.min(axis=0) - 1, places.max(axis=0) + 1
        shifted = to_image @ from_matvec(np.eye(3), first)
        box = _image_box(shifted, tuple(last - first + 1), shape, 1)
    size = tuple(part.stop - part.start for part in box)
    maps = np.zeros((len(probabilities), *size), np.float32)
    if maps.size:
        to_frame = np.linalg.inv(to_image) @ from_matvec(np.eye(3), [p.start for p in box])
        for part, output in zip(probabilities, maps, strict=True):
            ndimage.affine_transform(
                part, to_frame[:3, :3], to_frame[:3, 3], output=output, order=1, mode="constant"
            )
    return maps, box


def to_frame(
    probabilities: NDArray[np.float32], affine: Floats, frame: Frame
) -> NDArray[np.float32]:
    """Bring probabilities from an image's grid to a frame by linear interpolation.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions; they count as 0 outside their grid.
    affine : ndarray, shape (4, 4)
        Voxel indices of `probabilities` to RAS+ millimetres.
    frame : Frame

    Returns
    -------
    ndarray of float32, shape (K, EDGE, EDGE, EDGE)
    """
    to_image = np.linalg.inv(affine) @ frame.affine
    maps = np.zeros((len(probabilities), *frame.shape), np.float32)
    for part, output in zip(probabilities, maps, strict=True):
        ndimage.affine_transform(
            part, to_image[:3, :3], to_image[:3, 3], output=output, order=1, mode="constant"
        )
    return maps


def _low_pass(data: NDArray[np.float32], sigma: Floats) -> NDArray[np.float32]:
    """Smooth by the discrete Gaussian of Lindeberg (1990), whose variance is true at any width.

    A Gaussian that is sampled at voxels hardly smooths where it is narrower than half of one.
    """
    for axis, width in enumerate(sigma):
        offsets = np.arange(-math.ceil(4 * width) - 1, math.ceil(4 * width) + 2)
        weights = special.ive(offsets, width**2)
        data = ndimage.correlate1d(data, weights / weights.sum(), axis, mode="reflect")
    return data


def _image_box(
    to_image: Floats, shape: tuple[int, ...], image_shape: tuple[int, ...], margin: int
) -> Box:
    """Part of an image that holds a grid of a shape, whose voxels `to_image` takes there."""
    corners = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in shape))))
    there = apply_affine(to_image, corners)
    first = np.floor(there.min(axis=0)).astype(int) - margin
    last = np.ceil(there.max(axis=0)).astype(int) + margin + 1
    x, y, z = (
        slice(min(max(int(a), 0), n), min(max(int(b), 0), n))
        for a, b, n in zip(first, last, image_shape, strict=True)
    )
    return x, y, z


def _inside(
    to_image: Floats, shape: tuple[int, int, int], image_shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Mark voxels of a grid whose centres lie within the outer faces of an image's voxels."""
    inside = np.ones(shape, bool)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    for row, size in zip(to_image[:3], image_shape, strict=True):
        place: Any = sum(axis * step for axis, step in zip(axes, row, strict=False)) + row[3]
        inside &= (place >= -0.5) & (place <= size - 0.5)
    return inside
