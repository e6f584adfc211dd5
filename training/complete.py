"""Fill what is not known of heads with what a first network says there.

The labels of heads leave out what registrations disagree on (docs/labels.md), also between regions,
and tell nothing of the inside of the skull, so nothing tells a network to follow those borders when
a region is resized or the head is turned. A network that has learned the borders from the maps
labels them on the heads as they are; deformed and turned with the tissue, these labels then teach
that the answer must move with it.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from bids_app.cli.options import guarded
from bids_app.errors import UsageError
from training.augment import make_image, place_patch, sample_anatomy
from training.cases import (
    IGNORE,
    MIDBRAIN,
    TECTUM,
    Case,
    check_place,
    load_cases,
    read_split,
    save_cases,
)
from training.data import FAR_MM, NEAR_SIZE, cut, near_look
from training.networks import LOOKS, build_network
from training.weights import add_parts, look_of, read_exported

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from training.networks import Look


@torch.no_grad()
def answer(case: Case, network: nn.Module, look: Look) -> torch.Tensor:
    """Return a network's answer for the plain patch of a case, as it is and mirrored left to right.

    Parameters
    ----------
    case : Case
    network : torch.nn.Module
        Maps (2, 1, z, y, x) to logits (2, classes, z, y, x).
    look : Look
        The network's.

    Returns
    -------
    Tensor of float32, shape (classes, z, y, x)
        Mean probabilities, where the case has its labels.
    """
    device = torch.device("cpu")
    anatomy = sample_anatomy(case, look, place_patch(case, look, None, device, 0.0))
    image, _, shift = make_image(anatomy, look, None, t1_like=True)
    as_is, mirrored = network(torch.stack([image, image.flip(-1)])[:, None]).softmax(1)
    mean: torch.Tensor = (as_is + mirrored.flip(-1)) / 2
    return mean.roll([-int(n) for n in shift.flip(0)], (1, 2, 3))


def complete_regions(case: Case, network: nn.Module, look: Look, *, outer: bool = False) -> Case:
    """Fill what is set aside between regions in a head's near look with the segmenter's answer.

    Parameters
    ----------
    case : Case
    network : torch.nn.Module
        As for `answer`.
    look : Look
        The network's.
    outer : bool
        Fill the outer border, too, which is left free else.

    Returns
    -------
    Case
        No voxel of the middle patch is `IGNORE` that lies, with all its neighbours, in what the
        segmenter holds for brainstem or cord, or with `outer` none at all; all others are as they
        were.
    """
    labels = case.arrays["near/labels"]
    start = (labels.shape[0] - look.size) // 2
    window = (slice(start, start + look.size),) * 3
    classes = answer(case, network, look).argmax(0).numpy().astype(np.uint8)
    if TECTUM in labels and TECTUM not in classes:  # a network that knows no parts
        midbrain = np.isin(labels[window], (MIDBRAIN, TECTUM))
        nearest = ndimage.distance_transform_edt(
            ~midbrain, return_distances=False, return_indices=True
        )
        classes = np.where(classes == MIDBRAIN, labels[window][tuple(nearest)], classes)
    told = outer | ndimage.binary_erosion(classes > 0, np.ones((3, 3, 3), bool))
    filled = labels.copy()
    filled[window] = np.where((labels[window] == IGNORE) & told, classes, labels[window])
    return Case(case.name, case.real, {**case.arrays, "near/labels": filled})


def complete_skull(case: Case, network: nn.Module, look: Look) -> Case:
    """Add the inside of the skull, by the locator's answer, to a head's looks.

    Returns
    -------
    Case
        With ``far/brain`` and ``near/brain``, 1 inside the skull. The near one is placed by the
        labels of both looks, to about a millimetre.
    """
    inside = answer(case, network, look)[1:].sum(0)[None, None]
    shape = case.arrays["far/labels"].shape
    fine = functional.interpolate(inside, shape, mode="trilinear", align_corners=True)
    brain = (fine[0, 0] > 0.5).numpy().astype(np.uint8)
    affine = np.diag([FAR_MM, FAR_MM, FAR_MM, 1.0])
    grid = near_look(case.arrays["far/labels"].transpose(2, 1, 0), affine)
    near = cut(brain.transpose(2, 1, 0), affine, grid, NEAR_SIZE, 0)
    return Case(case.name, case.real, {**case.arrays, "far/brain": brain, "near/brain": near})


COMPLETE: dict[str, Callable[..., Case]] = {
    "segmenter": complete_regions,
    "locator": complete_skull,
}


def main() -> int:
    """Write a completed file: ``... complete {segmenter,locator} FILE WEIGHTS NEW``."""
    parser = argparse.ArgumentParser(description="Fill what is not known of heads.")
    parser.add_argument("network", choices=sorted(LOOKS))
    parser.add_argument("file", type=Path, help="the prepared file")
    parser.add_argument("weights", type=Path, help="checkpoint_final.pth of the network")
    parser.add_argument("new", type=Path, help="the file to write (.npz)")
    parser.add_argument(
        "--outer", action="store_true", help="of a segmenter: fill the outer border, too"
    )
    arguments = parser.parse_args()
    complete = COMPLETE[arguments.network]
    if arguments.outer:
        if arguments.network != "segmenter":
            raise UsageError("--outer is of a segmenter: a locator tells no outer border.")
        complete = partial(complete_regions, outer=True)
    check_place(arguments.new)
    weights = read_exported(arguments.weights)
    if arguments.network == "segmenter":
        weights = add_parts(weights)
    look = look_of(LOOKS[arguments.network], weights, arguments.weights)
    network = build_network(look)
    network.load_state_dict(weights)
    network.eval()
    learn = read_split()["train"]  # the others' own labels score what is learned
    cases = load_cases(arguments.file).values()
    save_cases(
        arguments.new,
        (complete(c, network, look) if c.real and c.name in learn else c for c in cases),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
