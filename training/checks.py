"""Measured checks of a head's labels; a head with a fault is not learned from.

The bounds are wide: they catch a registration that failed, not an unusual head.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine
from nibabel.processing import resample_from_to
from scipy import ndimage

from training.atlas import NAMES

if TYPE_CHECKING:
    import nibabel as nib
    from numpy.typing import NDArray

    from training.carry import SoftLabels

REGIONS = NAMES[:3]
VOLUME_ML = {"midbrain": (4.5, 13.0), "pons": (7.0, 21.0), "medulla": (2.5, 8.5)}
ASYMMETRY_MOST = 0.15  # of the share of voxels on either side; a bend of 1 mm makes about that
AGREEMENT_LEAST = 0.93  # Dice of the whole between two registrations, the worst pair
REGION_AGREEMENT_LEAST = 0.85
EDGE_LEAST = 0.6  # share of the outer border across which the image darkens outwards


def check_labels(labels: SoftLabels, image: nib.Nifti1Image | None) -> dict[str, Any]:
    """Measure the labels of a head.

    Parameters
    ----------
    labels : SoftLabels
        Labels of a head.
    image : nibabel image or None
        The head's T1w image; without one the border is not checked.

    Returns
    -------
    dict
        Volumes in ml (``midbrain_ml``, ...), ``agreement`` and ``region_agreement`` (Dice of the
        worst pair of registrations), ``asymmetry`` (of the worst region), ``edge`` (None without
        an image), ``ignored`` (share of the brainstem left out of the loss), ``faults`` (names of
        what is out of bounds).
    """
    hard = labels.hard
    ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
    volumes = {name: float((hard == k).sum() * ml) for k, name in enumerate(REGIONS, 1)}
    brainstem = np.isin(hard, (1, 2, 3))
    whole_runs = np.isin(labels.runs, (1, 2, 3))
    agreement = min(_dice(a, b) for a, b in combinations(whole_runs, 2))
    region_agreement = min(
        _dice(a == k, b == k) for a, b in combinations(labels.runs, 2) for k in (1, 2, 3)
    )
    present = [k for k in (1, 2, 3) if (hard == k).any()]
    heights = [
        labels.plane.height(apply_affine(labels.affine, np.argwhere(hard == k))).mean()
        for k in present
    ]
    asymmetry = max(_asymmetry(hard == k, brainstem, labels.affine) for k in present)
    edge = None if image is None else _edge(brainstem, hard, labels, image)
    faults = [f"{k}_volume" for k, v in volumes.items() if not _within(v, VOLUME_ML[k])]
    if heights != sorted(heights, reverse=True) or min(heights, default=0) < 0:
        faults.append("order")
    if asymmetry > ASYMMETRY_MOST:
        faults.append("asymmetry")
    if agreement < AGREEMENT_LEAST or region_agreement < REGION_AGREEMENT_LEAST:
        faults.append("agreement")
    if edge is not None and edge < EDGE_LEAST:
        faults.append("edge")
    if any(brainstem.take(end, axis).any() for axis in range(3) for end in (0, -1)):
        faults.append("cut_off")
    return {
        **{f"{name}_ml": round(volume, 3) for name, volume in volumes.items()},
        "agreement": round(agreement, 4),
        "region_agreement": round(region_agreement, 4),
        "asymmetry": round(asymmetry, 4),
        "edge": None if edge is None else round(edge, 4),
        "ignored": round(float(labels.ignore[brainstem].mean()), 4),
        "faults": faults,
    }


def _within(value: float, bounds: tuple[float, float]) -> bool:
    """Tell whether a value lies between two bounds."""
    return bounds[0] <= value <= bounds[1]


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient of two sets of voxels."""
    return float(2 * (a & b).sum() / max(int(a.sum() + b.sum()), 1))


def _asymmetry(
    region: NDArray[np.bool_], brainstem: NDArray[np.bool_], affine: NDArray[np.float64]
) -> float:
    """Compare the two sides of a region, parted by the middle plane of the brainstem.

    The middle plane is fitted to the centres of the rows of voxels that run from left to right.
    """
    mm = apply_affine(affine, np.argwhere(brainstem))
    across = np.column_stack([mm[:, 1:], np.ones(len(mm))])
    plane, *_ = np.linalg.lstsq(across, mm[:, 0], rcond=None)
    own = apply_affine(affine, np.argwhere(region))
    side = own[:, 0] - np.column_stack([own[:, 1:], np.ones(len(own))]) @ plane
    return float(abs(np.clip(side, -0.5, 0.5).mean() * 2))


def _edge(
    brainstem: NDArray[np.bool_],
    hard: NDArray[np.uint8],
    labels: SoftLabels,
    image: nib.Nifti1Image,
) -> float:
    """Return the share of the outer border where the image is darker 1.5 mm outside than inside.

    The upper end, the lower limit and the peduncles border on tissue and are left out.
    """
    spacing = np.linalg.norm(labels.affine[:3, :3], axis=0)
    drawn = ndimage.gaussian_filter(
        resample_from_to(image, (brainstem.shape, labels.affine), order=1).get_fdata(), 0.5
    )
    inside = ndimage.distance_transform_edt(brainstem, sampling=spacing)
    outside = ndimage.distance_transform_edt(~brainstem, sampling=spacing)
    signed = ndimage.gaussian_filter(inside - outside, 1.0)
    inwards = np.stack(np.gradient(signed, *spacing), -1)
    inwards /= np.maximum(np.linalg.norm(inwards, axis=-1, keepdims=True), 1e-6)
    voxels = np.argwhere((np.abs(signed) < 0.7) & np.isin(hard, (2, 3)))
    peduncles = ndimage.binary_dilation(np.isin(hard, (4, 5, 6, 7)), iterations=3)
    voxels = voxels[~peduncles[tuple(voxels.T)]]
    step = 1.5 * inwards[tuple(voxels.T)] / spacing
    within, beyond = (
        ndimage.map_coordinates(drawn, (voxels + sign * step).T, order=1, mode="nearest")
        for sign in (1, -1)
    )
    return float((within > 1.1 * beyond).mean())
