"""The part of an image around the brainstem, which a page contains for its viewer.

A cut-out is a NIfTI file of two volumes: the image, in `LEVELS` greys, and the label map. It has
only the brainstem and `MARGIN_MM` around it, so it shows no face. It keeps the image's own grid
and affine.
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
LEVELS = 128  # greys; 64 would save a quarter of the bytes but show bands
WHITE = 96  # grey that is white in the pictures; the viewer's brightness starts there
MOST_VOXELS = 4_000_000  # a grid of 0.5 mm; a finer one is reduced to every second voxel


def cut_out(volume: Volume, labels: NDArray[np.uint8]) -> bytes:
    """Cut the brainstem out of an image and its label map.

    Parameters
    ----------
    volume : Volume
        The image.
    labels : ndarray of uint8, shape (X, Y, Z)
        Label map on the grid of `volume.data`. If it is empty, the expected place of the
        brainstem is cut out.

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
