"""nnU-Net's plain network run by OpenVINO in float32: twice as fast on a CPU, when it is installed.

OpenVINO (https://docs.openvino.ai) keeps convolutions, normalisation and activation in the layout
that the processor likes best. It sums in another order than torch does, so that a voxel on the edge
between two classes may change sides: it is used only where the user asks for it. The network is
built layer by layer, not converted from torch's trace, which takes seconds and reports its use.
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
    "--device openvino needs OpenVINO, which is not installed: in the app's source folder, "
    "pip install -c constraints.txt '.[cpu]'. Or use --device cpu."
)
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}


class OpenVINONetwork(nn.Module):
    """A network compiled for this CPU, in place of the torch module that it was made from.

    Parameters
    ----------
    network : nn.Module
        A plain U-Net, on the CPU.
    patch_size : sequence of three ints
        The only size of its input, shape (1, 1, z, y, x).
    threads : int
        CPU threads.

    Raises
    ------
    UsageError
        OpenVINO is not installed, or the network has other layers than a plain U-Net.
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
    """Import OpenVINO, but not what it reports its use with, which writes to HOME and calls home.

    Its own code goes on without that package where it is absent.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        openvino = import_module("openvino")
        return openvino, import_module("openvino.opset13")
    except ImportError:
        raise UsageError(MISSING) from None


class _Graph:
    """Makes OpenVINO's operations of torch's layers."""

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
        """Append a layer, or layers within it one after the other."""
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
        f"--device openvino: this model has a {type(layer).__name__}, which only torch runs here. "
        "Use --device cpu."
    )
