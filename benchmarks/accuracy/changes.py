"""Changes of a head after which its volumes are known: poses, voxels, faults, cuts, atrophy.

All take a `HeldOut` and return the voxels and the affine of a new image; the head is not modified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.accuracy.deformation import shrink
from training.cases import MEDULLA, REGIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.evaluate import HeldOut

Changed = tuple["NDArray[np.float32]", "NDArray[np.float64]"]
SHARES = (0.02, 0.05, 0.10, 0.20)  # by which regions shrink in all directions
SHARES_IN_ONE_DIRECTION = (0.10,)
LABEL_MARGIN_MM = 2.0  # kept around the labels when a skull is stripped
PAIRS = 5  # of simulated scans per head
SCAN_EDGES_MM = (0.7, 1.2)  # smallest and largest voxel edge of a simulated scan
MIN_EXTENT_MM = 81.0  # of a cut image; the app refuses less than 80
FWHM = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class Change:
    """A change of an image.

    Attributes
    ----------
    title : str
        What is done, as in the tables; also the key of kept results.
    make : callable
        Takes a head and returns the new image.
    mild : bool
        Volumes should stay within 1.5 %.
    """

    title: str
    make: Callable[[HeldOut], Changed]
    mild: bool = False


def harmless() -> list[Change]:
    """List the changes that should leave all volumes as they are, the mild ones first."""
    mild = [
        *(
            Change(f"turned 10 deg about {axis}", partial(rotate, degrees=10, axis=i), mild=True)
            for i, axis in enumerate("xyz")
        ),
        Change("turned 25 deg about x, header", rotate_header, mild=True),
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
            Change(f"turned 25 deg about {axis}", partial(rotate, degrees=25, axis=i))
            for i, axis in enumerate("xyz")
        ),
        Change("2 mm", partial(resample, edges=(2.0, 2.0, 2.0))),
        Change("1 x 1 x 3 mm", partial(resample, edges=(1.0, 1.0, 3.0))),
        Change("bias field, 40 %", partial(add_bias, share=0.4)),
        Change("noise, 8 %", partial(add_noise, share=0.08)),
        Change("gamma 0.7", partial(apply_gamma, gamma=0.7)),
        Change("gamma 1.4", partial(apply_gamma, gamma=1.4)),
        Change("lower half", keep_lower_half),
    ]


def atrophy(region: str, direction: str = "") -> list[Change]:
    """List the degrees of atrophy of a region, in all directions or one of `DIRECTIONS`."""
    return [
        Change(
            f"{region} shrunk by {share:.0%} {direction}".rstrip(),
            partial(shrink, region=region, share=share, direction=direction),
        )
        for share in (SHARES_IN_ONE_DIRECTION if direction else SHARES)
    ]


def simulated_scans() -> list[Change]:
    """List pairs of simulated scans of one head, the first and second of each pair in sequence."""
    return [
        Change(f"scan {k} of pair {pair}", partial(scan, seed=2 * pair + k))
        for pair in range(1, PAIRS + 1)
        for k in (1, 2)
    ]


def without_brainstem() -> list[Change]:
    """List the changes after which an image shows no brainstem."""
    return [
        Change("upper part, from 10 mm above", keep_upper_part),
        Change("noise alone", partial(noise_alone, sigma=0)),
        Change("smooth noise alone", partial(noise_alone, sigma=3)),
    ]


def rotate(head: HeldOut, degrees: float, axis: int) -> Changed:
    """Rotate the head about an axis of its voxel grid, on a grid that holds all nonzero voxels."""
    data, edges = head.volume.data, voxel_sizes(head.volume.affine)
    return turn(data, head.volume.affine, rotation_about(axis, degrees), edges)


def scan(head: HeldOut, seed: int) -> Changed:
    """Simulate a scan: another pose and voxel size, 3 % noise and a bias field of 20 %.

    The head is turned by up to 10 degrees about a random axis and shifted by part of a voxel, on a
    grid of isotropic voxels. Half of all scans have the head's own voxel size.
    """
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    rotation = math.radians(rng.uniform(0, 10)) * axis / np.linalg.norm(axis)
    data, affine = head.volume.data, head.volume.affine
    old = voxel_sizes(affine)
    new = np.full(3, rng.uniform(*SCAN_EDGES_MM)) if rng.random() < 0.5 else old
    shift = rng.uniform(-0.5, 0.5, 3) * new
    drawn, of_scan = turn(
        blur_to(data, old, new), affine, Rotation.from_rotvec(rotation).as_matrix(), new, shift
    )
    sigma = 0.03 * float(np.median(data[np.isin(head.truth, REGIONS)]))
    biased = drawn * (1 + 0.2 * bias_field(drawn.shape, rng.choice([-1, 1], 3).tolist()))
    return rician(biased, sigma, rng), of_scan


def turn(
    data: NDArray[np.float32],
    affine: NDArray[np.float64],
    rotation: NDArray[np.float64],
    edges: NDArray[np.float64],
    shift: NDArray[np.float64] | None = None,
) -> Changed:
    """Turn a head within its voxel grid, on a grid of given edges that holds all nonzero voxels.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
    rotation : ndarray, shape (3, 3)
        Along the axes of the voxel grid.
    edges : ndarray, shape (3,)
        Of the voxels of the new grid, in mm.
    shift : ndarray, shape (3,), optional
        In mm along the axes of the new grid, which then has one voxel more along each axis.
    """
    old = voxel_sizes(affine)
    filled = np.argwhere(data > 0)
    corners = np.array(list(product(*zip(filled.min(0), filled.max(0), strict=True)))) * old
    middle = corners.mean(0)
    half = np.abs((corners - middle) @ rotation.T).max(0)
    room = 1 if shift is None else 2
    shape = tuple(int(n) for n in np.ceil(2 * half / edges) + room)
    # Inverse rotation: from voxels of the new image, less their middle, to mm of the old one.
    to_mm = rotation.T * edges
    moved = middle if shift is None else middle - rotation.T @ shift
    start = moved - to_mm @ ((np.array(shape) - 1) / 2)
    new = np.eye(4)
    new[:3, :3] = affine[:3, :3] * (edges / old)
    new[:3, 3] = apply_affine(affine, middle / old) - new[:3, :3] @ ((np.array(shape) - 1) / 2)
    return sample(data, to_mm / old[:, None], start / old, shape), new


def blur_to(
    data: NDArray[np.float32], old: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Smooth a head as larger voxel edges (mm) do; zero voxels stay zero."""
    sigma = np.sqrt(np.maximum(new**2 - old**2, 0)) / FWHM / old
    smooth: NDArray[np.float32] = data
    if sigma.any():
        smooth = ndimage.gaussian_filter(data, sigma) * (data > 0)
    return smooth


def rotation_about(axis: int, degrees: float) -> NDArray[np.float64]:
    """Return the rotation matrix, shape (3, 3), about axis 0, 1 or 2."""
    first, second = [other for other in range(3) if other != axis]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = np.eye(3)
    rotation[[first, first, second, second], [first, second, first, second]] = cos, -sin, sin, cos
    return rotation


def rotate_header(head: HeldOut) -> Changed:
    """Rotate the head by 25 degrees about x, in its affine only."""
    turned = np.eye(4)
    turned[:3, :3] = rotation_about(0, 25)
    return head.volume.data, turned @ head.volume.affine


def flip(head: HeldOut) -> Changed:
    """Mirror the head left to right."""
    return np.ascontiguousarray(head.volume.data[::-1]), head.volume.affine


def orientations() -> list[str]:
    """List all 48 orders in which the axes of an image can be stored."""
    return ["".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)]


def store_as(head: HeldOut, codes: str) -> Changed:
    """Store the head in another order of axes, e.g. ``LPI``."""
    data = head.volume.data
    # `there` maps the wanted order to RAS; its inverse reorders the RAS voxels.
    there = axcodes2ornt(codes)
    back = np.empty_like(there)
    for wanted, (ras, sign) in enumerate(there):
        back[int(ras)] = wanted, sign
    affine = head.volume.affine @ inv_ornt_aff(back, data.shape)
    return np.ascontiguousarray(apply_orientation(data, back)), affine


def resample(head: HeldOut, edges: Sequence[float]) -> Changed:
    """Resample the head to other voxel edges (mm); smooth before where they are larger."""
    data, affine = head.volume.data, head.volume.affine
    old, new = voxel_sizes(affine), np.array(edges)
    step = new / old
    shape = tuple(int(n) for n in np.round(np.array(data.shape) / step))
    start = (np.array(data.shape) - step * shape) / 2 + (step - 1) / 2
    out = np.eye(4)
    out[:3, :3] = affine[:3, :3] * step
    out[:3, 3] = apply_affine(affine, start)
    return sample(blur_to(data, old, new), np.diag(step), start, shape), out


def add_bias(head: HeldOut, share: float) -> Changed:
    """Multiply by a smooth field of 1 - `share` to 1 + `share`."""
    data = head.volume.data
    field = bias_field(data.shape)
    return (data * (1 + share * field)).astype(np.float32), head.volume.affine


def bias_field(shape: tuple[int, ...], signs: Sequence[int] = (1, 1, 1)) -> NDArray[np.float64]:
    """Draw a smooth field from -1 to 1; `signs` mirror it along the axes."""
    x, y, z = (
        axis * sign
        for axis, sign in zip(
            np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)], signs, strict=True
        )
    )
    field = 0.5 * x - 0.8 * y + z + 0.7 * (x**2 - y**2) + 0.6 * y * z - 0.5 * z**2
    scaled: NDArray[np.float64] = 2 * (field - field.min()) / np.ptp(field) - 1
    return scaled


def add_noise(head: HeldOut, share: float) -> Changed:
    """Add Rician noise, a share of the brainstem's median; zero voxels stay zero."""
    data = head.volume.data
    sigma = share * float(np.median(data[np.isin(head.truth, REGIONS)]))
    return rician(data, sigma, np.random.default_rng(0)), head.volume.affine


def rician(
    data: NDArray[np.floating[Any]], sigma: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add Rician noise of a standard deviation; zero voxels stay zero."""
    real = data + rng.normal(0, sigma, data.shape)
    noisy = np.hypot(real, rng.normal(0, sigma, data.shape)) * (data > 0)
    return noisy.astype(np.float32)


def apply_gamma(head: HeldOut, gamma: float) -> Changed:
    """Raise intensities to a power; the 99.9th percentile stays as it is."""
    data = head.volume.data
    top = np.percentile(data[data > 0], 99.9)
    return ((data.clip(0) / top) ** gamma * top).astype(np.float32), head.volume.affine


def keep_lower_half(head: HeldOut) -> Changed:
    """Keep the lower half of the field of view, and at least 10 mm above the brainstem."""
    edge, depth = head.volume.voxel_size[2], head.volume.data.shape[2]
    _, top = extent(head.truth, REGIONS)
    return keep(head, 0, max(math.ceil(depth / 2), top + math.ceil(10 / edge)))


def keep_upper_part(head: HeldOut) -> Changed:
    """Keep what is 10 mm or more above the brainstem; less than 10 mm to keep 81 mm of extent."""
    edge, depth = head.volume.voxel_size[2], head.volume.data.shape[2]
    _, top = extent(head.truth, REGIONS)
    last = depth - math.ceil(MIN_EXTENT_MM / edge)
    return keep(head, max(min(top + math.ceil(10 / edge), last), top + 1), depth)


def keep_above_medulla(head: HeldOut) -> Changed:
    """Keep what is above the medulla."""
    return keep(head, extent(head.truth, (MEDULLA,))[1] + 1, head.volume.data.shape[2])


def keep(head: HeldOut, first: int, last: int) -> Changed:
    """Keep the axial slices from `first` up to `last`, exclusive."""
    affine = head.volume.affine.copy()
    affine[:3, 3] = apply_affine(affine, (0, 0, first))
    return np.ascontiguousarray(head.volume.data[:, :, first:last]), affine


def extent(labels: NDArray[np.uint8], values: Sequence[int]) -> tuple[int, int]:
    """Return the lowest and the highest axial slice with any of these labels."""
    slices = np.flatnonzero(np.isin(labels, values).any((0, 1)))
    return int(slices[0]), int(slices[-1])


def noise_alone(head: HeldOut, sigma: float) -> Changed:
    """Replace the head by noise, smoothed by `sigma` voxels."""
    noise = np.random.default_rng(0).normal(0, 1, head.volume.data.shape)
    if sigma:
        noise = ndimage.gaussian_filter(noise, sigma)
    return (100 + 20 * noise / noise.std()).astype(np.float32), head.volume.affine


def strip(head: HeldOut, brain: NDArray[np.bool_]) -> Changed:
    """Keep what is in a brain mask, shape (X, Y, Z), or within 2 mm of the labels.

    The template's mask ends within the medulla; skull-stripping tools keep all of it.
    """
    labelled = ndimage.distance_transform_edt(head.truth == 0, sampling=head.volume.voxel_size)
    return head.volume.data * (brain | (labelled <= LABEL_MARGIN_MM)), head.volume.affine


def sample(
    data: NDArray[np.float32],
    matrix: NDArray[np.float64],
    start: NDArray[np.float64],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Sample an image by cubic splines; zero voxels stay zero, and no value is negative."""
    sampled = ndimage.affine_transform(data, matrix, start, shape, order=3, output=np.float32)
    filled = ndimage.affine_transform(
        (data > 0).astype(np.uint8), matrix, start, shape, order=0, output=np.uint8
    )
    return np.asarray(sampled.clip(0) * filled, dtype=np.float32)
