"""Where the public data lies, and how its heads, maps and labels are read."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.errors import UsageError
from bids_app.io.tables import NOT_AVAILABLE
from training.cases import (
    BRAINSTEM_CODE,
    CODES,
    CORD,
    CORD_ANATOMY,
    CORD_TISSUE_CODE,
    CSF_CODE,
    MEDULLA,
    MIDBRAIN,
    OUTSIDE_BRAIN_FROM,
    PEDUNCLES,
    REGIONS,
    STEM,
    TECTUM,
)
from training.heads import image_path

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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


def read_brainstem(
    path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read the regions of a head and its cord; the arguments are those of `read_classes`.

    Returns
    -------
    labels : ndarray of uint8, shape `shape`
        1 midbrain (with the tectum), 2 pons, 3 medulla, 4 cord; peduncles are background.
    aside : ndarray of bool, shape `shape`
        As `read_classes` returns it.
    """
    labels, aside = read_classes(path, shape, affine)
    labels[labels == TECTUM] = MIDBRAIN
    labels[np.isin(labels, PEDUNCLES)] = 0
    return labels, aside


def read_classes(
    path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read the labels of a head that `training.labels` made, onto the head's grid.

    Parameters
    ----------
    path : Path
        ``NAME_probseg.nii.gz``.
    shape, affine : tuple of int, ndarray of float64, shape (4, 4)
        The head's `training.heads.label_grid`, in RAS voxel order.

    Returns
    -------
    labels : ndarray of uint8, shape `shape`
        Classes of `training.cases`; labels of version 1 have no tectum.
    aside : ndarray of bool, shape `shape`
        What is to be left out of the loss. Below the labels it goes on down to the lowest slice.
    """
    import nibabel

    from training.labels import read_labels

    shares, tectum, ignore, origin = read_labels(path)
    both = np.stack([classes_of(shares, tectum), ignore], axis=-1).astype(np.uint8)
    crop = nibabel.as_closest_canonical(nibabel.Nifti1Image(both, origin))
    first = np.round(np.linalg.solve(affine, crop.affine)[:3, 3]).astype(int)
    x, y, z = (slice(a, a + n) for a, n in zip(first, crop.shape[:3], strict=True))
    labels, aside = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    labels[x, y, z] = np.asarray(crop.dataobj)[..., 0]
    aside[x, y, z] = np.asarray(crop.dataobj)[..., 1] > 0
    aside[:, :, : z.start] = aside[:, :, z.start, None]
    return labels, aside


def classes_of(shares: NDArray[np.float32], tectum: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the class of the largest share, 0 where all together are below half.

    Parameters
    ----------
    shares, tectum : ndarray of float32, shape (7, i, j, k) and (i, j, k)
        As `training.labels.read_labels` returns them.
    """
    from training.atlas import NAMES
    from training.carry import harden

    class_by_name = dict(zip(NAMES, (*REGIONS, *PEDUNCLES, CORD), strict=True))
    classes = np.array([0, *class_by_name.values()], np.uint8)[harden(shares)]
    classes[(classes == MIDBRAIN) & (tectum > shares[0] / 2)] = TECTUM
    return classes


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
    anatomy[np.isin(labels, STEM) & outside] = CODES.index(BRAINSTEM_CODE)
    cord = track_cord(codes, labels)
    anatomy[cord | (labels == CORD)] = CORD_ANATOMY
    return anatomy, brain_of(codes, labels), cord.astype(np.uint8)


def find_paths(name: str, data: Path, labels: Path) -> tuple[Path, Path] | None:
    """Return the paths of the image (or map) and of the labels of a case; None without labels.

    The labels may have failed their checks: see `read_faults`.

    Parameters
    ----------
    name : str
        As in the split: ``ds011_sub-01``, ``synthseg_02``.
    data : Path
        Folder of the source data, as for `training.heads.find_heads`.
    labels : Path
        Folder that `training.labels` filled.

    Raises
    ------
    UsageError
        When there are labels, but not what they were drawn on.
    """
    drawn = labels / f"{name}_probseg.nii.gz"
    if not drawn.exists():
        return None
    image = image_path(name, data)
    if not image.exists():
        raise UsageError(f"{image} is missing, of which {labels} has labels.")
    return image, drawn


def read_faults(labels: Path) -> dict[str, str]:
    """Return the checks that labels fail, by case, for those that fail any.

    Read from ``labels.tsv``, which `training.labels` writes.
    """
    path = labels / "labels.tsv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {row["head"]: row["faults"] for row in rows if row["faults"] != NOT_AVAILABLE}
