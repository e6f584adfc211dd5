"""A brainstem of plain shapes whose every measure is known, drawn on any grid."""

from __future__ import annotations

from functools import cache

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from bids_app.regions import region

REGIONS = (region(1, "midbrain"), region(2, "pons"), region(3, "medulla"))
HEAD_TURN = Rotation.from_euler("zyx", (14, -9, 12), degrees=True).as_matrix()
_GRID_TURN = Rotation.from_euler("xyz", (20, -35, 70), degrees=True).as_matrix()
GRIDS = {
    "fine": np.diag([0.9, 0.9, 0.9]),
    "uneven": np.diag([-1.0, 1.3, 1.5]),
    "oblique": _GRID_TURN @ np.diag([0.9, 1.2, 1.0]),
}
CENTRE = np.array([3.0, -2, 5])  # of the pons, in mm
# Elliptic cylinders, one over the other: half widths across and front to back, bottom, top.
PARTS = {1: (16.0, 9.0, 12.0, 27.0), 2: (17.0, 12.0, -13.0, 12.0), 3: (8.0, 6.0, -41.0, -13.0)}


def draw(grid, function, half_mm):
    """Draw a label map: `function` gives labels for places in mm, shape (..., 3)."""
    matrix = GRIDS[grid]
    shape = np.ceil(2 * half_mm / np.linalg.norm(matrix, axis=0)).astype(int)
    affine = nib.affines.from_matvec(matrix, -matrix @ ((shape - 1) / 2))
    places = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    return function(places), affine


@cache
def made(grid, *, end=PARTS[3][2], absent=0):
    """Draw the made brainstem, turned by `HEAD_TURN` about the centre of its pons.

    Parameters
    ----------
    grid : str
        Of `GRIDS`.
    end : float
        Lower limit of the medulla.
    absent : int
        Label to leave out.

    Returns
    -------
    labels, affine : ndarray
        Do not change them.
    """

    def labels_at(places):
        own = (places - CENTRE) @ HEAD_TURN
        labels = np.zeros(places.shape[:-1], np.uint8)
        for label, (across, along, bottom, top) in PARTS.items():
            inside = (own[..., 0] / across) ** 2 + (own[..., 1] / along) ** 2 < 1
            inside &= (own[..., 2] > (end if label == 3 else bottom)) & (own[..., 2] <= top)
            labels[inside & (label != absent)] = label
        return labels

    return draw(grid, labels_at, half_mm=44)
