"""Sliding-window inference: overlapping mirrored tiles, Gaussian weights, sums in float32."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import torch
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from torch import Tensor, nn

    from bids_app.engines.nnunet.votes import Votes

STEP = 0.5  # in patches, nnU-Net's default


def tile_weights(patch_size: Sequence[int], device: torch.device) -> Tensor:
    """Weight of each voxel of a tile: a Gaussian with a sigma of an eighth of the patch.

    Returns
    -------
    Tensor of float32, shape `patch_size`
        1 at the centre and never 0. nnunetv2 rounds it to float16, which loses the corners.
    """
    weights: Tensor = compute_gaussian(
        tuple(patch_size), sigma_scale=1 / 8, dtype=torch.float32, device=device
    )
    return weights


def predict_tiles(
    network: nn.Module,
    data: Tensor,
    weights: Tensor,
    *,
    device: torch.device,
    mirror_axes: Sequence[int] = (),
    softmax: bool = False,
    votes: Votes | None = None,
    pool: Executor | None = None,
    progress: Callable[[int, int], object] = lambda _passes, _total: None,
) -> Tensor:
    """Run a network over an image, tile by tile.

    Parameters
    ----------
    network : nn.Module
        On `device`.
    data : Tensor of float32, shape (1, z, y, x)
        Results are summed on its device. Padded with 0 on both sides if smaller than a tile.
    weights : Tensor of float32, shape (patch z, patch y, patch x)
        Of a tile's voxels, on the device of `data`.
    device : torch.device
        Of the network.
    mirror_axes : sequence of int
        Spatial axes (0 to 2) to mirror along; all combinations are averaged.
    softmax : bool
        Average probabilities rather than logits.
    votes : Votes, optional
        Collects the predicted class of each mirroring of each tile.
    pool : Executor, optional
        Runs the network on several mirrorings at once; they are added in the same order.
    progress : callable, optional
        Called with the passes done since the last call and the total number of passes.

    Returns
    -------
    Tensor of float32, shape (C, z, y, x)
        Weighted mean of the tiles.
    """
    patch_size = weights.shape
    missing = [max(patch - size, 0) for patch, size in zip(patch_size, data.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    inner = [slice(b, b + size) for b, size in zip(before, data.shape[1:], strict=True)]
    padding = [
        p for b, m in zip(reversed(before), reversed(missing), strict=True) for p in (b, m - b)
    ]
    data = torch.nn.functional.pad(data, padding)
    steps = compute_steps_for_sliding_window(tuple(data.shape[1:]), tuple(patch_size), STEP)
    tiles = [
        tuple(slice(start, start + size) for start, size in zip(starts, patch_size, strict=True))
        for starts in itertools.product(*steps)
    ]
    number = len(tiles) * 2 ** len(mirror_axes)
    mirrored = partial(
        _mirrored,
        network,
        axes=mirror_axes,
        softmax=softmax,
        votes=votes,
        pool=pool,
        done=lambda: progress(1, number),
    )
    if len(tiles) == 1:  # no weighted mean is needed
        return mirrored(data.to(device)).to(data.device)[:, *inner]
    total: Tensor | None = None
    weight = torch.zeros(data.shape[1:], device=data.device)
    for tile in tiles:
        output = mirrored(data[:, *tile].to(device))
        if total is None:
            total = torch.zeros((len(output), *data.shape[1:]), device=data.device)
        total[:, *tile] += output.to(data.device).mul_(weights)
        weight[tile] += weights
    assert total is not None  # noqa: S101 - there are always tiles
    return total.div_(weight)[:, *inner]


def _mirrored(
    network: nn.Module,
    tile: Tensor,
    *,
    axes: Sequence[int],
    softmax: bool,
    votes: Votes | None,
    pool: Executor | None,
    done: Callable[[], object],
) -> Tensor:
    """Mean over all mirrored versions of a tile, shape (1, z, y, x) -> (C, z, y, x).

    They are added in the order of nnU-Net v1, last axis first, to reproduce its rounding.
    """
    batch = tile[None].contiguous()
    ordered = sorted((axis + 2 for axis in axes), reverse=True)
    versions = [
        [axis for bit, axis in enumerate(ordered) if number >> bit & 1]
        for number in range(2 ** len(ordered))
    ]

    @torch.inference_mode()  # this mode is set per thread
    def run(flipped: list[int]) -> tuple[Tensor, Tensor | None]:
        output = network(batch.flip(flipped) if flipped else batch)
        if softmax:
            output = output.softmax(1)
        if flipped:
            output = output.flip(flipped)
        return output, votes.of(output[0]) if votes is not None else None

    total: Tensor | None = None
    passes: list[Tensor] = []
    for output, vote in (pool.map if pool else map)(run, versions):
        if vote is not None:
            passes.append(vote)
        total = output if total is None else total.add_(output)
        done()
    assert total is not None  # noqa: S101 - the unmirrored tile comes first
    if votes is not None:
        votes.add(passes, total.shape[1])
    return total.div_(len(versions))[0]
