"""Parts of the brainstem and the cerebellar peduncles: their label map and their volumes.

Tegmentum and tectum make up the midbrain; the superior and middle cerebellar peduncles (scp, mcp)
lie beside the brainstem and are distinguished by side. All comes from the pass in the canonical
frame, whose first axis runs across the midsagittal plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_app.geometry.frame import MIDDLE, to_grid
from bids_app.measures.image import make_row
from bids_app.measures.probabilities import near_largest, sum_volumes
from bids_app.measures.volumes import measure_regions
from bids_app.regions import MIDBRAIN, OF_MIDBRAIN, PEDUNCLES, TECTUM, TEGMENTUM, parts_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bids_app.bids.results import RegionVolume
    from bids_app.io.images import Volume
    from bids_app.regions import Region
    from bids_app.segmentation.canonical import FramePass
    from bids_app.segmentation.types import Segmentation

    Maps = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts of one segmented image.

    Attributes
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        On the volume's RAS grid: 0 and the values of `bids_app.regions.parts_map`. Tegmentum and
        tectum fill the midbrain of the map of regions; peduncles never lie in a region.
    volumes : tuple of RegionVolume
        A row per part. Those of the midbrain add up to its volume.
    """

    labels: NDArray[np.uint8]
    volumes: tuple[RegionVolume, ...]


def measure_parts(
    volume: Volume, segmentation: Segmentation, regions: Sequence[Region], parts: Sequence[str]
) -> Parts:
    """Make the map of parts of an image, and measure it.

    Parameters
    ----------
    volume : Volume
        The image.
    segmentation : Segmentation
        By a model with parts; without a brainstem the map is empty and volumes are not known.
    regions : sequence of Region
        Of the model.
    parts : sequence of str
        Of the model, in its order.
    """
    described = parts_map(parts)
    labels = np.zeros_like(segmentation.labels)
    volumes: Sequence[float] = [float("nan")] * len(described)
    second = segmentation.frame_pass
    if second is not None and second.parts is not None:
        maps = by_side(second.parts, parts)
        labels = label_parts(segmentation.labels, volume.affine, second, regions, maps)
        volumes = _volumes(second, regions, maps)
    measures = measure_regions(labels, volume.affine, described)[: len(described)]
    return Parts(
        labels,
        tuple(make_row(found, mm3) for found, mm3 in zip(measures, volumes, strict=True)),
    )


def by_side(maps: Maps, parts: Sequence[str]) -> dict[str, Maps]:
    """Tell peduncles apart by side, left and right of the frame's midsagittal plane.

    Parameters
    ----------
    maps : ndarray of float32, shape (P, EDGE, EDGE, EDGE)
        Of parts in the canonical frame; the first of the three axes runs to the right.
    parts : sequence of str
        Their names.

    Returns
    -------
    dict of str to ndarray of float32, shape (EDGE, EDGE, EDGE)
        By name of the labels of `bids_app.regions.parts_map`, in their order.
    """
    left = np.arange(maps.shape[1]) < MIDDLE
    found: dict[str, Maps] = {}
    for label in parts_map(parts):
        side, _, name = label.name.rpartition("_")
        whole = maps[list(parts).index(name)]
        kept = {"": np.ones_like(left), "left": left, "right": ~left}[side]
        found[label.name] = whole * kept[:, np.newaxis, np.newaxis]
    return found


def label_parts(
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64],
    second: FramePass,
    regions: Sequence[Region],
    maps: Mapping[str, Maps],
) -> NDArray[np.uint8]:
    """Label parts on the grid of an image, in keeping with its map of regions.

    In the midbrain the more probable of tegmentum and tectum wins. Outside of all regions a
    peduncle wins where it is more probable than any other peduncle and than what is neither
    peduncle nor region.

    Parameters
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        Map of regions.
    affine : ndarray, shape (4, 4)
        Voxel indices of `labels` to RAS+ millimetres.
    second : FramePass
        With the probabilities of the regions.
    regions : sequence of Region
        Of the model.
    maps : mapping of str to ndarray of float32
        From `by_side`.

    Returns
    -------
    ndarray of uint8, shape (X, Y, Z)
    """
    values = {label.name: label.index for label in parts_map(_names(maps))}
    stack = np.concatenate([np.stack(list(maps.values())), second.probabilities])
    on_grid, box = to_grid(stack, second.frame, affine, labels.shape)
    shares = dict(zip(maps, on_grid, strict=False))
    out = np.zeros_like(labels)
    midbrain = labels == next((r.index for r in regions if r.name == MIDBRAIN), 0)
    midbrain &= labels > 0
    if TEGMENTUM in values:
        out[midbrain] = values[TEGMENTUM]
    inner = out[box]
    if TECTUM in values:
        other = shares.get(TEGMENTUM, 1 - shares[TECTUM])
        inner[midbrain[box] & (shares[TECTUM] > other)] = values[TECTUM]
    peduncles = [name for name in maps if name.rpartition("_")[2] in PEDUNCLES]
    beside = sum((shares[name] for name in peduncles), np.zeros(inner.shape, np.float32))
    highest = 1 - on_grid[len(maps) :].sum(axis=0) - beside
    for name in peduncles:
        better = (shares[name] > highest) & (labels[box] == 0)
        inner[better] = values[name]
        highest = np.maximum(highest, shares[name])
    return out


def _volumes(
    second: FramePass, regions: Sequence[Region], maps: Mapping[str, Maps]
) -> tuple[float, ...]:
    """Volumes in mm3, as those of regions: within 3 mm of the largest component.

    Of tegmentum and tectum counts what counts of the midbrain, so that they add up to it.
    """
    affine, names = second.frame.affine, [region.name for region in regions]
    stack = np.stack(list(maps.values()))
    kept = near_largest(stack, affine)
    inner = [k for k, name in enumerate(maps) if name in OF_MIDBRAIN]
    if inner and MIDBRAIN in names:
        midbrain = near_largest(second.probabilities, affine)[names.index(MIDBRAIN)]
        kept[inner] = stack[inner] * (midbrain > 0)
    return sum_volumes(kept, affine)


def _names(maps: Mapping[str, Maps]) -> list[str]:
    return [name.rpartition("_")[2] for name in maps]
