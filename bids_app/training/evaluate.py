"""Score a model folder on held-out heads, end to end as the app runs it.

``python -m bids_app.training.evaluate MODEL DATA LABELS --part test`` prints a table (TSV).
Maps have no image: a T1-like one is drawn from the whole map, the same at every call.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bids_app.engines.nnunet.cascade import Cascade
from bids_app.training.augment import blur
from bids_app.training.data import (
    IGNORE,
    MEDULLA,
    find_paths,
    read_brainstem,
    read_map,
    read_ras,
    read_split,
)
from bids_app.training.networks import REGIONS
from bids_app.training.synthesis import draw_image

if TYPE_CHECKING:
    from numpy.typing import NDArray


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
    """Return the Dice overlap of two masks on part of the grid; nan where both are empty."""
    total = int((found & where).sum() + (truth & where).sum())
    return 2 * int((found & truth & where).sum()) / total if total else float("nan")


def read_case(
    name: str, data: Path, labels: Path
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]] | None:
    """Read a head, or draw an image of a map; None without labels.

    Returns
    -------
    image : ndarray of float32, shape (X, Y, Z)
    truth, loose : ndarray of uint8, shape (X, Y, Z)
        The labels, and the same with `IGNORE` where they are in doubt.
    voxel : ndarray of float64, shape (3,)
        Edges in mm.
    """
    image_path, labels_path = find_paths(name, data, labels)
    if not labels_path.exists():
        return None
    found, affine = read_ras(image_path)
    truth, aside = read_brainstem(labels_path, found.shape[:3], affine)
    loose = np.where(aside, np.uint8(IGNORE), truth)
    voxel = np.sqrt((affine[:3, :3] ** 2).sum(0))
    image: NDArray[np.float32] = np.nan_to_num(np.squeeze(found).astype(np.float32))
    if name.startswith("synthseg"):
        torch.manual_seed(0)
        anatomy = torch.from_numpy(read_map(image_path, truth)[0].astype(np.int64))[None, None]
        sharp = draw_image(anatomy, np.random.default_rng(0), t1_like=True)
        image = blur(sharp, (0.5, 0.5, 0.5))[0, 0].numpy()
    return image, truth, loose, voxel


def score(
    found: NDArray[np.uint8], truth: NDArray[np.uint8], loose: NDArray[np.uint8], voxel_ml: float
) -> list[dict[str, Any]]:
    """Compare label maps, region by region and as a whole.

    Parameters
    ----------
    found, truth, loose : ndarray of uint8, shape (X, Y, Z)
        The model's labels, those to compare with, and these with `IGNORE` where in doubt.
    voxel_ml : float
        Volume of a voxel.

    Returns
    -------
    list of dict
        Region, Dice on all voxels, Dice without those in doubt, and both volumes.
    """
    regions = {name: (index, index) for index, name in enumerate(REGIONS, start=1)}
    regions["brainstem"] = (1, MEDULLA)
    rows = []
    for name, (low, high) in regions.items():
        a, b = (found >= low) & (found <= high), (truth >= low) & (truth <= high)
        rows.append({
            "region": name,
            "dice": round(dice(a, b, np.ones_like(a)), 4),
            "dice_sure": round(dice(a, b, loose != IGNORE), 4),
            "found_ml": round(float(a.sum() * voxel_ml), 3),
            "label_ml": round(float(b.sum() * voxel_ml), 3),
        })  # fmt: skip
    return rows


def evaluate(model: Path, data: Path, labels: Path, part: str) -> list[dict[str, Any]]:
    """Segment the heads of a part of the split and score them.

    Parameters
    ----------
    model : Path
        Model folder with ``locator/`` and ``segmenter/``.
    data, labels : Path
        As for `find_paths`.
    part : str
        ``validation`` or ``test``.
    """
    cascade = Cascade(model, device=torch.device("cpu"))
    rows: list[dict[str, Any]] = []
    for name in read_split()[part]:
        case = read_case(name, data, labels)
        if case is None:
            continue
        image, truth, loose, voxel = case
        output = cascade.predict(
            np.ascontiguousarray(image.transpose(2, 1, 0)), voxel[::-1].tolist()
        )
        found = np.zeros(image.shape[::-1], np.uint8)
        found[output.region] = output.probabilities.argmax(0)
        scores = score(found.transpose(2, 1, 0), truth, loose, float(voxel.prod()) / 1000)
        rows += [{"case": name, **row} for row in scores]
    return rows


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description="Score a model folder on held-out heads.")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="folder with the public data")
    parser.add_argument("labels", type=Path, help="folder with the labels")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    arguments = parser.parse_args()
    rows = evaluate(arguments.model, arguments.data, arguments.labels, arguments.part)
    writer = csv.DictWriter(sys.stdout, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
