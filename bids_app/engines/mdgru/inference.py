"""MD-GRU inference: two whitened channels, overlapping windows, weighted averages."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bids_app.engines.mdgru.network import MDGRU

LOG = logging.getLogger(__name__)
Box = tuple[slice, slice, slice]
SIGMA_MM = 5.0  # of the low-pass filter that is subtracted for the second channel


@dataclass(frozen=True, eq=False)
class Channels:
    """The network's input for one image.

    Attributes
    ----------
    data : ndarray of float32, shape (X, Y, Z, 2)
        The image, and the high-pass filtered image; each with mean 0 and standard deviation 1.
    outside : ndarray of float32, shape (2,)
        Value of 0 after whitening, which fills windows outside the image.
    """

    data: NDArray[np.float32]
    outside: NDArray[np.float32]


def whiten(image: NDArray[np.float32], spacing: Sequence[float]) -> Channels:
    """Compute the network's input for an image.

    Parameters
    ----------
    image : ndarray of float32, shape (X, Y, Z)
        It is not changed.
    spacing : sequence of three floats
        Voxel size in mm along x, y, z.
    """
    smooth = ndimage.gaussian_filter(image, [SIGMA_MM / edge for edge in spacing])
    data = np.stack([image, image - smooth], axis=-1)
    mean = data.mean(axis=(0, 1, 2), dtype=np.float64)
    deviation = data.std(axis=(0, 1, 2), dtype=np.float64)
    data -= mean.astype(np.float32)
    data /= deviation.astype(np.float32)
    return Channels(data, (-mean / deviation).astype(np.float32))


def window_starts(size: int, window: int, padding: int) -> list[int]:
    """First voxels of the windows along an axis; the outer ones extend beyond the image.

    Parameters
    ----------
    size : int
        Voxels of the image along the axis.
    window : int
        Voxels of a window.
    padding : int
        Overlap of windows in voxels.
    """
    step = window - padding
    return [step * i - padding for i in range(math.ceil((size + padding) / step))]


def taper(window: int, padding: int) -> NDArray[np.float32]:
    """Weight of a window's voxels along an axis: 1 inside, decreasing over the overlap."""
    weights = np.ones(window, dtype=np.float32)
    if padding:
        ramp = np.arange(1 / padding, 1, 1 / (padding + 1), dtype=np.float32)
        weights[:padding] = ramp
        weights[window - padding :] = ramp[::-1]
    return weights


@torch.inference_mode()
def predict(
    network: MDGRU,
    channels: Channels,
    window: Sequence[int],
    padding: Sequence[int],
    *,
    device: torch.device,
    batch: int = 1,
    box: Box | None = None,
    progress: Callable[[float, int], object] = lambda _share, _total: None,
) -> NDArray[np.float32]:
    """Compute the class probabilities of an image.

    Parameters
    ----------
    network : MDGRU
        On `device`.
    channels : Channels
        Of the image.
    window, padding : sequence of three ints
        Size and overlap of the windows along x, y, z, in voxels.
    device : torch.device
        Of the network.
    batch : int
        Windows to process at once; reduced to 1 if the device runs out of memory.
    box : tuple of three slices, optional
        Part of the image to segment; all of it by default. Windows that do not touch it are
        skipped, which changes nothing within it.
    progress : callable, optional
        Called with the number of windows done since the last call (a fraction) and the total
        number.

    Returns
    -------
    ndarray of float32, shape (classes, x, y, z)
        Within `box`.
    """
    shape = channels.data.shape[:3]
    parts = box or tuple(slice(0, size) for size in shape)
    axes = [
        [first for first in window_starts(size, w, p) if part.start - w < first < part.stop]
        for size, w, p, part in zip(shape, window, padding, parts, strict=True)
    ]
    x, y, z = (taper(w, p) for w, p in zip(window, padding, strict=True))
    weights = torch.from_numpy(x[:, None, None] * y[:, None] * z)
    size = [part.stop - part.start for part in parts]
    total = torch.zeros((*size, network.classes))
    number = math.prod(map(len, axes))
    windows = list(itertools.product(*axes))
    some: list[tuple[int, ...]] = []

    def report(share: float) -> None:
        progress(share * len(some), number)

    done = 0
    while done < number:
        some = windows[done : done + batch]
        data = torch.from_numpy(np.stack([_cut(channels, starts, window) for starts in some]))
        try:
            found = network(data.to(device), report).cpu()
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            LOG.warning("%s is out of memory; windows are processed one at a time", device)
            batch = 1
            continue
        for starts, probabilities in zip(some, found, strict=True):
            there, here = _overlap(starts, window, parts)
            total[*there] += (probabilities * weights[..., None])[*here]
        done += len(some)
    total /= total.sum(-1, keepdim=True)
    return total.permute(3, 0, 1, 2).contiguous().numpy()


def _cut(channels: Channels, starts: Sequence[int], window: Sequence[int]) -> NDArray[np.float32]:
    """Cut a window, shape (*window, 2), filled outside the image."""
    cut = np.empty((*window, channels.data.shape[3]), dtype=np.float32)
    cut[...] = channels.outside
    inside, place = _overlap(starts, window, [slice(0, n) for n in channels.data.shape[:3]])
    cut[*place] = channels.data[*inside]
    return cut


def _overlap(
    starts: Sequence[int], window: Sequence[int], box: Sequence[slice]
) -> tuple[list[slice], list[slice]]:
    """Overlap of a window and a box, as slices relative to the box and to the window."""
    in_box, in_window = [], []
    for start, size, part in zip(starts, window, box, strict=True):
        first, end = max(start, part.start), min(start + size, part.stop)
        in_box.append(slice(first - part.start, end - part.start))
        in_window.append(slice(first - start, end - start))
    return in_box, in_window
