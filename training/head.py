"""Fit the last layer of a network to classes that are new to it.

A new class begins without weights of its own, and gradient descent on patches takes a thousand
steps to give it any, since few voxels are of it. The last layer alone is a regression on 16
features of every voxel, which is solved in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.cases import ICP, IGNORE, MEDULLA, NOT_STEM

if TYPE_CHECKING:
    from collections.abc import Iterable

# Parts of the voxels that are looked at, which count the more: of background, regions and parts.
KEPT = torch.tensor([0.01, *[0.05] * MEDULLA, *[0.5] * (ICP - MEDULLA)])
ITERATIONS = 40


def fit_last_layer(
    network: nn.Module, patches: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Fit the last layer to patches by logistic regression, and leave all else as it is.

    Parameters
    ----------
    network : torch.nn.Module
        A `dynamic_network_architectures` U-Net; its last layer is changed.
    patches : iterable of (Tensor, Tensor)
        Images of float32 (z, y, x) and their targets of int64; `IGNORE` and `NOT_STEM` are left
        out.
    """
    layer: nn.Module = network.decoder.seg_layers[-1]  # type: ignore[union-attr,index,assignment]
    taken: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: taken.append(given[0].detach()))
    features, targets, weights = [], [], []
    generator = torch.Generator().manual_seed(0)
    try:
        for image, target in patches:
            with torch.no_grad():
                network(image[None, None])
            rows = taken.pop()[0].flatten(1).T
            flat = target.flatten()
            known = (flat != IGNORE) & (flat != NOT_STEM)
            share = KEPT[torch.where(known, flat, 0)]
            kept = known & (torch.rand(flat.shape, generator=generator) < share)
            features.append(rows[kept].float())
            targets.append(flat[kept])
            weights.append(1 / share[kept])
    finally:
        hook.remove()
    given, wanted, counts = (torch.cat(parts) for parts in (features, targets, weights))
    old_weight, old_bias = layer.parameters()
    weight = old_weight.detach().flatten(1).clone().requires_grad_()
    bias = old_bias.detach().clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        entropy = functional.cross_entropy(given @ weight.T + bias, wanted, reduction="none")
        total = (entropy * counts).sum() / counts.sum() + 1e-5 * weight.square().sum()
        torch.autograd.backward(total)
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        old_weight.copy_(weight.view(old_weight.shape))
        old_bias.copy_(bias)
