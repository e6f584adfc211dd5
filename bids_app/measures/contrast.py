"""What kind of contrast an image has, from what lies around the brainstem.

On T1-weighted images the cerebellum is darker than the brainstem; on FLAIR and T2-weighted images
it is brighter. On T2-weighted images, unlike FLAIR, fluid around the brainstem is brighter still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_app.geometry.frame import STEP_MM

if TYPE_CHECKING:
    from numpy.typing import NDArray

T1W, FLAIR, T2W = "T1w", "FLAIR", "T2w"
# 0.57 to 0.93 on 23 T1w images of training and validation, from 1.28 on on 2 FLAIR and 1 T2w.
MOST_CEREBELLUM = 1.1
# 1.01 to 1.11 and 1.19 to 1.21 on the same T1w and FLAIR images, 2.75 on the T2w image.
MOST_SURROUNDINGS = 2.0
# The cerebellum, from the centre of the pons: behind, to both sides, up and down.
_BEHIND_MM, _BESIDE_MM, _ABOVE_MM = (25.0, 50.0), 35.0, 15.0
_AROUND_MM = (1.5, 6.0)
_LEAST_VOXELS = 500


@dataclass(frozen=True)
class Contrast:
    """Intensities relative to the median of the brainstem; nan where too little is seen.

    Attributes
    ----------
    cerebellum : float
        Median of the cerebellum.
    surroundings : float
        90th percentile of what lies 1.5 to 6 mm around the brainstem.
    """

    cerebellum: float
    surroundings: float

    @property
    def looks_like(self) -> str | None:
        """``T1w``, ``FLAIR`` or ``T2w``, as BIDS names them; None where it cannot be known."""
        if self.surroundings > MOST_SURROUNDINGS:
            return T2W
        if np.isnan(self.cerebellum):
            return None
        return FLAIR if self.cerebellum > MOST_CEREBELLUM else T1W


def measure_contrast(
    image: NDArray[np.float32], pons: NDArray[np.bool_], brainstem: NDArray[np.bool_]
) -> Contrast:
    """Measure the contrast of an image in the canonical frame.

    Parameters
    ----------
    image : ndarray of float32, shape (X, Y, Z)
        Intensities in the canonical frame, axes right, front, up; voxels that are exactly 0 hold no
        image.
    pons, brainstem : ndarray of bool, shape (X, Y, Z)
        Their voxels.

    Returns
    -------
    Contrast
    """
    unknown = float("nan")
    seen = image != 0
    inner = image[brainstem & seen]
    if len(inner) < _LEAST_VOXELS or not pons.any():
        return Contrast(unknown, unknown)
    level = float(np.median(inner))
    if level <= 0:
        return Contrast(unknown, unknown)
    x, y, z = ndimage.center_of_mass(pons)
    across, front, up = np.ogrid[tuple(slice(n) for n in image.shape)]
    behind = (y - front) * STEP_MM
    cerebellum = (abs(across - x) * STEP_MM <= _BESIDE_MM) & (abs(up - z) * STEP_MM <= _ABOVE_MM)
    cerebellum = cerebellum & (behind >= _BEHIND_MM[0]) & (behind <= _BEHIND_MM[1])
    away = ndimage.distance_transform_edt(~brainstem, sampling=STEP_MM)
    around = (away >= _AROUND_MM[0]) & (away <= _AROUND_MM[1])
    there, beside = image[cerebellum & seen & ~brainstem], image[around & seen]
    return Contrast(
        float(np.median(there)) / level if len(there) >= _LEAST_VOXELS else unknown,
        float(np.percentile(beside, 90)) / level if len(beside) >= _LEAST_VOXELS else unknown,
    )
