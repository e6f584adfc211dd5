"""Plain nnU-Net networks run by OpenVINO in float32, twice as fast on a CPU. Optional.

OpenVINO (https://docs.openvino.ai) keeps layers in the memory layout that suits the processor. It
sums in another order than torch, so that voxels on the border between two classes can change: it is
only used if the user asks for it. The network is built layer by layer, because converting it from a
torch trace takes seconds and reports usage.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.simple_conv_blocks import (
    ConvDropoutNormReLU,
    StackedConvBlocks,
)
from torch import nn

from bids_app.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MISSING = (
    "--device openvino needs OpenVINO, which is not installed. In the app's source folder, run "
    "pip install -c constraints.txt '.[cpu]', or use --device cpu."
)
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}


class OpenVINONetwork(nn.Module):
    """A network compiled for this CPU, which replaces a torch module.

    Parameters
    ----------
    network : nn.Module
        A plain U-Net, on the CPU.
    patch_size : sequence of three ints
        The only supported size of its input, shape (1, 1, z, y, x).
    threads : int
        CPU threads.

    Raises
    ------
    UsageError
        OpenVINO is not installed, or the network is not a plain U-Net.
    """

    def __init__(self, network: nn.Module, patch_size: Sequence[int], threads: int) -> None:
        super().__init__()
        openvino, opset13 = _import()
        graph = _Graph(opset13)
        start = opset13.parameter([1, 1, *patch_size], np.float32)
        model = openvino.Model([graph.unet(network, start)], [start])
        settings = SETTINGS | {"INFERENCE_NUM_THREADS": str(threads)}
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()

    def forward(self, values: Tensor) -> Tensor:
        """Compute logits, shape (1, C, z, y, x)."""
        found = self._request.infer([values.contiguous().numpy()])[0]
        return torch.from_numpy(found.copy())


def _import() -> tuple[Any, Any]:
    """Import OpenVINO without its telemetry, which writes to HOME and sends data.

    OpenVINO works without that package.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        openvino = import_module("openvino")
        return openvino, import_module("openvino.opset13")
    except ImportError:
        raise UsageError(MISSING) from None


class _Graph:
    """Builds OpenVINO operations from torch layers."""

    def __init__(self, operations: Any) -> None:
        self._make = operations

    def unet(self, network: nn.Module, node: Any) -> Any:
        if not isinstance(network, PlainConvUNet):
            raise _unknown(network)
        skips = []
        for stage in network.encoder.stages:
            node = self.layer(stage, node)
            skips.append(node)
        decoder = network.decoder
        for up, stage, skip in zip(
            decoder.transpconvs, decoder.stages, reversed(skips[:-1]), strict=True
        ):
            node = self.layer(stage, self._make.concat([self.layer(up, node), skip], 1))
        return self.layer(decoder.seg_layers[-1], node)

    def layer(self, layer: nn.Module, node: Any) -> Any:
        """Append a layer, or the layers within it in sequence."""
        make = self._make
        if isinstance(layer, StackedConvBlocks):
            return self.layer(layer.convs, node)
        if isinstance(layer, ConvDropoutNormReLU):
            return self.layer(layer.all_modules, node)
        if isinstance(layer, nn.Sequential):
            for inner in layer:
                node = self.layer(inner, node)
            return node
        if isinstance(layer, nn.Identity | nn.Dropout3d):
            return node
        if isinstance(layer, nn.Conv3d) and layer.groups == 1 and layer.padding_mode == "zeros":
            padding = list(layer.padding)
            weights = make.constant(layer.weight.detach().numpy())
            node = make.convolution(
                node, weights, list(layer.stride), padding, padding, list(layer.dilation)
            )
            return self._shifted(node, layer.bias)
        if isinstance(layer, nn.ConvTranspose3d) and layer.kernel_size == layer.stride:
            weights = make.constant(layer.weight.detach().numpy())
            node = make.convolution_backprop_data(node, weights, list(layer.stride))
            return self._shifted(node, layer.bias)
        if isinstance(layer, nn.InstanceNorm3d) and layer.affine:
            axes = make.constant(np.array([2, 3, 4]))
            node = make.mvn(node, axes, True, layer.eps, "inside_sqrt")
            return self._shifted(make.multiply(node, self._channels(layer.weight)), layer.bias)
        if isinstance(layer, nn.LeakyReLU):
            slope = make.constant(np.array([layer.negative_slope], dtype=np.float32))
            return make.prelu(node, slope)
        raise _unknown(layer)

    def _shifted(self, node: Any, bias: Tensor | None) -> Any:
        return node if bias is None else self._make.add(node, self._channels(bias))

    def _channels(self, values: Tensor) -> Any:
        return self._make.constant(values.detach().numpy().reshape(1, -1, 1, 1, 1))


def _unknown(layer: nn.Module) -> UsageError:
    return UsageError(
        f"--device openvino does not support this model's {type(layer).__name__}. Use --device cpu."
    )
