"""Score a model folder on held-out heads, end to end as the app runs it.

``python -m training.evaluate MODEL DATA LABELS --part test`` prints a table (TSV).
Maps have no image: a T1-like one is drawn from the whole map, the same at every call.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from bids_app.cli.options import guarded
from bids_app.errors import UsageError
from bids_app.io.images import read_volume
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.models.manifest import read_manifest, verify
from bids_app.segmentation.segmenter import load_segmenter
from bids_app.segmentation.types import InferenceOptions
from training.cases import IGNORE, MEDULLA, read_split
from training.faults import blur
from training.heads import label_grid
from training.networks import REGIONS
from training.sources import (
    find_paths,
    read_brainstem,
    read_faults,
    read_map,
    read_ras,
)
from training.synthesis import draw_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bids_app.io.images import Volume

# Label values of each region, and of all three together.
VALUES: Mapping[str, tuple[int, ...]] = {
    **{name: (index,) for index, name in enumerate(REGIONS, start=1)},
    "brainstem": tuple(range(1, MEDULLA + 1)),
}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A head or a map with its labels, on the voxel grid of its image.

    Attributes
    ----------
    name : str
        As in the split: ``ds011_sub-06``.
    volume : Volume
        The image, as the app reads it.
    truth, loose : ndarray of uint8, shape (X, Y, Z)
        The labels (the cord is 4), and the same with `IGNORE` where they are in doubt.
    """

    name: str
    volume: Volume
    truth: NDArray[np.uint8]
    loose: NDArray[np.uint8]


def volume_of(data: NDArray[np.float32], affine: NDArray[np.float64]) -> Volume:
    """Write an image to a file and read it as the app does.

    Parameters
    ----------
    data : ndarray of float32, shape (I, J, K)
        In any voxel order.
    affine : ndarray, shape (4, 4)
        From voxels to RAS mm.

    Raises
    ------
    ImageError
        The app refuses such an image.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image_T1w.nii"
        nib.save(nib.Nifti1Image(data, affine), path)
        return read_volume(path)


def read_held_out(name: str, data: Path, labels: Path) -> HeldOut | None:
    """Read a head, or draw an image of a map; None without labels.

    Parameters
    ----------
    name : str
        As in the split.
    data, labels : Path
        As for `find_paths`.
    """
    paths = find_paths(name, data, labels)
    if paths is None:
        return None
    image_path, labels_path = paths
    if name.startswith("synthseg"):
        codes, affine = read_ras(image_path)
        truth, aside = read_brainstem(labels_path, codes.shape, affine)
        torch.manual_seed(0)
        anatomy = torch.from_numpy(read_map(image_path, truth)[0].astype(np.int64))[None, None]
        sharp = draw_image(anatomy, np.random.default_rng(0), t1_like=True)
        volume = volume_of(blur(sharp, (0.5, 0.5, 0.5))[0, 0].numpy(), affine)
    else:
        volume = read_volume(image_path)
        shape, affine = label_grid(volume.data.shape, volume.affine)
        truth, aside = read_brainstem(labels_path, shape, affine)
        pull = np.linalg.inv(affine) @ volume.affine
        if not np.allclose(pull, np.eye(4)):  # thick slices, labelled on smaller voxels
            truth, aside = (
                ndimage.affine_transform(
                    each, pull[:3, :3], pull[:3, 3], volume.data.shape, order=0
                )
                for each in (truth, aside)
            )
    return HeldOut(name, volume, truth, np.where(aside, np.uint8(IGNORE), truth))


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
    """Return the Dice overlap of two masks on part of the grid; nan where both are empty."""
    total = int((found & where).sum() + (truth & where).sum())
    return 2 * int((found & truth & where).sum()) / total if total else float("nan")


def border_distances(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], voxel_mm: Sequence[float]
) -> tuple[float, float]:
    """Measure how far the borders of two masks lie apart.

    Parameters
    ----------
    found, truth : ndarray of bool, shape (X, Y, Z)
    voxel_mm : sequence of three floats
        Edges of a voxel.

    Returns
    -------
    hausdorff95 : float
        95th percentile of the distances in mm from the faces of voxels that bound one mask to the
        nearest of the other, the larger of both ways.
    outwards : float
        Mean signed distance in mm of the found border from the true one, positive where `found`
        lies outside `truth`; the mean of both ways.

    Both are nan where a mask is empty.
    """
    if not (found.any() and truth.any()):
        return float("nan"), float("nan")
    window = _around(found | truth)
    masks = [np.pad(mask[window], 1) for mask in (found, truth)]
    borders = [_faces(masks[own], masks[1 - own], voxel_mm) for own in (0, 1)]
    away = [cKDTree(borders[1 - own][0]).query(borders[own][0])[0] for own in (0, 1)]
    # The true border's distance from the found one has the opposite sign.
    outwards = (away[0] * borders[0][1]).mean() - (away[1] * borders[1][1]).mean()
    return float(max(np.percentile(a, 95) for a in away)), float(outwards / 2)


def _faces(
    mask: NDArray[np.bool_], other: NDArray[np.bool_], voxel_mm: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Find the middles of the faces that bound a mask, shape (n, 3) in mm from the first voxel.

    The second array tells on which side of the other mask each lies: 1 outside, -1 inside, 0 on
    its border.
    """
    points, sides = [], []
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        before = np.argwhere(np.diff(mask, axis=axis))
        points.append((before + step / 2) * voxel_mm)
        sides.append(1 - sum(other[tuple(at.T)].astype(int) for at in (before, before + step)))
    return np.concatenate(points), np.concatenate(sides)


def score(
    found: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    loose: NDArray[np.uint8],
    voxel_mm: Sequence[float],
) -> list[dict[str, Any]]:
    """Compare label maps, region by region and as a whole.

    Parameters
    ----------
    found, truth, loose : ndarray of uint8, shape (X, Y, Z)
        The model's labels, those to compare with, and these with `IGNORE` where in doubt.
    voxel_mm : sequence of three floats
        Edges of a voxel.

    Returns
    -------
    list of dict
        Region, Dice on all voxels, Dice without those in doubt, 95 % Hausdorff distance and signed
        distance in mm (`border_distances`), and both volumes in ml.
    """
    voxel_ml = float(np.prod(voxel_mm)) / 1000
    window = _around((found > 0) | (truth > 0))
    found, truth, loose = found[window], truth[window], loose[window]
    rows = []
    for name, values in VALUES.items():
        a, b = np.isin(found, values), np.isin(truth, values)
        hausdorff95, outwards = border_distances(a, b, voxel_mm)
        rows.append({
            "region": name,
            "dice": round(dice(a, b, np.ones_like(a)), 4),
            "dice_sure": round(dice(a, b, loose != IGNORE), 4),
            "hd95_mm": round(hausdorff95, 3),
            "outwards_mm": round(outwards, 3),
            "found_ml": round(float(a.sum() * voxel_ml), 3),
            "label_ml": round(float(b.sum() * voxel_ml), 3),
        })  # fmt: skip
    return rows


def _around(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the box of a mask with two voxels more on each side; what is far off costs time."""
    hits = [np.flatnonzero(mask.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(max(int(h[0]) - 2, 0), int(h[-1]) + 3) if len(h) else slice(0) for h in hits)


def evaluate(folder: Path, data: Path, labels: Path, part: str) -> list[dict[str, Any]]:
    """Segment the heads of a part of the split and score them.

    Parameters
    ----------
    folder : Path
        Model folder with its manifest.
    data, labels : Path
        As for `find_paths`.
    part : str
        ``validation`` or ``test``.

    Raises
    ------
    UsageError
        When no head of the part has labels.
    """
    model = read_manifest(folder)
    verify(model)
    segment = load_segmenter(model, InferenceOptions(device="cpu", threads=torch.get_num_threads()))
    rows: list[dict[str, Any]] = []
    faults = read_faults(labels)
    for name in read_split()[part]:
        head = read_held_out(name, data, labels)
        if head is not None:
            found = segment(head.volume).labels
            scores = score(found, head.truth, head.loose, head.volume.voxel_size)
            fault = faults.get(name, NOT_AVAILABLE)
            rows += [{"case": name, **row, "faults_of_labels": fault} for row in scores]
    if not rows:
        raise UsageError(f"{labels} holds labels of no head of the {part} part.")
    return rows


def main() -> int:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description="Score a model folder on held-out heads.")
    parser.add_argument("model", type=Path, help="a model folder, with its manifest model.toml")
    parser.add_argument("data", type=Path, help="folder with the public data")
    parser.add_argument("labels", type=Path, help="folder with the labels")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    arguments = parser.parse_args()
    rows = evaluate(arguments.model, arguments.data, arguments.labels, arguments.part)
    writer = csv.DictWriter(sys.stdout, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
