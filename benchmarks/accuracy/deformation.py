"""Known atrophy: a region of a head, shrunk by a smooth deformation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from training.evaluate import VALUES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.evaluate import HeldOut

FALL_OFF_MM = 12.0  # distance from the region within which the deformation fades
FINE_MM = 0.5  # grid on which the true change of volume is measured
# Axes of the head's grid along which a region shrinks; the last one points up.
DIRECTIONS = {"": (0, 1, 2), "across": (0, 1), "along": (2,)}


def shrink(
    head: HeldOut, region: str, share: float, direction: str = ""
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Shrink a region by a share of its volume; its surroundings are stretched to fill the gap."""
    window, source = deformation(head, region, share, direction)
    data = head.volume.data.copy()
    reach = tuple(slice(max(a.start - 8, 0), a.stop + 8) for a in window)
    places = source - np.array([a.start for a in reach])[:, None, None, None]
    drawn = ndimage.map_coordinates(data[reach], places, order=3, mode="nearest")
    data[window] = np.where(data[window] == 0, 0, drawn.clip(0))
    return data, head.volume.affine


def true_change(head: HeldOut, region: str, share: float, direction: str = "") -> float:
    """Measure how much `shrink` changes a region: its label, deformed on a fine grid.

    Returns
    -------
    float
        New volume / old volume - 1; negative for atrophy.
    """
    window, source = deformation(head, region, share, direction)
    mask = np.isin(head.truth, VALUES[region]).astype(np.float32)
    step = FINE_MM / np.array(head.volume.voxel_size)
    axes = [np.arange(0, a.stop - a.start - 1, s) for a, s in zip(window, step, strict=True)]
    fine = np.stack(np.meshgrid(*axes, indexing="ij"))
    before = fine + np.array([a.start for a in window])[:, None, None, None]
    after = [ndimage.map_coordinates(shift, fine, order=1) for shift in source]
    old, new = (
        ndimage.map_coordinates(mask, places, order=1).sum(dtype=np.float64)
        for places in (before, np.stack(after))
    )
    return float(new / old - 1)


def deformation(
    head: HeldOut, region: str, share: float, direction: str = ""
) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
    """Return where each voxel of a shrunk head comes from.

    Within the region all points move towards its centre, in proportion to their distance from it,
    along the axes of the direction. Around it the movement fades smoothly over `FALL_OFF_MM`.

    Returns
    -------
    window : tuple of three slices
        The part of the grid in which anything moves.
    source : ndarray, shape (3, x, y, z)
        Voxel coordinates in the head, for each voxel of the window.
    """
    edges = np.array(head.volume.voxel_size)
    mask = np.isin(head.truth, VALUES[region])
    inside = np.argwhere(mask)
    margin = np.ceil(FALL_OFF_MM / edges).astype(int) + 1
    low = np.maximum(inside.min(0) - margin, 0)
    high = np.minimum(inside.max(0) + margin + 1, mask.shape)
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    away = ndimage.distance_transform_edt(~mask[window], sampling=edges)
    fading = np.clip(1 - away / FALL_OFF_MM, 0, 1)
    weight = fading**2 * (3 - 2 * fading)
    centre = inside.mean(0)
    places: Any = np.stack(
        np.meshgrid(*[np.arange(a.start, a.stop) for a in window], indexing="ij")
    )
    stretch = np.zeros((3, 1, 1, 1))
    stretch[list(DIRECTIONS[direction])] = (1 - share) ** (-1 / len(DIRECTIONS[direction])) - 1
    return window, places + stretch * weight * (places - centre[:, None, None, None])
