"""What a checkpoint's graph (``.meta``, a MetaGraphDef) says beyond names and shapes.

The graph is followed from its softmax back to the input, and refused where it is not the network
of `network`. Nodes that only pass on or reshape what they get are passed over. Whitening and
padding are no part of a graph.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bids_app.engines.mdgru.layout import AXES, CHANNELS, DIRECTIONS, LAYERS, scan_name
from bids_app.engines.mdgru.protobuf import content, fields, integer
from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_GRAPH, _NODE, _NAME, _OP, _INPUT, _ATTRIBUTE = 2, 1, 1, 2, 3, 5
_PASSED = {"Identity", "Enter", "Exit", "Switch", "Reshape", "Squeeze", "ExpandDims"}
_SUMS = {"Add", "AddV2", "BiasAdd"}
_VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}
_INTEGERS = {3: "<i4", 9: "<i8"}
_DEEPEST = 100  # nodes between an activation and what it is computed of: about ten


_NOTHING: Mapping[str, str] = MappingProxyType({})


class _OtherGraphError(ValueError):
    """The option in which a graph differs."""


@dataclass(frozen=True)
class _Node:
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, bytes]


def check_graph(path: Path) -> tuple[int, int, int]:
    """Check a graph, and give the size of the windows that it was built for.

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
        The file is damaged, or the graph is another than this version runs; the message names
        the option.
    """
    try:
        data = path.read_bytes()
        nodes = _read_nodes(gzip.decompress(data) if path.suffix == ".gz" else data)
        return _Graph(nodes).check()
    except _OtherGraphError as error:
        raise ModelError(f"{path}: a network that this version does not run: {error}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{path}: cannot be read ({error}).") from None
    except (ValueError, KeyError, IndexError, RecursionError) as error:
        raise ModelError(
            f"{path}: damaged, or no graph of MD-GRU ({error}). Get the file again."
        ) from None


def _read_nodes(data: bytes) -> dict[str, _Node]:
    graphs = [content(value) for number, value in fields(data) if number == _GRAPH]
    nodes = {}
    for number, value in fields(b"".join(graphs)):
        if number != _NODE:
            continue
        name, op, inputs, attributes = "", "", [], {}
        for part, raw in fields(content(value)):
            if part == _NAME:
                name = content(raw).decode()
            elif part == _OP:
                op = content(raw).decode()
            elif part == _INPUT:
                inputs.append(content(raw).decode())
            elif part == _ATTRIBUTE:
                pair = dict(fields(content(raw)))
                attributes[content(pair[1]).decode()] = content(pair.get(2, b""))
        nodes[name] = _Node(op, tuple(i for i in inputs if not i.startswith("^")), attributes)
    return nodes


class _Graph:
    """The nodes of a graph by name, and the questions put to them."""

    def __init__(self, nodes: Mapping[str, _Node]) -> None:
        self._nodes = nodes

    def check(self) -> tuple[int, int, int]:
        """Follow the graph from the end to the input; give the window's size."""
        ends = [name for name, node in self._nodes.items() if node.op == "Softmax"]
        _same("one softmax at the end", len(ends), 1)
        for node in self._nodes.values():
            if node.op == "Conv2D":
                self._check_convolution(node)
        network = ends[0].partition("/")[0]
        at = self._source(ends[0])
        for layer in reversed(LAYERS):
            if layer != LAYERS[-1]:
                at = self._expect(at, "Tanh", f"the activation after layer {layer}")
            at = self._check_layer(f"{network}/", layer, at)
        node = self._nodes[_base(at)]
        _same("what the first layer gets", node.op, "Placeholder")
        sizes = _shape(node.attributes["shape"])
        _same("the number of axes of the input", len(sizes), 5)
        _same("the channels of the input", sizes[4], CHANNELS)
        return sizes[1], sizes[2], sizes[3]

    def _check_layer(self, network: str, layer: int, at: str) -> str:
        """Check the linear map and the six scans before it; give what they scan."""
        mean = self._convolved(at, f"{network}{layer}/W")
        mapped = self._expression(at, {_base(mean): "mean"}, network)
        expected = _sum(f"{layer}/b", f"conv2d(mean,{layer}/W)")
        _same(f"the linear map of layer {layer}", mapped, expected)
        divided = self._nodes[_base(mean)]
        _same(f"the mean (not the sum) of the scans of layer {layer}", divided.op, "RealDiv")
        _same("by how many scans are divided", self._expression(divided.inputs[1]), "6.0")
        scans = self._nodes[_base(self._pass(divided.inputs[0]))]
        _same("how scans are brought together", scans.op, "AddN")
        found = [self._check_scan(network, layer, name) for name in scans.inputs]
        wanted = [(axis, direction) for axis in AXES for direction in DIRECTIONS]
        _same(f"the scans of layer {layer}", sorted(f[:2] for f in found), sorted(wanted))
        _same(f"one input of the scans of layer {layer}", len({f[2] for f in found}), 1)
        return found[0][2]

    def _check_scan(self, network: str, layer: int, at: str) -> tuple[int, str, str]:
        """Check one scan; give its axis, its direction, and what it scans."""
        back, at = self._transposed(at)
        reverse_after, at = self._reversed(at)
        gathered = self._expect(self._skip_order(at), "TensorArrayGatherV3", "the scan", 2)
        loop = self._expect(gathered, "Merge", "the loop of the scan", 1)
        written = self._nodes[_base(self._expect(loop, "NextIteration", "the loop of the scan"))]
        _same("what a scan gives", written.op, "TensorArrayWriteV3")
        output = _base(written.inputs[2])
        state = next(
            name
            for name, node in self._nodes.items()
            if node.op == "Merge"
            and self._nodes[_base(node.inputs[1])].inputs == (written.inputs[2],)
        )
        start = self._pass(self._nodes[state].inputs[0])
        _same("the first state", self._expression(start), "fill(0.0)")

        cell = f"{network}{scan_name(layer, self._axis_of(back), _direction(reverse_after))}/"
        read = self._check_cell(output, state, cell)
        scattered = self._expect(read, "TensorArrayReadV3", "the input of a step", 2)
        ordered = self._expect(scattered, "TensorArrayScatterV3", "the input of the scan", 2)
        reverse_before, at = self._reversed(self._skip_order(ordered))
        forth, source = self._transposed(at)
        _same("the direction of a scan", reverse_before, reverse_after)
        axis = self._axis_of(back)
        planes = [n for n in (1, 2, 3) if n != axis]
        _same("the order of axes of a scan", forth, [0, *planes, axis, 4])
        return axis, _direction(reverse_after), source

    def _check_cell(self, output: str, state: str, cell: str) -> str:
        """Check a recurrent unit by its formula; give the node of its input."""
        inputs = {
            name
            for name, node in self._nodes.items()
            if node.op == "TensorArrayReadV3" and name.startswith(output.partition("CGRUCell")[0])
        }
        _same("the input of a step", len(inputs), 1)
        found = self._expression(output, {state: "state"}, cell)

        def convolutions(part: str) -> tuple[str, str]:
            name = f"{part}/ConvLinear/Filter"
            return f"conv2d(input,{name}Inp)", f"conv2d(state,{name}Stat)"

        gates = _sum("Gates/Bias", *convolutions("Gates"))
        update, reset = f"sigmoid(split0({gates}))", f"sigmoid(split1({gates}))"
        of_input, of_state = convolutions("Candidate")
        candidate = _sum("Candidate/Bias", of_input, _product(reset, of_state))
        new = f"tanh({candidate})"
        for option, part in (
            ("the gates (normalisation, DropConnect)", gates),
            ("the activation or order of the gates", update),
            ("the activation or order of the gates", reset),
            ("the candidate (place of the reset gate, normalisation, DropConnect)", candidate),
            ("the activation of the candidate", new),
        ):
            if part not in found:
                raise _OtherGraphError(option)
        expected = _sum(_product(update, "state"), _product(f"sub(1.0,{update})", new))
        _same("the new state (residual connection)", found, expected)
        return inputs.pop()

    def _check_convolution(self, node: _Node) -> None:
        padding, order = node.attributes.get("padding"), node.attributes.get("data_format")
        _same("padding of convolutions", padding, b"\x12\x04SAME")
        _same("order of axes of convolutions", order or b"\x12\x04NHWC", b"\x12\x04NHWC")
        for name in ("strides", "dilations"):
            ones = node.attributes.get(name)
            if ones is not None and ones != b"\n\x06\x1a\x04\x01\x01\x01\x01":
                raise _OtherGraphError(f"{name} of convolutions")

    def _expression(
        self, at: str, known: Mapping[str, str] = _NOTHING, prefix: str = "", depth: int = 0
    ) -> str:
        """Write out what a node computes; sums and products with their operands sorted.

        Nodes that are known stand under their symbols, variables without the prefix.
        """
        if depth > _DEEPEST:
            raise _OtherGraphError(f"a formula that does not end, at {at}")
        name, _, number = at.partition(":")
        node = self._nodes[name]
        if name in known:
            return known[name]
        if node.op == "TensorArrayReadV3":
            return "input"
        if node.op in _VARIABLES:
            return name.removeprefix(prefix)
        if node.op == "Const":
            return str(_scalar(node.attributes["value"]))
        if node.op in ("RandomStandardNormal", "Placeholder"):
            return node.op.lower()
        if node.op == "Fill":
            return f"fill({self._expression(node.inputs[1], known, prefix, depth + 1)})"
        if node.op == "Split":
            part = self._expression(node.inputs[1], known, prefix, depth + 1)
            return f"split{number or 0}({part})"
        if node.op in _PASSED:
            return self._expression(node.inputs[0], known, prefix, depth + 1)
        if node.op in _SUMS:
            return _sum(*self._terms(at, known, prefix, depth))
        parts = [self._expression(i, known, prefix, depth + 1) for i in node.inputs]
        if node.op == "Mul":
            # DropConnect with Gaussian noise of mean 1, which is 1 when all is kept
            if _NOISE in parts:
                parts.remove(_NOISE)
                return parts[0]
            return _product(*parts)
        return f"{node.op.lower()}({','.join(parts)})"

    def _terms(self, at: str, known: Mapping[str, str], prefix: str, depth: int) -> list[str]:
        """Write out what is added up in a node, and in nodes that it adds."""
        at = self._pass(at)
        node = self._nodes[_base(at)]
        if node.op not in _SUMS or _base(at) in known or depth > _DEEPEST:
            return [self._expression(at, known, prefix, depth + 1)]
        return [term for i in node.inputs for term in self._terms(i, known, prefix, depth + 1)]

    def _convolved(self, at: str, variable: str) -> str:
        """Find what is convolved with a variable, looking back from a node."""
        waiting, seen = [at], 0
        while waiting and seen < _DEEPEST:
            node = self._nodes[_base(waiting.pop())]
            seen += 1
            if node.op == "Conv2D":
                if _base(self._pass(node.inputs[1])) == variable:
                    return self._pass(node.inputs[0])
            else:
                waiting += node.inputs
        raise _OtherGraphError(f"the linear map {variable}")

    def _pass(self, at: str) -> str:
        for _ in range(_DEEPEST):
            node = self._nodes[_base(at)]
            if node.op not in _PASSED:
                return at
            at = node.inputs[0]
        raise _OtherGraphError(f"a path that does not end, at {at}")

    def _source(self, at: str) -> str:
        return self._pass(self._nodes[_base(at)].inputs[0])

    def _expect(self, at: str, op: str, option: str, number: int = 0) -> str:
        """Go on to an input of a node that must be of some kind."""
        node = self._nodes[_base(self._pass(at))]
        _same(option, node.op, op)
        return self._pass(node.inputs[number])

    def _transposed(self, at: str) -> tuple[list[int], str]:
        node = self._nodes[_base(self._pass(at))]
        _same("the order of axes of a scan", node.op, "Transpose")
        order = _numbers(self._nodes[_base(node.inputs[1])].attributes["value"])
        return order, self._pass(node.inputs[0])

    def _skip_order(self, at: str) -> str:
        """Pass over the exchange of time and batch, by which TensorFlow loops."""
        return self._pass(self._expect(at, "Transpose", "the scan"))

    def _reversed(self, at: str) -> tuple[bool, str]:
        node = self._nodes[_base(self._pass(at))]
        if node.op != "ReverseV2":
            return False, self._pass(at)
        axis = _numbers(self._nodes[_base(node.inputs[1])].attributes["value"])
        _same("the axis that is reversed", axis, [3])
        return True, self._pass(node.inputs[0])

    def _axis_of(self, back: list[int]) -> int:
        for axis in AXES:
            order = [0, *(n for n in (1, 2, 3) if n != axis), axis, 4]
            if back == [order.index(n) for n in range(5)]:
                return axis
        raise _OtherGraphError("the order of axes of a scan")


def _same(option: str, found: object, expected: object) -> None:
    if found != expected:
        raise _OtherGraphError(f"{option} ({found!s:.60}, not {expected!s:.60})")


def _base(name: str) -> str:
    return name.partition(":")[0]


def _direction(reverse: bool) -> str:
    return DIRECTIONS[1] if reverse else DIRECTIONS[0]


def _sum(*parts: str) -> str:
    return f"add({'+'.join(sorted(parts))})"


def _product(*parts: str) -> str:
    return f"mul({'*'.join(sorted(parts))})"


_NOISE = _sum(
    "1.0", _product("randomstandardnormal", "sqrt(realdiv(sub(1.0,placeholder),placeholder))")
)


def _shape(attribute: bytes) -> list[int]:
    """Sizes of a shape in an attribute; 2^64 - 1 where any will do."""
    message = content(dict(fields(attribute))[7])
    return [
        integer(dict(fields(content(value))).get(1, 0))
        for number, value in fields(message)
        if number == 2
    ]


def _tensor(attribute: bytes) -> dict[int, int | bytes]:
    return dict(fields(content(dict(fields(attribute))[8])))


def _scalar(attribute: bytes) -> float:
    tensor = _tensor(attribute)
    data = content(tensor.get(5) or tensor.get(4) or b"")
    if integer(tensor[1]) != 1 or len(data) != 4:
        return float("nan")  # no constant of a formula
    return float(np.frombuffer(data, "<f4")[0])


def _numbers(attribute: bytes) -> list[int]:
    tensor = _tensor(attribute)
    dtype = _INTEGERS[integer(tensor[1])]
    if packed := content(tensor.get(4, b"")):
        return [int(n) for n in np.frombuffer(packed, dtype)]
    single = tensor.get(7 if dtype == "<i4" else 10, b"")
    return list(content(single))
