"""Measure a segmenter on the validation cases, in the canonical frame and without the app.

``python -m training.probe WEIGHTS FILE`` takes ``checkpoint.pth`` of a run or an exported
``checkpoint_final.pth``, and prints as TSV

- ``dice``: of each region and part, without what is set aside;
- ``volume``: sums of probabilities in ml, as a part of the labels' where the labels are whole;
- ``slope``: change found per change made where a region is shrunk by 10 and 20 % of its volume,
  ``all`` ways, ``across`` or ``along`` the brainstem; peduncles are thinned on both sides;
- ``neckless``: change of volume when all is emptied from 5 mm below the medulla on.

It takes two or three minutes on one core, and chooses between runs; what is published is measured
with `training.evaluate` and the benchmarks.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bids_app.cli.options import guarded
from training.augment import make_image, place_patch, sample_anatomy
from training.cases import (
    CORD,
    ICP,
    IGNORE,
    MCP,
    MEDULLA,
    MIDBRAIN,
    NOT_STEM,
    PONS,
    SCP,
    STEM,
    TECTUM,
    is_of,
    load_cases,
    read_split,
)
from training.networks import LOOKS, build_network
from training.pose import sample, stretch_region
from training.weights import RUN_FILE, add_parts, look_of, read_exported, read_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from training.cases import Case
    from training.networks import Look

CPU = torch.device("cpu")
CLASSES: Mapping[str, tuple[int, ...]] = {
    "midbrain": (MIDBRAIN, TECTUM),
    "pons": (PONS,),
    "medulla": (MEDULLA,),
    "brainstem": STEM,
    "tectum": (TECTUM,),
    "scp": (SCP,),
    "mcp": (MCP,),
    "icp": (ICP,),
    "cord": (CORD,),
}
WAYS = {"all": (1.0, 1.0, 1.0), "across": (1.0, 1.0, 0.0), "along": (0.0, 0.0, 1.0)}
SHRUNK = {
    **dict.fromkeys(("midbrain", "pons", "medulla"), tuple(WAYS)),
    "mcp": ("all",),
    "scp": ("all",),
}
LOSSES = (0.1, 0.2)
NECK_MM = 5  # below the medulla
FADE = 2.0  # of the deformation


def read_network(path: Path) -> tuple[torch.nn.Module, Look]:
    """Read the network of a run or of an export; one of version 1 gets the classes of version 2."""
    run = path.name == RUN_FILE
    weights = add_parts(read_run(path.parent)["average"] if run else read_exported(path))
    look = look_of(LOOKS["segmenter"], weights, path)
    network = build_network(look)
    network.load_state_dict(weights)
    return network.eval(), look


@torch.no_grad()
def answer(
    network: torch.nn.Module,
    look: Look,
    case: Case,
    grid: torch.Tensor,
    below: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities (classes, z, y, x), mean with the mirrored, and target of a patch.

    The slices of a head that lie below `below` are emptied.
    """
    torch.manual_seed(0)
    anatomy = sample_anatomy(case, look, grid)
    if below is not None:
        anatomy.image[:, :, :below] = 0
    image, target, _ = make_image(anatomy, look, None, t1_like=True)
    both = network(torch.stack([image, image.flip(-1)])[:, None]).softmax(1)
    return (both[0] + both[1].flip(-1)) / 2, target


def measure(network: torch.nn.Module, look: Look, case: Case) -> Iterator[dict[str, Any]]:
    """Yield rows of Dice and volumes of a case, and of slopes if it is a head of thin slices."""
    grid = place_patch(case, look, None, CPU, 0.0)
    p, target = answer(network, look, case, grid)
    found = p.argmax(0)
    whole: dict[str, float] = {}
    for name, classes in CLASSES.items():
        known = target != IGNORE
        if not set(classes) <= set(STEM):
            known &= target != NOT_STEM
        a, b = is_of(found, classes) & known, is_of(target, classes) & known
        whole[name] = float(p[list(classes)].sum())
        if b.any():
            score = 2 * int((a & b).sum()) / int(a.sum() + b.sum())
            yield row(case, "dice", name, "", score)
        yield row(case, "volume", name, "", whole[name] / 1000)
    if not case.real:
        return
    lowest = int(
        torch.nonzero((sample_anatomy(case, look, grid).target == MEDULLA)[0, 0])[:, 0].min()
    )
    if lowest > NECK_MM:
        cut, _ = answer(network, look, case, grid, lowest - NECK_MM)
        for name in ("midbrain", "pons", "medulla"):
            change = float(cut[list(CLASSES[name])].sum()) / whole[name] - 1
            yield row(case, "neckless", name, "", change)
    if case.name.startswith("ms"):
        return
    labels = case.arrays["near/labels"]
    for name, ways in SHRUNK.items():
        for way in ways if np.isin(labels, CLASSES[name]).any() else ():
            yield row(
                case, "slope", name, way, slope(network, look, case, labels, name, way, whole)
            )


def slope(
    network: torch.nn.Module,
    look: Look,
    case: Case,
    labels: np.ndarray[Any, np.dtype[np.uint8]],
    name: str,
    way: str,
    whole: Mapping[str, float],
) -> float:
    """Return the change of volume found per change made, over `LOSSES`."""
    classes = CLASSES[name]
    masks = [np.isin(labels, classes)]
    if name in ("scp", "mcp"):
        middle = labels.shape[2] // 2
        left = np.arange(labels.shape[2]) < middle
        masks = [masks[0] & left, masks[0] & ~left]
    region = np.isin(labels, classes).astype(np.uint8)
    grid = place_patch(case, look, None, CPU, 0.0)
    before = float(sample(region, grid, "bilinear").sum())
    changes = []
    for loss in LOSSES:
        along = np.array(WAYS[way])
        stretch = (1 - loss) ** (-along / along.sum()) - 1
        moved = grid
        for mask in masks:
            moved = stretch_region(moved, mask, stretch, FADE)
        made = float(sample(region, moved, "bilinear").sum()) / before - 1
        p, _ = answer(network, look, case, moved)
        changes.append((made, float(p[list(classes)].sum()) / whole[name] - 1))
    made_all, found_all = np.array(changes).T
    return float((made_all @ found_all) / (made_all @ made_all))


def row(case: Case, measure: str, name: str, way: str, value: float) -> dict[str, Any]:
    """Make a row of the table."""
    return {
        "case": case.name,
        "measure": measure,
        "of": name,
        "way": way,
        "value": round(value, 4),
    }


def main() -> int:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description="Measure a segmenter on the validation cases.")
    parser.add_argument("weights", type=Path, help="checkpoint.pth or checkpoint_final.pth")
    parser.add_argument("file", type=Path, help="the prepared file")
    arguments = parser.parse_args()
    network, look = read_network(arguments.weights)
    cases = load_cases(arguments.file)
    writer = csv.DictWriter(
        sys.stdout, ["case", "measure", "of", "way", "value"], delimiter="\t", lineterminator="\n"
    )
    writer.writeheader()
    for name in read_split()["validation"]:
        if name in cases:
            writer.writerows(measure(network, look, cases[name]))
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
