"""The part of an image around the brainstem that a page carries for its viewer.

A cut-out is a NIfTI file of two volumes: the image, in `LEVELS` greys, and the label map. It holds
no more of the head than the brainstem and `MARGIN_MM` around it, hence no face, and keeps the
image's own grid and affine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from bids_app.io.images import nifti_bytes
from bids_app.reports.images.framing import choose_frame, grey_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_app.io.images import Volume

MARGIN_MM = 15.0  # around the label map
LEVELS = 128  # greys; with half of them a quarter of the bytes is saved, and bands show
WHITE = 96  # grey that the pictures' window shows white; a reader may brighten or darken from there
MOST_VOXELS = 4_000_000  # a grid of 0.5 mm; of a finer one every second voxel is taken


def cut_out(volume: Volume, labels: NDArray[np.uint8]) -> bytes:
    """Cut the brainstem out of an image and its label map.

    Parameters
    ----------
    volume : Volume
        The image.
    labels : ndarray of uint8, shape (X, Y, Z)
        Label map on the grid of `volume.data`. Around an empty map the place where a brainstem
        should be is cut out.

    Returns
    -------
    bytes
        Gzip-compressed NIfTI-1 of uint8, shape (x, y, z, 2). The same arguments give the same.
    """
    size = np.asarray(volume.voxel_size)
    view = choose_frame(volume.data, labels, size)
    half = (view.extent_mm / 2 + MARGIN_MM) / size
    shape = np.array(labels.shape)
    start = np.clip(np.floor(view.centre - half), 0, shape - 1).astype(int)
    stop = np.clip(np.ceil(view.centre + half) + 1, start + 1, shape).astype(int)
    step = 1
    while np.prod(-(-(stop - start) // step)) > MOST_VOXELS:
        step += 1
    box = tuple(slice(a, b, step) for a, b in zip(start, stop, strict=True))
    low, high = grey_window(volume.data, view, size)
    greys = np.rint((volume.data[box] - low) * (WHITE / (high - low)))
    greys = np.clip(greys, 0, LEVELS - 1).astype(np.uint8)
    affine = volume.affine @ np.array([
        [step, 0, 0, start[0]], [0, step, 0, start[1]], [0, 0, step, start[2]], [0, 0, 0, 1],
    ])  # fmt: skip
    image = nib.Nifti1Image(np.stack([greys, labels[box]], axis=-1), affine)
    image.header["vox_offset"] = image.header.single_vox_offset
    return nifti_bytes(image, compress=True)
