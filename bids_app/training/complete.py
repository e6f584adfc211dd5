"""Fill what is set aside at the borders of heads with what a first network says there.

The labels of heads leave out the outer border and what registrations disagree on (docs/labels.md),
so nothing tells a network to follow those borders when a region is resized. A network that was
trained without them, and has learned the borders from the maps, labels them on the heads as they
are; deformed with the tissue, these labels then teach that the answer must move with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bids_app.training.augment import draw_patch
from bids_app.training.cases import IGNORE, Case, load_cases, read_split, save_cases
from bids_app.training.networks import LOOKS, build_network

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from bids_app.training.networks import Look


@torch.no_grad()
def complete(case: Case, network: nn.Module, look: Look) -> Case:
    """Fill the voxels of a head that are set aside in its near look.

    Parameters
    ----------
    case : Case
        A head; its look for the locator is not changed.
    network : torch.nn.Module
        Maps (1, 1, z, y, x) to logits (1, classes, z, y, x); its answers for the head as it is
        and mirrored left to right are averaged.
    look : Look
        The network's.

    Returns
    -------
    Case
        No voxel of the middle patch is `IGNORE`; all others are as they were.
    """
    labels = case.arrays["near/labels"]
    image, _ = draw_patch(case, look, None, torch.device("cpu"))
    stack = torch.stack([image, image.flip(-1)])[:, None]
    as_is, mirrored = network(stack).softmax(1)
    answer: NDArray[np.uint8] = (as_is + mirrored.flip(-1)).argmax(0).numpy().astype(np.uint8)
    start = (labels.shape[0] - look.size) // 2
    window = (slice(start, start + look.size),) * 3
    filled = labels.copy()
    filled[window] = np.where(labels[window] == IGNORE, answer, labels[window])
    return Case(case.name, case.real, {**case.arrays, "near/labels": filled})


def main() -> None:
    """Write a completed file: ``python -m bids_app.training.complete FILE CHECKPOINT NEW``."""
    parser = argparse.ArgumentParser(description="Fill what is set aside at the borders of heads.")
    parser.add_argument("file", type=Path, help="the prepared file")
    parser.add_argument("checkpoint", type=Path, help="checkpoint_final.pth of a segmenter")
    parser.add_argument("new", type=Path, help="the file to write (.npz)")
    arguments = parser.parse_args()
    look = LOOKS["segmenter"]
    network = build_network(look)
    network.load_state_dict(torch.load(arguments.checkpoint, weights_only=True)["network_weights"])
    network.eval()
    learn = read_split()["train"]  # the others' own labels score what is learned
    cases = load_cases(arguments.file).values()
    save_cases(
        arguments.new,
        (complete(c, network, look) if c.real and c.name in learn else c for c in cases),
    )


if __name__ == "__main__":
    main()
