"""How two models agree on an image: Dice overlap and difference of volume, per region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.bids.columns import COMPARISON
from bids_app.regions import of_brainstem, region

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from bids_app.bids.results import RegionVolume


@dataclass(frozen=True)
class RegionAgreement:
    """Agreement on one region, or on the whole brainstem, rounded as it is written.

    Attributes
    ----------
    name : str
        Of the region.
    dice : float or None
        Dice overlap of the two maps, 0 to 1; None if neither has the region.
    difference_mm3 : float
        First volume - second volume.
    difference_percent : float or None
        Relative to the mean of the two volumes; None if that is 0.
    """

    name: str
    dice: float | None
    difference_mm3: float
    difference_percent: float | None


def compare_maps(
    maps: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]],
    volumes: tuple[Sequence[RegionVolume], Sequence[RegionVolume]],
) -> list[RegionAgreement]:
    """Compare the label maps of two models on one image.

    Parameters
    ----------
    maps : tuple of two ndarray of int, shape (X, Y, Z)
        On the same grid; the models may have other values for a region.
    volumes : tuple of two sequence of RegionVolume
        Regions of each map, and the whole brainstem.

    Returns
    -------
    list of RegionAgreement
        In the order of the first map, those regions that both have.

    Raises
    ------
    ValueError
        The maps have different shapes.
    """
    if maps[0].shape != maps[1].shape:
        raise ValueError(f"the maps have different shapes, {maps[0].shape} and {maps[1].shape}")
    first, second = ({row.name: row for row in rows} for rows in volumes)
    found = []
    for name in (name for name in first if name in second):
        masks = (_mask(maps[0], first[name], first), _mask(maps[1], second[name], second))
        difference = first[name].volume_mm3 - second[name].volume_mm3
        mean = (first[name].volume_mm3 + second[name].volume_mm3) / 2
        found.append(
            RegionAgreement(
                name,
                _rounded("dice", _dice(*masks)),
                COMPARISON["difference_mm3"].rounded(difference),
                _rounded("difference_percent", 100 * difference / mean if mean else None),
            )
        )
    return found


def _rounded(column: str, value: float | None) -> float | None:
    return None if value is None else COMPARISON[column].rounded(value)


def _mask(
    labels: NDArray[np.integer[Any]], row: RegionVolume, rows: dict[str, RegionVolume]
) -> NDArray[np.bool_]:
    """Select the voxels of a region, or of the whole brainstem (a row without an index)."""
    wanted: Iterable[RegionVolume] = rows.values() if row.index is None else [row]
    regions = [region(part.index, part.name) for part in wanted if part.index is not None]
    return np.isin(labels, [part.index for part in of_brainstem(regions)])


def _dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    voxels = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / voxels if voxels else None
