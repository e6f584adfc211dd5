"""Changes of a head after which its volumes are known: poses, voxels, faults, cuts, atrophy.

All take a `HeldOut` and give the voxels and the affine of a new image; the head stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
from accuracy_deformation import shrink
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff
from scipy import ndimage

from training.cases import MEDULLA, REGIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.evaluate import HeldOut

Picture = tuple["NDArray[np.float32]", "NDArray[np.float64]"]
SHARES = (0.02, 0.05, 0.10, 0.20)  # by which regions are shrunk
ONE_WAY_SHARES = (0.10,)  # by which they are shrunk one way
LABEL_MARGIN_MM = 2.0  # kept around the labels when a skull is stripped
LEAST_EXTENT_MM = 81.0  # of a cut image; the app refuses less than 80
FWHM = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class Change:
    """A change of an image.

    Attributes
    ----------
    title : str
        What is done, in the words of the tables; names it in the cache too.
    make : callable
        Takes a head, gives the new image.
    mild : bool
        Volumes should follow it to 1.5 %.
    """

    title: str
    make: Callable[[HeldOut], Picture]
    mild: bool = False


def self_consistency() -> list[Change]:
    """List the changes that should leave all volumes as they are; the mild ones come first."""
    mild = [
        *(
            Change(f"turned 10 deg about {axis}", partial(turn, degrees=10, axis=i), mild=True)
            for i, axis in enumerate("xyz")
        ),
        Change("turned 25 deg about x, header", turn_header, mild=True),
        Change("flipped left-right", flip, mild=True),
        *(
            Change(f"stored as {codes}", partial(store_as, codes=codes), mild=True)
            for codes in ("LPI", "PSR", "AIL")
        ),
        Change("0.7 mm", partial(resample, edges=(0.7, 0.7, 0.7)), mild=True),
        Change("1.3 mm", partial(resample, edges=(1.3, 1.3, 1.3)), mild=True),
        Change("bias field, 20 %", partial(add_bias, share=0.2), mild=True),
        Change("noise, 3 %", partial(add_noise, share=0.03), mild=True),
    ]
    return [
        *mild,
        *(
            Change(f"turned 25 deg about {axis}", partial(turn, degrees=25, axis=i))
            for i, axis in enumerate("xyz")
        ),
        Change("2 mm", partial(resample, edges=(2.0, 2.0, 2.0))),
        Change("1 x 1 x 3 mm", partial(resample, edges=(1.0, 1.0, 3.0))),
        Change("bias field, 40 %", partial(add_bias, share=0.4)),
        Change("noise, 8 %", partial(add_noise, share=0.08)),
        Change("gamma 0.7", partial(raise_to, gamma=0.7)),
        Change("gamma 1.4", partial(raise_to, gamma=1.4)),
        Change("lower half", keep_lower_half),
    ]


def atrophy(region: str, way: str = "") -> list[Change]:
    """List the shrinkings of a region, in all directions or one way of `WAYS`."""
    return [
        Change(
            f"{region} shrunk by {share:.0%} {way}".rstrip(),
            partial(shrink, region=region, share=share, way=way),
        )
        for share in (SHARES if not way else ONE_WAY_SHARES)
    ]


def emptied() -> list[Change]:
    """List the changes after which an image holds no brainstem."""
    return [
        Change("upper part, from 10 mm above", keep_upper_part),
        Change("noise alone", partial(noise_alone, sigma=0)),
        Change("smooth noise alone", partial(noise_alone, sigma=3)),
    ]


def turn(head: HeldOut, degrees: float, axis: int) -> Picture:
    """Turn the head about an axis of its voxel grid, on a grid that holds all that is not zero."""
    data, affine = head.volume.data, head.volume.affine
    edges = voxel_sizes(affine)
    rotation = rotation_about(axis, degrees)
    filled = np.argwhere(data > 0)
    corners = np.array(list(product(*zip(filled.min(0), filled.max(0), strict=True)))) * edges
    middle = corners.mean(0)
    half = np.abs((corners - middle) @ rotation.T).max(0)
    shape = tuple(int(n) for n in np.ceil(2 * half / edges) + 1)
    to_mm = rotation.T * edges  # turned back: from voxels of the new image to mm of the old one
    start = middle - to_mm @ ((np.array(shape) - 1) / 2)
    new = np.eye(4)
    new[:3, :3] = affine[:3, :3]
    new[:3, 3] = apply_affine(affine, middle / edges) - new[:3, :3] @ ((np.array(shape) - 1) / 2)
    return draw(data, to_mm / edges[:, None], start / edges, shape), new


def rotation_about(axis: int, degrees: float) -> NDArray[np.float64]:
    """Return the matrix (3, 3) that turns about axis 0, 1 or 2."""
    first, second = [other for other in range(3) if other != axis]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = np.eye(3)
    rotation[[first, first, second, second], [first, second, first, second]] = cos, -sin, sin, cos
    return rotation


def turn_header(head: HeldOut) -> Picture:
    """Turn the head by 25 degrees about x in its affine alone."""
    turned = np.eye(4)
    turned[:3, :3] = rotation_about(0, 25)
    return head.volume.data, turned @ head.volume.affine


def flip(head: HeldOut) -> Picture:
    """Mirror the head."""
    return np.ascontiguousarray(head.volume.data[::-1]), head.volume.affine


def orientations() -> list[str]:
    """Name all 48 orders in which the axes of an image can be stored."""
    return ["".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)]


def store_as(head: HeldOut, codes: str) -> Picture:
    """Store the head in another order of axes, e.g. ``LPI``."""
    data = head.volume.data
    # From the wanted order to RAS; its inverse brings the RAS voxels there.
    there = axcodes2ornt(codes)
    back = np.empty_like(there)
    for wanted, (ras, sign) in enumerate(there):
        back[int(ras)] = wanted, sign
    affine = head.volume.affine @ inv_ornt_aff(back, data.shape)
    return np.ascontiguousarray(apply_orientation(data, back)), affine


def resample(head: HeldOut, edges: Sequence[float]) -> Picture:
    """Draw the head with other voxels, smoothed before where they are larger."""
    data, affine = head.volume.data, head.volume.affine
    old, new = voxel_sizes(affine), np.array(edges)
    sigma = np.sqrt(np.maximum(new**2 - old**2, 0)) / FWHM / old
    smooth = ndimage.gaussian_filter(data, sigma) * (data > 0) if sigma.any() else data
    step = new / old
    shape = tuple(int(n) for n in np.round(np.array(data.shape) / step))
    start = (np.array(data.shape) - step * shape) / 2 + (step - 1) / 2
    out = np.eye(4)
    out[:3, :3] = affine[:3, :3] * step
    out[:3, 3] = apply_affine(affine, start)
    return draw(smooth, np.diag(step), start, shape), out


def add_bias(head: HeldOut, share: float) -> Picture:
    """Multiply by a smooth field of 1 - `share` to 1 + `share`."""
    data = head.volume.data
    x, y, z = np.ogrid[
        -1 : 1 : data.shape[0] * 1j, -1 : 1 : data.shape[1] * 1j, -1 : 1 : data.shape[2] * 1j
    ]
    field = 0.5 * x - 0.8 * y + z + 0.7 * (x**2 - y**2) + 0.6 * y * z - 0.5 * z**2
    field = 2 * (field - field.min()) / np.ptp(field) - 1
    return (data * (1 + share * field)).astype(np.float32), head.volume.affine


def add_noise(head: HeldOut, share: float) -> Picture:
    """Add Rician noise, of a part of the brainstem's median; where there was nothing is nothing."""
    data = head.volume.data
    sigma = share * float(np.median(data[np.isin(head.truth, REGIONS)]))
    rng = np.random.default_rng(0)
    real = data + rng.normal(0, sigma, data.shape)
    noisy = np.hypot(real, rng.normal(0, sigma, data.shape)) * (data > 0)
    return noisy.astype(np.float32), head.volume.affine


def raise_to(head: HeldOut, gamma: float) -> Picture:
    """Raise intensities to a power, the 99.9th percentile staying what it is."""
    data = head.volume.data
    top = np.percentile(data[data > 0], 99.9)
    return ((data.clip(0) / top) ** gamma * top).astype(np.float32), head.volume.affine


def keep_lower_half(head: HeldOut) -> Picture:
    """Keep the lower half of the field of view, and 10 mm above the brainstem at the least."""
    edge, depth = head.volume.voxel_size[2], head.volume.data.shape[2]
    _, top = extent(head.truth, REGIONS)
    return keep(head, 0, max(math.ceil(depth / 2), top + math.ceil(10 / edge)))


def keep_upper_part(head: HeldOut) -> Picture:
    """Keep what lies 10 mm and more above the brainstem, or less where 81 mm would not be left."""
    edge, depth = head.volume.voxel_size[2], head.volume.data.shape[2]
    _, top = extent(head.truth, REGIONS)
    last = depth - math.ceil(LEAST_EXTENT_MM / edge)
    return keep(head, max(min(top + math.ceil(10 / edge), last), top + 1), depth)


def keep_above_medulla(head: HeldOut) -> Picture:
    """Keep what lies above the medulla."""
    return keep(head, extent(head.truth, (MEDULLA,))[1] + 1, head.volume.data.shape[2])


def keep(head: HeldOut, first: int, last: int) -> Picture:
    """Keep the slices of a range."""
    affine = head.volume.affine.copy()
    affine[:3, 3] = apply_affine(affine, (0, 0, first))
    return np.ascontiguousarray(head.volume.data[:, :, first:last]), affine


def extent(labels: NDArray[np.uint8], values: Sequence[int]) -> tuple[int, int]:
    """Return the lowest and the highest slice that holds one of some labels."""
    slices = np.flatnonzero(np.isin(labels, values).any((0, 1)))
    return int(slices[0]), int(slices[-1])


def noise_alone(head: HeldOut, sigma: float) -> Picture:
    """Put noise in the place of the head, smoothed by `sigma` voxels."""
    noise = np.random.default_rng(0).normal(0, 1, head.volume.data.shape)
    if sigma:
        noise = ndimage.gaussian_filter(noise, sigma)
    return (100 + 20 * noise / noise.std()).astype(np.float32), head.volume.affine


def strip(head: HeldOut, brain: NDArray[np.bool_]) -> Picture:
    """Keep what lies in a mask of the brain, shape (X, Y, Z), and 2 mm around the labels.

    The template's mask ends within the medulla, where tools that strip skulls go on.
    """
    labelled = ndimage.distance_transform_edt(head.truth == 0, sampling=head.volume.voxel_size)
    return head.volume.data * (brain | (labelled <= LABEL_MARGIN_MM)), head.volume.affine


def draw(
    data: NDArray[np.float32],
    matrix: NDArray[np.float64],
    start: NDArray[np.float64],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Sample an image by cubic splines; what was empty stays so, and nothing is below 0."""
    drawn = ndimage.affine_transform(data, matrix, start, shape, order=3, output=np.float32)
    filled = ndimage.affine_transform(
        (data > 0).astype(np.uint8), matrix, start, shape, order=0, output=np.uint8
    )
    return np.asarray(drawn.clip(0) * filled, dtype=np.float32)
