"""One file of arrays to learn from: heads and label maps, cut and resampled once.

Every array is in (z, y, x) order: z up, y to the front, x to the right. A case holds two looks at
the same head: a *near* one of 144 mm at 1 mm around the brainstem (for the segmenter) and a *far*
one of 256 mm at 2 mm (for the locator). Images are stored as 8 bit between 0 and the 99.9th
percentile, maps by position in `CODES`. The file is a compressed ``.npz`` whose keys are
``<case>/<look>/<array>``; it needs numpy alone to be read.
"""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

MIDBRAIN, PONS, MEDULLA, CORD = 1, 2, 3, 4
IGNORE = 255
NOT_STEM = 254  # not midbrain, pons or medulla, but which class else is not known
REGIONS = (MIDBRAIN, PONS, MEDULLA)
NEAR_SIZE, NEAR_MM = 144, 1.0
FAR_SIZE, FAR_MM = 128, 2.0

# Codes of the SynthSeg maps (generation_labels.npy) and their class of T1 intensities
# (generation_classes_contrast_specific.npy); the cord, of no code of its own there, comes last.
CODES = (
    0, 14, 15, 16, 24, 72, 85, 502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530,
    2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 25, 26, 28, 30, 136, 137,
    41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 57, 58, 60, 62, 163, 164,
)  # fmt: skip
T1_CLASSES = (
    0, 1, 1, 13, 1, 1, 2, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
    2, 3, 1, 1, 4, 5, 6, 3, 7, 8, 3, 3, 10, 3, 9, 11, 12, 12,
    2, 3, 1, 1, 4, 5, 6, 3, 7, 8, 3, 3, 10, 3, 9, 11, 12, 12,
)  # fmt: skip
CORD_ANATOMY = len(CODES)
PLANE_MM = 3.0  # so much below the labels is in doubt, as they are 3 mm above their lower limit
BRAINSTEM_CODE, CORD_TISSUE_CODE, CSF_CODE = 16, 512, 24
OUTSIDE_BRAIN_FROM = 500


@dataclass(frozen=True)
class Case:
    """One head or label map.

    Attributes
    ----------
    name : str
        Source and subject, e.g. ``"ds011_sub-01"``.
    real : bool
        A head with an image, or a label map to draw images from.
    arrays : dict of str to ndarray of uint8, shape (z, y, x)
        ``near/labels``, ``far/labels`` always; ``near/image``, ``far/image`` for a head;
        ``near/anatomy``, ``far/anatomy`` (positions in `CODES`) for a map; ``near/brain``,
        ``far/brain`` where the brain is known apart from the rest of the head.
    """

    name: str
    real: bool
    arrays: dict[str, NDArray[np.uint8]]


def read_split(path: Path | None = None) -> dict[str, list[str]]:
    """Return the case names of each part of the split (train, validation, test)."""
    with (path or Path(__file__).with_name("split.toml")).open("rb") as file:
        parts = tomllib.load(file)
    return {
        part: [
            f"{source}_{subject}" for source, subjects in sources.items() for subject in subjects
        ]
        for part, sources in parts.items()
    }


def load_cases(path: Path) -> dict[str, Case]:
    """Read all cases of a prepared file."""
    arrays: dict[str, dict[str, NDArray[np.uint8]]] = {}
    with np.load(path) as file:
        for key in file.files:
            name, array = key.split("/", 1)
            arrays.setdefault(name, {})[array] = file[key]
    return {name: Case(name, "near/image" in found, found) for name, found in arrays.items()}


def save_cases(path: Path, cases: Iterator[Case]) -> None:
    """Write cases to one compressed file."""
    flat: dict[str, Any] = {
        f"{case.name}/{key}": array for case in cases for key, array in case.arrays.items()
    }
    np.savez_compressed(path, **flat)


def to_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale an image to 8 bit, 0 staying 0 and the 99.9th percentile becoming 250."""
    top = np.percentile(image[image > 0], 99.9) if (image > 0).any() else 1.0
    scaled = np.clip(image / top * 250, 0, 255)
    return np.where((scaled < 1) & (image > 0), 1, np.round(scaled)).astype(np.uint8)


def cut(
    data: NDArray[Any], affine: NDArray[np.float64], centre: NDArray[np.float64],
    size: int, spacing: float, order: Literal[0, 1, 3],
) -> NDArray[Any]:  # fmt: skip
    """Resample a cube of an image around a point.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Image in RAS voxel order.
    affine : ndarray, shape (4, 4)
        Its affine; only the voxel sizes are used, so that the cube keeps the image's own axes.
    centre : ndarray, shape (3,)
        Voxel of `data` at the middle of the cube.
    size, spacing : int, float
        Edge of the cube in voxels, and their size in mm.
    order : int
        Order of the spline; 0 for labels.

    Returns
    -------
    ndarray, shape (size, size, size)
        In (z, y, x) order; 0 outside the image.
    """
    from scipy import ndimage

    step = spacing / np.sqrt((affine[:3, :3] ** 2).sum(0))
    offset = centre - step * (size - 1) / 2
    cube = ndimage.affine_transform(
        data, np.diag(step), offset, output_shape=(size,) * 3, order=order, mode="constant", cval=0
    )
    return np.ascontiguousarray(cube.transpose(2, 1, 0))


def looks(
    data: Mapping[str, NDArray[Any]], affine: NDArray[np.float64], labels: NDArray[np.uint8]
) -> dict[str, NDArray[np.uint8]]:
    """Cut the near and the far look of a head.

    Parameters
    ----------
    data : mapping of str to ndarray, shape (X, Y, Z)
        ``image`` (any numbers) or ``anatomy`` (uint8), and perhaps ``brain`` (uint8).
    affine : ndarray, shape (4, 4)
        Affine of all of them.
    labels : ndarray of uint8, shape (X, Y, Z)
        The labels to learn.

    Returns
    -------
    dict of str to ndarray of uint8, shape (z, y, x)
    """
    inside = np.argwhere(np.isin(labels, REGIONS)).mean(0)
    head = np.argwhere(next(iter(data.values())) > 0)
    middle = (head.min(0) + head.max(0)) / 2
    found: dict[str, NDArray[np.uint8]] = {}
    for name, array in {**data, "labels": labels}.items():
        image = name == "image"
        source = array.astype(np.float32) if image else array
        near = cut(source, affine, inside, NEAR_SIZE, NEAR_MM, 3 if image else 0)
        far = cut(source, affine, middle, FAR_SIZE, FAR_MM, 1 if image else 0)
        if image:
            # A cubic spline rings around the zeros of a stripped head; those stay exactly 0.
            empty = cut((source == 0).astype(np.uint8), affine, inside, NEAR_SIZE, NEAR_MM, 0) > 0
            near[empty] = 0
            near, far = to_bytes(np.maximum(near, 0)), to_bytes(np.maximum(far, 0))
        found[f"near/{name}"], found[f"far/{name}"] = near, far
    return found


def track_cord(codes: NDArray[np.int_], labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Follow the cord of a SynthSeg map downwards from the medulla.

    The maps have no code for the cord: where label 16 has ended, it carries that of another tissue
    outside the brain. From the lowest slice of the medulla on, the piece of these two that touches
    the slice above is the cord, as long as its area stays between 20 and 250 mm2.

    Parameters
    ----------
    codes : ndarray of int, shape (X, Y, Z)
        FreeSurfer codes at 1 mm.
    labels : ndarray of uint8, shape (X, Y, Z)
        Labels of the brainstem.
    """
    from scipy import ndimage

    cord = np.zeros(codes.shape, dtype=bool)
    area = (labels == MEDULLA).sum((0, 1))
    lowest = int(np.argmax(area >= 20))
    above = ndimage.binary_dilation(labels[:, :, lowest] == MEDULLA, iterations=1)
    for z in range(lowest - 1, -1, -1):
        tissue = np.isin(codes[:, :, z], (CORD_TISSUE_CODE, BRAINSTEM_CODE))
        pieces, count = ndimage.label(tissue & above)
        if not count:
            break
        sizes = ndimage.sum_labels(np.ones_like(pieces), pieces, np.arange(1, count + 1))
        piece = pieces == 1 + int(np.argmax(sizes))
        if not 20 <= piece.sum() <= 250:
            break
        cord[:, :, z] = piece & (labels[:, :, z] != MEDULLA)
        above = ndimage.binary_dilation(piece, iterations=1)
    return cord


def know_fluid(labels: NDArray[np.uint8], image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Call background what is set aside but as dark as fluid on a T1w image.

    The limit is the middle between the median of the brainstem and the 10th percentile of the
    3 voxels around it.
    """
    from scipy import ndimage

    stem = np.isin(labels, REGIONS)
    around = (labels == 0) & ndimage.binary_dilation(stem, iterations=3) & (image > 0)
    dark = image < (np.median(image[stem]) + np.percentile(image[around], 10)) / 2
    out = labels.copy()
    out[(labels >= NOT_STEM) & dark] = 0
    return out


def read_brainstem(
    path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read the labels of a head that `bids_app.training.labels` made, onto the head's grid.

    Parameters
    ----------
    path : Path
        ``NAME_probseg.nii.gz``.
    shape, affine : tuple of int, ndarray of float64, shape (4, 4)
        The head's grid in RAS voxel order.

    Returns
    -------
    labels : ndarray of uint8, shape `shape`
        1 midbrain, 2 pons, 3 medulla, 4 cord; peduncles of the cerebellum are background.
    aside : ndarray of bool, shape `shape`
        What is to be left out of the loss. Below the labels it goes on down to the lowest slice.
    """
    import nibabel

    from bids_app.training.atlas import NAMES
    from bids_app.training.carry import harden
    from bids_app.training.labels import read_labels

    shares, ignore, origin = read_labels(path)
    regions = np.zeros(len(NAMES) + 1, np.uint8)
    regions[[NAMES.index(name) + 1 for name in ("midbrain", "pons", "medulla", "cord")]] = (
        *REGIONS,
        CORD,
    )
    both = np.stack([regions[harden(shares)], ignore], axis=-1).astype(np.uint8)
    crop = nibabel.as_closest_canonical(nibabel.Nifti1Image(both, origin))
    first = np.round(np.linalg.solve(affine, crop.affine)[:3, 3]).astype(int)
    x, y, z = (slice(a, a + n) for a, n in zip(first, crop.shape[:3], strict=True))
    labels, aside = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    labels[x, y, z] = np.asarray(crop.dataobj)[..., 0]
    aside[x, y, z] = np.asarray(crop.dataobj)[..., 1] > 0
    aside[:, :, : z.start] = aside[:, :, z.start, None]
    return labels, aside


def brain_of(codes: NDArray[np.int_], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what lies inside the skull in a SynthSeg map: 1 brain, 2 fluid, 0 outside.

    Fluid below the medulla belongs to the spinal canal and counts as outside.
    """
    inside = np.where((codes > 0) & (codes < OUTSIDE_BRAIN_FROM), 1, 0).astype(np.uint8)
    inside[codes == CSF_CODE] = 2
    lowest = int(np.argwhere(labels == MEDULLA)[:, 2].min())
    inside[:, :, :lowest][codes[:, :, :lowest] == CSF_CODE] = 0
    return inside


def read_ras(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read an image as (X, Y, Z) in RAS voxel order, and its affine."""
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(image.dataobj), image.affine


def read_map(path: Path, labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """Read a SynthSeg map.

    Parameters
    ----------
    path : Path
        The map, whose voxels are of 1 mm.
    labels : ndarray of uint8, shape (X, Y, Z)
        Its labels of the brainstem and the cord.

    Returns
    -------
    anatomy, brain, cord : ndarray of uint8, shape (X, Y, Z)
        Positions in `CODES`, what lies inside the skull (`brain_of`), and the cord (`track_cord`).
    """
    codes = np.round(read_ras(path)[0]).astype(int)
    positions = np.zeros(max(CODES) + 1, dtype=np.uint8)
    positions[list(CODES)] = np.arange(len(CODES))
    anatomy = positions[codes]
    # Where a map's own brainstem ends early its labels do not: such an image must show brainstem.
    outside = (codes == 0) | (codes == CSF_CODE) | (codes >= OUTSIDE_BRAIN_FROM)
    anatomy[np.isin(labels, REGIONS) & outside] = CODES.index(BRAINSTEM_CODE)
    cord = track_cord(codes, labels)
    anatomy[cord | (labels == CORD)] = CORD_ANATOMY
    return anatomy, brain_of(codes, labels), cord.astype(np.uint8)


def make_case(name: str, image_path: Path, labels_path: Path) -> Case:
    """Prepare a head or a map with its labels."""
    image, affine = read_ras(image_path)
    labels, aside = read_brainstem(labels_path, image.shape[:3], affine)
    learned = np.where(aside, np.uint8(IGNORE), labels)
    floor = int(np.argmax(labels.any((0, 1)))) - round(PLANE_MM / np.linalg.norm(affine[:3, 2]))
    learned[:, :, : max(floor, 0)][learned[:, :, : max(floor, 0)] == IGNORE] = NOT_STEM
    if name.startswith("synthseg"):
        anatomy, brain, cord = read_map(image_path, labels)
        # Below the labels the cord of a map is known as far as it can be followed.
        slices = cord.any((0, 1)) & ~np.logical_or.accumulate(labels.any((0, 1)))
        learned[:, :, slices] = CORD * cord[:, :, slices]
        return Case(name, False, looks({"anatomy": anatomy, "brain": brain}, affine, learned))
    image = np.nan_to_num(np.squeeze(image).astype(np.float32))
    return Case(name, True, looks({"image": image}, affine, know_fluid(learned, image)))


def find_paths(name: str, data: Path, labels: Path) -> tuple[Path, Path]:
    """Return the paths of the image (or map) and of the labels of a case.

    Parameters
    ----------
    name : str
        As in the split: ``ds011_sub-01``, ``synthseg_02``.
    data : Path
        Folder with ``ds011/``, ``ds002748/`` and ``synthseg_labels/``.
    labels : Path
        Folder that `bids_app.training.labels` filled.
    """
    source, subject = name.split("_")
    drawn = labels / f"{name}_probseg.nii.gz"
    if source == "synthseg":
        return data / "synthseg_labels" / f"training_seg_{subject}.nii.gz", drawn
    return data / source / subject / "anat" / f"{subject}_T1w.nii.gz", drawn


def prepare(data: Path, labels: Path) -> Iterator[Case]:
    """Yield a case for every head and map to train and validate on that has labels.

    The folders are those of `find_paths`. Test heads never enter the file.
    """
    parts = read_split()
    for name in parts["train"] + parts["validation"]:
        image, drawn = find_paths(name, data, labels)
        if drawn.exists():
            yield make_case(name, image, drawn)


def main() -> None:
    """Write the prepared file: ``python -m bids_app.training.data DATA LABELS FILE``."""
    parser = argparse.ArgumentParser(description="Prepare one file of arrays to train on.")
    parser.add_argument("data", type=Path, help="folder with the public data")
    parser.add_argument("labels", type=Path, help="folder with the labels to learn")
    parser.add_argument("file", type=Path, help="the file to write (.npz)")
    arguments = parser.parse_args()
    save_cases(arguments.file, prepare(arguments.data, arguments.labels))


if __name__ == "__main__":
    main()
