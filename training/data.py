"""One file of arrays to learn from: heads and label maps, cut and resampled once.

Every array is in (z, y, x) order: z up, y to the front, x to the right. A case holds two looks at
the same head: a *near* one of 144 mm at 1 mm around the brainstem (for the segmenter), in the
canonical frame, and a *far* one of 256 mm at 2 mm (for the locator), on the image's own axes.
Images are stored as 8 bit between 0 and the 99.9th percentile, maps by position in `CODES`. The
file is a compressed ``.npz`` whose keys are ``<case>/<look>/<array>``; numpy alone can read it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import nibabel
import numpy as np
from nibabel.affines import apply_affine

from bids_app.cli.options import guarded
from bids_app.errors import UsageError
from training.cases import (
    CODES,
    CORD,
    ICP,
    IGNORE,
    MEDULLA,
    NOT_STEM,
    SCP,
    STEM,
    Case,
    check_place,
    read_split,
    save_cases,
)
from training.frame import canonical_frame, grid_affine, image_frame
from training.heads import Head, on_label_grid
from training.labels import read_labels
from training.sources import (
    classes_of,
    find_paths,
    read_classes,
    read_faults,
    read_map,
    read_ras,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray


NEAR_SIZE, NEAR_MM = 144, 1.0
FAR_SIZE, FAR_MM = 128, 2.0
PLANE_MM = 3.0  # so much below the labels is in doubt, as they are 3 mm above their lower limit
# The labels set aside 3 mm to both sides of the lower limit of the medulla. A network that is free
# to end it anywhere in these 6 mm ends it too high; all but the nearest 1 mm is learned.
LIMIT_MM, SURFACE_MM = 1.0, 1.0
# The thin peduncles of a map are cut to white matter. Cortex so near to them may be peduncle, too.
CORTEX, CORTEX_VOXELS = tuple(CODES.index(code) for code in (8, 47)), 2
# Their images end within the medulla, which the checks report; looked at, the labels are right.
ACCEPTED = ("formats_T2w", "ms_sub-01_ses-1", "ms_sub-01_ses-1_FLAIR")


def to_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale an image to 8 bit, 0 staying 0 and the 99.9th percentile becoming 250."""
    top = np.percentile(image[image > 0], 99.9) if (image > 0).any() else 1.0
    scaled = np.clip(image / top * 250, 0, 255)
    return np.where((scaled < 1) & (image > 0), 1, np.round(scaled)).astype(np.uint8)


def cut(
    data: NDArray[Any], affine: NDArray[np.float64], grid: NDArray[np.float64],
    size: int, order: Literal[0, 1, 3],
) -> NDArray[Any]:  # fmt: skip
    """Resample an image to a cube.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Image.
    affine : ndarray, shape (4, 4)
        Its affine.
    grid : ndarray, shape (4, 4)
        From voxels (x, y, z) of the cube to RAS mm.
    size : int
        Edge of the cube in voxels.
    order : int
        Order of the spline; 0 for labels.

    Returns
    -------
    ndarray, shape (size, size, size)
        In (z, y, x) order; 0 outside the image.
    """
    from scipy import ndimage

    pull = np.linalg.inv(affine) @ grid
    shape = (size,) * 3
    cube = ndimage.affine_transform(data, pull[:3, :3], pull[:3, 3], shape, order=order, cval=0)
    return np.ascontiguousarray(cube.transpose(2, 1, 0))


def looks(
    data: Mapping[str, NDArray[Any]], affine: NDArray[np.float64], labels: NDArray[np.uint8]
) -> dict[str, NDArray[np.uint8]]:
    """Cut the near look of a head, in its canonical frame, and the far one, on its own axes.

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
    head = np.argwhere(next(iter(data.values())) > 0)
    middle = apply_affine(affine, (head.min(0) + head.max(0)) / 2)
    near_grid = near_look(labels, affine)
    far_grid = grid_affine(image_frame(affine), middle, FAR_SIZE, FAR_MM)
    found: dict[str, NDArray[np.uint8]] = {}
    for name, array in {**data, "labels": labels}.items():
        image = name == "image"
        source = array.astype(np.float32) if image else array
        near = cut(source, affine, near_grid, NEAR_SIZE, 3 if image else 0)
        far = cut(source, affine, far_grid, FAR_SIZE, 1 if image else 0)
        if image:
            # A cubic spline rings around the zeros of a stripped head; those stay exactly 0.
            empty = cut((source == 0).astype(np.uint8), affine, near_grid, NEAR_SIZE, 0) > 0
            near[empty] = 0
            near, far = to_bytes(np.maximum(near, 0)), to_bytes(np.maximum(far, 0))
        found[f"near/{name}"], found[f"far/{name}"] = near, far
    return found


def near_look(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of the near look: the canonical frame around the brainstem."""
    centre = apply_affine(affine, np.argwhere(np.isin(labels, STEM)).mean(0))
    return grid_affine(canonical_frame(labels, affine), centre, NEAR_SIZE, NEAR_MM)


def smooth_labels(
    near: NDArray[np.uint8], path: Path, grid: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Draw the classes of a head's near look from the shares, where nothing is set aside.

    Labels of voxels that were sampled from the nearest of the head's own have steps where those
    are larger or turned.

    Parameters
    ----------
    near : ndarray of uint8, shape (z, y, x)
        The near look's labels by nearest neighbour.
    path : Path
        The head's ``NAME_probseg.nii.gz``.
    grid : ndarray, shape (4, 4)
        Of the near look.
    """
    shares, tectum, _, affine = read_labels(path)
    *drawn, drawn_tectum = (cut(s, affine, grid, NEAR_SIZE, 1) for s in (*shares, tectum))
    classes = classes_of(np.stack(drawn), drawn_tectum)
    return np.where(near >= NOT_STEM, near, classes)


def know_fluid(labels: NDArray[np.uint8], image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Call background what is set aside but as dark as fluid on a T1w image.

    The limit is the middle between the median of the brainstem and the 10th percentile of the
    3 voxels around it.
    """
    from scipy import ndimage

    stem = np.isin(labels, STEM)
    around = (labels == 0) & ndimage.binary_dilation(stem, iterations=3) & (image > 0)
    dark = image < (np.median(image[stem]) + np.percentile(image[around], 10)) / 2
    out = labels.copy()
    out[(labels >= NOT_STEM) & dark] = 0
    return out


def know_beside_limit(
    learned: NDArray[np.uint8], labels: NDArray[np.uint8], edges: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Take medulla and cord beside the lower limit for known, but for what is nearest to it.

    Parameters
    ----------
    learned : ndarray of uint8, shape (X, Y, Z)
        Labels with what is set aside.
    labels : ndarray of uint8, shape (X, Y, Z)
        Labels of all voxels.
    edges : ndarray, shape (3,)
        Voxel size in mm.

    Returns
    -------
    ndarray of uint8, shape (X, Y, Z)
        `learned`, with the labels of what lies within `PLANE_MM` of the limit but not within
        `LIMIT_MM`, and deeper than `SURFACE_MM` in brainstem or cord.
    """
    from scipy import ndimage

    out = learned.copy()
    inside = np.argwhere(labels)
    window = tuple(
        slice(max(a - 1, 0), b + 2) for a, b in zip(inside.min(0), inside.max(0), strict=True)
    )
    near = labels[window]
    ends = {MEDULLA: CORD, CORD: MEDULLA}
    depth = ndimage.distance_transform_edt(near > 0, sampling=edges)
    known = np.zeros(near.shape, bool)
    for own, other in ends.items():
        if (near == other).any():
            gap = ndimage.distance_transform_edt(near != other, sampling=edges) - edges[2] / 2
            known |= (near == own) & (gap >= LIMIT_MM) & (gap < PLANE_MM + 1) & (depth > SURFACE_MM)
    out[window][known] = near[known]
    return out


def doubt_cortex(labels: NDArray[np.uint8], anatomy: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Leave open whether cerebellar cortex of a map beside scp and icp is peduncle.

    Parameters
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        The labels to learn.
    anatomy : ndarray of uint8, shape (X, Y, Z)
        Positions in `CODES`.

    Returns
    -------
    ndarray of uint8, shape (X, Y, Z)
        `labels`, with `NOT_STEM` for background that is such cortex.
    """
    from scipy import ndimage

    near = ndimage.binary_dilation(np.isin(labels, (SCP, ICP)), iterations=CORTEX_VOXELS)
    cortex = np.isin(anatomy, CORTEX) & (labels == 0)
    return np.where(near & cortex, np.uint8(NOT_STEM), labels)


def make_case(name: str, image_path: Path, labels_path: Path) -> Case:
    """Prepare a head or a map with its labels."""
    image, affine = read_ras(image_path)
    if not name.startswith("synthseg"):
        fine = on_label_grid(nibabel.Nifti1Image(np.nan_to_num(np.squeeze(image)), affine))
        image, affine = fine.get_fdata(dtype=np.float32), fine.affine
    labels, aside = read_classes(labels_path, image.shape[:3], affine)
    learned = np.where(aside, np.uint8(IGNORE), labels)
    learned = know_beside_limit(learned, labels, np.linalg.norm(affine[:3, :3], axis=0))
    floor = int(np.argmax(labels.any((0, 1)))) - round(PLANE_MM / np.linalg.norm(affine[:3, 2]))
    learned[:, :, : max(floor, 0)][learned[:, :, : max(floor, 0)] == IGNORE] = NOT_STEM
    if name.startswith("synthseg"):
        anatomy, brain, cord = read_map(image_path, labels)
        # Below the labels the cord of a map is known as far as it can be followed.
        slices = cord.any((0, 1)) & ~np.logical_or.accumulate(labels.any((0, 1)))
        learned[:, :, slices] = CORD * cord[:, :, slices]
        learned = doubt_cortex(learned, anatomy)
        return Case(name, False, looks({"anatomy": anatomy, "brain": brain}, affine, learned))
    if Head(name, image_path).t1w:
        learned = know_fluid(learned, image)
    found = looks({"image": image}, affine, learned)
    near = smooth_labels(found["near/labels"], labels_path, near_look(learned, affine))
    return Case(name, True, {**found, "near/labels": near})


def prepare(data: Path, labels: Path) -> Iterator[Case]:
    """Yield a case for every head and map to train and validate on that has labels.

    The folders are those of `find_paths`. Test heads never enter the file, nor those whose labels
    fail a check.

    Raises
    ------
    UsageError
        When there are labels of none, or an image is missing.
    """
    parts = read_split()
    found = {n: find_paths(n, data, labels) for n in parts["train"] + parts["validation"]}
    if not any(found.values()):
        raise UsageError(f"{labels} holds no labels to learn. Make them: training.labels.")
    faults = read_faults(labels)
    for name, paths in found.items():
        if paths and name in faults and name not in ACCEPTED:
            print(f"{name}: left out, its labels fail a check ({faults[name]})")
        elif paths:
            yield make_case(name, *paths)
            print(f"{name}: prepared")


def main() -> int:
    """Write the prepared file: ``python -m training.data DATA LABELS FILE``."""
    parser = argparse.ArgumentParser(description="Prepare one file of arrays to train on.")
    parser.add_argument("data", type=Path, help="folder with the public data")
    parser.add_argument("labels", type=Path, help="folder with the labels to learn")
    parser.add_argument("file", type=Path, help="the file to write (.npz)")
    arguments = parser.parse_args()
    check_place(arguments.file)
    save_cases(arguments.file, prepare(arguments.data, arguments.labels))
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
