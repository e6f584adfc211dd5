"""Check of a checkpoint's graph (``.meta``), which says more than names and shapes.

The graph is followed from its softmax back to the input, and refused if it differs from the network
of `bids_app.engines.mdgru.network`. Whitening and padding are not part of a graph.
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

from bids_app.engines.mdgru.layout import AXES, CHANNELS, DIRECTIONS, LAYERS, scan_name
from bids_app.errors import ModelError
from bids_app.io.files import read_bytes
from bids_app.models.importers.mdgru.nodes import (
    Nodes,
    OtherGraphError,
    base,
    product,
    read_nodes,
    same,
    sum_,
)

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.models.importers.mdgru.nodes import Node

_LARGEST = 1000  # voxels of a window
_WITHOUT = "Without this file, only names and shapes of the weights are checked."


def check_graph(path: Path) -> tuple[int, int, int]:
    """Check a graph, and return the window size that it was built for.

    Parameters
    ----------
    path : Path
        ``PREFIX.meta``, or that compressed, ``PREFIX.meta.gz``.

    Returns
    -------
    tuple of three ints
        Voxels along x, y, z.

    Raises
    ------
    ModelError
        The file is damaged, or the engine does not support the graph; the message names the
        option that differs.
    """
    try:
        data = read_bytes(path)
        nodes = read_nodes(gzip.decompress(data) if path.suffix == ".gz" else data)
        return Graph(nodes).check()
    except OtherGraphError as error:
        raise ModelError(
            f"{path}: a network that is not supported; it differs in {error}. {_WITHOUT}"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{path}: cannot be read ({error}).") from None
    except (ValueError, KeyError, IndexError, RecursionError) as error:
        raise ModelError(
            f"{path}: damaged, or not a graph of MD-GRU ({error}). Get the file again. {_WITHOUT}"
        ) from None


class Graph(Nodes):
    """A graph with checks of its architecture."""

    def check(self) -> tuple[int, int, int]:
        """Follow the graph from the end to the input; return the window size."""
        ends = [name for name, node in self.by_name.items() if node.op == "Softmax"]
        same("one softmax at the end", len(ends), 1)
        for node in self.by_name.values():
            if node.op == "Conv2D":
                _check_convolution(node)
        network = ends[0].partition("/")[0]
        at = self.input_of(ends[0], "Softmax", "the end")
        for layer in reversed(LAYERS):
            if layer != LAYERS[-1]:
                at = self.input_of(at, "Tanh", f"the activation after layer {layer}")
            at = self._check_layer(f"{network}/", layer, at)
        node = self.at(at)
        same("the input of the first layer", node.op, "Placeholder")
        sizes = node.shape()
        same("the number of axes of the input", len(sizes), 5)
        same("the channels of the input", sizes[4], CHANNELS)
        _, x, y, z, _ = sizes
        if not all(0 < size <= _LARGEST for size in (x, y, z)):
            raise OtherGraphError("the size of the windows, which is not fixed")
        return x, y, z

    def _check_layer(self, network: str, layer: int, at: str) -> str:
        """Check the linear map and the six scans before it; return the scanned place."""
        mean = self.convolved_with(f"{network}{layer}/W", at)
        mapped = self.formula(at, {base(mean): "mean"}, network)
        expected = sum_(f"{layer}/b", f"conv2d(mean,{layer}/W)")
        same(f"the linear map of layer {layer}", mapped, expected)
        divided = self.at(mean)
        same(f"the mean (not the sum) of the scans of layer {layer}", divided.op, "RealDiv")
        same("the divisor of the mean of the scans", self.formula(divided.inputs[1]), "6.0")
        scans = self.at(self.back(divided.inputs[0]))
        same("how scans are combined", scans.op, "AddN")
        found = [self._check_scan(network, layer, name) for name in scans.inputs]
        wanted = [(axis, direction) for axis in AXES for direction in DIRECTIONS]
        same(f"the scans of layer {layer}", sorted(f[:2] for f in found), sorted(wanted))
        same(f"the common input of the scans of layer {layer}", len({f[2] for f in found}), 1)
        return found[0][2]

    def _check_scan(self, network: str, layer: int, at: str) -> tuple[int, str, str]:
        """Check one scan; return its axis, its direction and the scanned place."""
        after, at = self._transposed(at)
        reverse_after, at = self._reversed(at)
        gathered = self.input_of(self._skip_order(at), "TensorArrayGatherV3", "the scan", 2)
        loop = self.input_of(gathered, "Merge", "the loop of the scan", 1)
        written = self.at(self.input_of(loop, "NextIteration", "the loop of the scan"))
        same("the output of a scan", written.op, "TensorArrayWriteV3")
        output = base(written.inputs[2])
        states = [
            name
            for name, node in self.by_name.items()
            if node.op == "Merge" and self.at(node.inputs[1]).inputs == (written.inputs[2],)
        ]
        same("the state of a scan, which is its output", len(states), 1)
        start = self.back(self.by_name[states[0]].inputs[0])
        same("the first state", self.formula(start), "fill(0.0)")

        direction = DIRECTIONS[reverse_after]
        axis = _axis(after)
        cell = f"{network}{scan_name(layer, axis, direction)}/"
        read = self._check_cell(output, states[0], cell)
        scattered = self.input_of(read, "TensorArrayReadV3", "the input of a step", 2)
        ordered = self.input_of(scattered, "TensorArrayScatterV3", "the input of the scan", 2)
        reverse_before, at = self._reversed(self._skip_order(ordered))
        before, source = self._transposed(at)
        same("the direction of a scan", reverse_before, reverse_after)
        same("the order of axes of a scan", before, _time_last(axis))
        return axis, direction, source

    def _check_cell(self, output: str, state: str, cell: str) -> str:
        """Check the formula of a recurrent unit; return the node of its input."""
        inputs = [
            name
            for name, node in self.by_name.items()
            if node.op == "TensorArrayReadV3" and name.startswith(output.partition("CGRUCell")[0])
        ]
        same("the input of a step", len(inputs), 1)
        found = self.formula(output, {state: "state"}, cell)

        def convolutions(part: str) -> tuple[str, str]:
            name = f"{part}/ConvLinear/Filter"
            return f"conv2d(input,{name}Inp)", f"conv2d(state,{name}Stat)"

        gates = sum_("Gates/Bias", *convolutions("Gates"))
        update, reset = f"sigmoid(split0({gates}))", f"sigmoid(split1({gates}))"
        of_input, of_state = convolutions("Candidate")
        candidate = sum_("Candidate/Bias", of_input, product(reset, of_state))
        new = f"tanh({candidate})"
        for option, part in (
            ("the gates (normalisation, DropConnect)", gates),
            ("the activation or order of the gates", update),
            ("the activation or order of the gates", reset),
            ("the candidate (place of the reset gate, normalisation, DropConnect)", candidate),
            ("the activation of the candidate", new),
        ):
            if part not in found:
                raise OtherGraphError(option)
        expected = sum_(product(update, "state"), product(f"sub(1.0,{update})", new))
        same("the new state (residual connection)", found, expected)
        return inputs[0]

    def _transposed(self, at: str) -> tuple[list[int], str]:
        node = self.at(self.back(at))
        same("the order of axes of a scan", node.op, "Transpose")
        return self.at(node.inputs[1]).integers(), self.back(node.inputs[0])

    def _skip_order(self, at: str) -> str:
        """Skip the transposition of time and batch around TensorFlow's loops."""
        return self.input_of(at, "Transpose", "the scan")

    def _reversed(self, at: str) -> tuple[bool, str]:
        node = self.at(self.back(at))
        if node.op != "ReverseV2":
            return False, self.back(at)
        same("the axis that is reversed", self.at(node.inputs[1]).integers(), [3])
        return True, self.back(node.inputs[0])


def _check_convolution(node: Node) -> None:
    padding, order = node.attributes.get("padding"), node.attributes.get("data_format")
    same("padding of convolutions", padding, b"\x12\x04SAME")
    same("order of axes of convolutions", order or b"\x12\x04NHWC", b"\x12\x04NHWC")
    for name in ("strides", "dilations"):
        ones = node.attributes.get(name)
        if ones is not None and ones != b"\n\x06\x1a\x04\x01\x01\x01\x01":
            raise OtherGraphError(f"{name} of convolutions")


def _time_last(axis: int) -> list[int]:
    """Order of axes that puts the axis of a scan after the axes of its planes."""
    return [0, *(n for n in AXES if n != axis), axis, 4]


def _axis(after: list[int]) -> int:
    """Find the axis of a scan from the transposition that follows it."""
    for axis in AXES:
        if after == [_time_last(axis).index(n) for n in range(5)]:
            return axis
    raise OtherGraphError("the order of axes of a scan")
