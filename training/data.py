"""One file of arrays to learn from: heads and label maps, cut and resampled once.

Every array is in (z, y, x) order: z up, y to the front, x to the right. A case holds two looks at
the same head: a *near* one of 144 mm at 1 mm around the brainstem (for the segmenter) and a *far*
one of 256 mm at 2 mm (for the locator). Images are stored as 8 bit between 0 and the 99.9th
percentile, maps by position in `CODES`. The file is a compressed ``.npz`` whose keys are
``<case>/<look>/<array>``; it needs numpy alone to be read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bids_app.cli.options import guarded
from bids_app.errors import UsageError
from training.cases import (
    CORD,
    IGNORE,
    MEDULLA,
    NOT_STEM,
    REGIONS,
    Case,
    check_place,
    read_split,
    save_cases,
)
from training.sources import (
    find_paths,
    read_brainstem,
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


def make_case(name: str, image_path: Path, labels_path: Path) -> Case:
    """Prepare a head or a map with its labels."""
    image, affine = read_ras(image_path)
    labels, aside = read_brainstem(labels_path, image.shape[:3], affine)
    learned = np.where(aside, np.uint8(IGNORE), labels)
    learned = know_beside_limit(learned, labels, np.linalg.norm(affine[:3, :3], axis=0))
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
        if paths and name in faults:
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
