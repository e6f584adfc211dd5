"""Field of view, slices and grey window of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SIDE_MM = 90.0  # of a frame; an adult brainstem is about 70 mm high
SEARCH_MM = 104.0  # of a frame without a map
SLICES = 7  # shown across each axis
MARGIN_MM = 10.0  # margin around a large map
LEAST_STEP_MM = 2.0  # between neighbouring slices of a small map
VERTEX_TO_PONS_MM = 110.0  # used without a map
WINDOW_MM = 60.0  # side of the cube whose values set the grey window
HEADROOM = 1.3  # end of the grey window, as a multiple of white matter


@dataclass(frozen=True)
class Frame:
    """Field of view of a picture, a cube; in voxels of the image unless another unit is given.

    Attributes
    ----------
    centre : ndarray of float, shape (3,)
        Centre of the frame.
    side_mm : float
        Length of its edges.
    extent_mm : ndarray of float, shape (3,)
        Extent of what is shown along each axis.
    slices : tuple of three int sequences
        Planes to show across x, y and z.
    """

    centre: NDArray[np.float64]
    side_mm: float
    extent_mm: NDArray[np.float64]
    slices: tuple[tuple[int, ...], ...]


def choose_frame(data: Floats, labels: NDArray[np.uint8], size: NDArray[np.float64]) -> Frame:
    """Frame a label map, or if it is empty, the expected place of the brainstem."""
    places = np.flatnonzero(labels)
    return frame_map(places, labels.shape, size) if places.size else frame_head(data, size)


def frame_map(places: NDArray[np.intp], shape: tuple[int, ...], size: NDArray[np.float64]) -> Frame:
    """Frame a label map; a few stray voxels far away do not move the frame.

    `places` are the flat indices of the labelled voxels in an array of this `shape`.
    """
    low, high = np.percentile(np.stack(np.unravel_index(places, shape)), (1, 99), axis=1)
    extent = (high - low + 1) * size
    side = max(SIDE_MM, float(extent.max()) + 2 * MARGIN_MM)
    slices = _slices((low + high) / 2, extent, shape, size)
    return Frame((low + high) / 2, side, extent, slices)


def frame_head(data: Floats, size: NDArray[np.float64]) -> Frame:
    """Frame the expected place of the brainstem: in the middle, well below the vertex."""
    step = [max(1, round(3.0 / edge)) for edge in size]
    coarse = data[:: step[0], :: step[1], :: step[2]]
    threshold = coarse.min() + 0.15 * (np.percentile(coarse, 98) - coarse.min())
    low, high = np.percentile(np.stack(np.nonzero(coarse >= threshold)), (1, 99), axis=1) * step
    centre = (low + high) / 2
    centre[2] = np.clip(high[2] - VERTEX_TO_PONS_MM / size[2], low[2], centre[2])
    extent = np.full(3, 40.0)
    return Frame(centre, SEARCH_MM, extent, _slices(centre, extent, data.shape, size))


def _slices(
    centre: NDArray[np.float64],
    extent_mm: NDArray[np.float64],
    shape: tuple[int, ...],
    size: NDArray[np.float64],
) -> tuple[tuple[int, ...], ...]:
    """Choose evenly spaced planes across each axis, the middle one through the centre."""
    chosen = []
    for axis in range(3):
        step = max(extent_mm[axis] / SLICES, LEAST_STEP_MM, size[axis]) / size[axis]
        offsets = np.arange(SLICES) - SLICES // 2
        planes = np.rint(centre[axis] + step * offsets).astype(int)
        chosen.append(tuple(int(i) for i in np.clip(planes, 0, shape[axis] - 1)))
    return tuple(chosen)


def grey_window(data: Floats, frame: Frame, size: NDArray[np.float64]) -> tuple[float, float]:
    """Find the values shown black and white, from the middle of the frame.

    There white matter is at least a tenth, and fat and vessels, which may be much brighter, are
    less than a tenth.
    """
    half = WINDOW_MM / 2 / size
    start = np.maximum(np.floor(frame.centre - half), 0).astype(int)
    stop = np.ceil(frame.centre + half).astype(int) + 1
    low, white = (float(v) for v in np.percentile(data[tuple(map(slice, start, stop))], (1, 90)))
    return low, low + max(HEADROOM * (white - low), 1e-6 * max(1.0, abs(low)))
