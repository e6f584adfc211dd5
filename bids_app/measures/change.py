"""Change of regions between scans of one head, from the deformation of their mean image.

The Jacobian of the deformation that leads from the mean image to each scan is integrated over the
mean probabilities of a region (doi 10.1117/1.JMI.3.1.014005 examines the errors of this). Each scan
gets a volume, and a change is a difference of two volumes. Exchanging two scans therefore changes
the sign and nothing else, and the changes between three scans add up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Images = NDArray[np.float32]

MARGIN = 6  # voxels around the brainstem that are registered
SMOOTHING = 1.5  # standard deviation in voxels, of the displacement after each step
STEPS = 25
_LEAST, _MOST = 0.05, 0.9  # probability of the brainstem at its border, and in its inside
_LEVEL = 100.0  # intensity of the brainstem's inside during registration


def deformed_volumes(images: Images, probabilities: Images) -> Floats:
    """Measure regions in several scans by the deformation of their mean image.

    Parameters
    ----------
    images : ndarray of float32, shape (N, X, Y, Z)
        Scans of one head in one frame, with matched intensities (`bids_app.geometry.middle`).
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        Of K regions, the mean over the scans.

    Returns
    -------
    ndarray, shape (N, K)
        In voxels. Only differences between the scans of one call are meaningful.

    Raises
    ------
    ValueError
        There is no brainstem.
    """
    stem = probabilities.sum(axis=0)
    places = np.argwhere(stem > _LEAST)
    if not len(places) or not (inner := stem > _MOST).any():
        raise ValueError("the probabilities show no brainstem")
    low = np.maximum(places.min(axis=0) - MARGIN, 0)
    high = places.max(axis=0) + MARGIN + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    shown = np.stack([image[box] / np.median(image[inner]) for image in images]) * _LEVEL
    regions = probabilities[(slice(None), *box)].astype(np.float64)
    mean = shown.mean(axis=0)
    return np.stack(
        [np.tensordot(regions, _jacobian(_displacement(mean, image)), axes=3) for image in shown]
    )


def _displacement(fixed: Images, moving: Images) -> Floats:
    """Register by demons with symmetric forces; in voxels, shape (X, Y, Z, 3).

    Vercauteren et al. 2009, doi 10.1016/j.neuroimage.2008.10.040.
    """
    sitk: Any = import_module("SimpleITK")  # takes a second, and has no types

    demons = sitk.SymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(STEPS)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(SMOOTHING)
    demons.SetNumberOfThreads(1)  # the same sums, and so the same bytes, everywhere
    # SimpleITK's arrays have the axes z, y, x.
    images = [sitk.GetImageFromArray(np.asarray(i, np.float32).T) for i in (fixed, moving)]
    field = sitk.GetArrayFromImage(demons.Execute(*images))
    return np.asarray(field.transpose(2, 1, 0, 3), dtype=np.float64)


def _jacobian(displacement: Floats) -> Floats:
    """Factor by which volume changes at each voxel, shape (X, Y, Z)."""
    slopes = [np.gradient(displacement[..., axis]) for axis in range(3)]
    matrix = np.moveaxis(np.array(slopes), (0, 1), (-2, -1)) + np.eye(3)
    return np.asarray(np.linalg.det(matrix))
