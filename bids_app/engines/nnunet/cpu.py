"""Faster networks on a CPU, with the same results up to rounding."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

AT_ONCE_BYTES = 2 << 30  # memory for simultaneous passes
COPIES = 6  # full-resolution layers that a pass holds at its peak


def use_onednn(network: nn.Module) -> None:
    """Compute all 3-D convolutions of a network on the CPU with oneDNN, if torch has it.

    torch itself uses oneDNN only for inputs with more than 20480 values in their first two spatial
    planes. For others, such as the first layer of a U-Net (one channel) and its deep layers, it
    multiplies matrices, which takes three to seven times as long.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if type(module) is nn.Conv3d and _fits(module):
            module.forward = partial(_convolve, module)  # type: ignore[method-assign]


def passes_at_once(network: nn.Module, patch_size: Sequence[int], threads: int) -> int:
    """Choose the number of passes of a network to run at once on a CPU.

    Several passes with one thread each are faster than one pass with all threads, because small
    layers leave threads idle. But each pass needs memory of its own.
    """
    channels = next(m.out_channels for m in network.modules() if isinstance(m, nn.Conv3d))
    a_pass = COPIES * 4 * channels * math.prod(patch_size)
    return max(1, min(threads, AT_ONCE_BYTES // a_pass))


def _fits(layer: nn.Conv3d) -> bool:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and max(layer.kernel_size) > 1  # others are a matrix product already


def _convolve(layer: nn.Conv3d, values: Tensor) -> Tensor:
    output: Tensor = torch.mkldnn_convolution(
        values,
        layer.weight,
        layer.bias,
        layer.padding,  # type: ignore[arg-type]  # not text, as checked by `_fits`
        layer.stride,
        layer.dilation,
        layer.groups,
    )
    return output
