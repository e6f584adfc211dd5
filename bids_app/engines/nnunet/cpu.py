"""What makes a network quicker on a CPU and leaves its arithmetic as it is, to rounding."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

AT_ONCE_BYTES = 2 << 30  # that passes at once may take
COPIES = 6  # of the layers at full resolution that a pass holds at its peak


def use_onednn(network: nn.Module) -> None:
    """Have oneDNN compute all 3-D convolutions of a network on the CPU, where torch has it.

    torch gives oneDNN only inputs with more than 20480 voxels in their first two spatial planes,
    counted with channels and images, and multiplies matrices for others: a U-Net's first layer,
    of one channel, and its deep ones, which then take three to seven times as long.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if type(module) is nn.Conv3d and _fits(module):
            module.forward = partial(_convolve, module)  # type: ignore[method-assign]


def passes_at_once(network: nn.Module, patch_size: Sequence[int], threads: int) -> int:
    """Say how many passes of a network are best made at once on a CPU.

    One thread a pass computes more than all threads one pass after the other: small layers leave
    threads idle, and a thread that other work holds up keeps none waiting. But each pass takes
    memory of its own.
    """
    channels = next(m.out_channels for m in network.modules() if isinstance(m, nn.Conv3d))
    a_pass = COPIES * 4 * channels * math.prod(patch_size)
    return max(1, min(threads, AT_ONCE_BYTES // a_pass))


def _fits(layer: nn.Conv3d) -> bool:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and max(layer.kernel_size) > 1  # others are one matrix already


def _convolve(layer: nn.Conv3d, values: Tensor) -> Tensor:
    output: Tensor = torch.mkldnn_convolution(
        values,
        layer.weight,
        layer.bias,
        layer.padding,  # type: ignore[arg-type]  # `_fits` leaves text out
        layer.stride,
        layer.dilation,
        layer.groups,
    )
    return output
