"""Faster networks on a CUDA GPU: float16 with channels last in memory.

Convolutions multiply in float16 and sum in float32, as under torch's autocast, which nnU-Net also
uses. With channels last they run on tensor cores without rearranging. torch's instance
normalisation does not support this layout, but its batch normalisation does; both are the same for
a single image.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def use_half(network: nn.Module) -> None:
    """Make a network compute in float16 with channels last; input and output stay float32.

    Parameters
    ----------
    network : nn.Module
        On a CUDA device. Normalisations keep their weights and sums in float32.
    """
    network.to(torch.float16, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for module in network.modules():
        if type(module) is nn.InstanceNorm3d and not module.track_running_stats:
            module.float()
            module.forward = partial(_normalise, module)  # type: ignore[method-assign]
    network.register_forward_pre_hook(_to_half)
    network.register_forward_hook(_to_float)


def _normalise(layer: nn.InstanceNorm3d, values: Tensor) -> Tensor:
    """Normalise each channel of each image, shape (B, C, z, y, x)."""
    images = [
        functional.batch_norm(
            image, None, None, layer.weight, layer.bias, training=True, eps=layer.eps
        )
        for image in torch.split(values, 1)
    ]
    return images[0] if len(images) == 1 else torch.cat(images)


def _to_half(_network: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].to(torch.float16, memory_format=torch.channels_last_3d)


def _to_float(_network: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return output.to(torch.float32, memory_format=torch.contiguous_format)
