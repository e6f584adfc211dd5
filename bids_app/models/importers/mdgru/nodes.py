"""The nodes of a TensorFlow graph (``.meta``, a MetaGraphDef), and the formulas they compute.

Nodes that only pass on or reshape their input are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bids_app.models.importers.mdgru.protobuf import content, fields, integer

if TYPE_CHECKING:
    from collections.abc import Mapping

_GRAPH, _NODE, _NAME, _OP, _INPUT, _ATTRIBUTE = 2, 1, 1, 2, 3, 5
_PASSED = {"Identity", "Enter", "Exit", "Switch", "Reshape", "Squeeze", "ExpandDims"}
_SUMS = {"Add", "AddV2", "BiasAdd"}
_VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}
_INTEGERS = {3: "<i4", 9: "<i8"}
_MOST = 400  # nodes per formula; MD-GRU needs less than two hundred
_DEEPEST = 100  # nodes between an activation and its input; MD-GRU needs about ten
_NOTHING: Mapping[str, str] = MappingProxyType({})


class OtherGraphError(ValueError):
    """A graph differs in this option."""


@dataclass(frozen=True)
class Node:
    """One operation: its kind, the names of its inputs, and its attributes as stored."""

    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, bytes]

    def integers(self) -> list[int]:
        """Return the numbers of a constant."""
        tensor = self._tensor()
        dtype = _INTEGERS[integer(tensor[1])]
        if packed := content(tensor.get(4, b"")):
            return [int(n) for n in np.frombuffer(packed, dtype)]
        return list(content(tensor.get(7 if dtype == "<i4" else 10, b"")))

    def scalar(self) -> float:
        """Return the number of a constant; NaN if it is not a single float32."""
        tensor = self._tensor()
        data = content(tensor.get(5) or tensor.get(4) or b"")
        if integer(tensor[1]) != 1 or len(data) != 4:
            return float("nan")
        return float(np.frombuffer(data, "<f4")[0])

    def shape(self) -> list[int]:
        """Return the shape of a placeholder; 2^64 - 1 for any size."""
        message = content(dict(fields(self.attributes["shape"]))[7])
        return [
            integer(dict(fields(content(value))).get(1, 0))
            for number, value in fields(message)
            if number == 2
        ]

    def _tensor(self) -> dict[int, int | bytes]:
        return dict(fields(content(dict(fields(self.attributes["value"]))[8])))


def read_nodes(data: bytes) -> dict[str, Node]:
    """Read the nodes of a graph, by name.

    Raises
    ------
    ValueError
        The bytes are not a MetaGraphDef.
    """
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
        nodes[name] = Node(op, tuple(i for i in inputs if not i.startswith("^")), attributes)
    return nodes


class Nodes:
    """The nodes of a graph by name, with methods to follow its edges.

    A place in the graph is an output of a node: its name, with ``:1`` for the second output.
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.by_name = nodes

    def at(self, place: str) -> Node:
        """Return the node of a place."""
        return self.by_name[base(place)]

    def back(self, place: str) -> str:
        """Go back to the first node that does more than pass on its input."""
        for _ in range(_DEEPEST):
            node = self.at(place)
            if node.op not in _PASSED:
                return place
            place = node.inputs[0]
        raise OtherGraphError(f"a path that does not end, at {place}")

    def input_of(self, place: str, op: str, option: str, number: int = 0) -> str:
        """Go back to an input of a node, whose operation is checked."""
        node = self.at(self.back(place))
        same(option, node.op, op)
        return self.back(node.inputs[number])

    def convolved_with(self, variable: str, place: str) -> str:
        """Find the input that is convolved with a variable, going back from a place."""
        waiting, seen = [place], 0
        while waiting and seen < _DEEPEST:
            node = self.at(waiting.pop())
            seen += 1
            if node.op == "Conv2D":
                if base(self.back(node.inputs[1])) == variable:
                    return self.back(node.inputs[0])
            else:
                waiting += node.inputs
        raise OtherGraphError(f"the linear map {variable}")

    def formula(self, place: str, known: Mapping[str, str] = _NOTHING, prefix: str = "") -> str:
        """Write what a node computes as text, with operands of sums and products sorted.

        Known nodes are replaced by their symbols; variables are written without the prefix.
        """
        return _Formula(self, known, prefix).write(place)


class _Formula:
    """Writes one formula."""

    def __init__(self, nodes: Nodes, known: Mapping[str, str], prefix: str) -> None:
        self._nodes, self._known, self._prefix = nodes, known, prefix
        self._visited = 0

    def write(self, place: str) -> str:
        name, _, number = place.partition(":")
        node = self._nodes.by_name[name]
        self._visited += 1
        if self._visited > _MOST:
            raise OtherGraphError(f"a formula that does not end, at {place}")
        if name in self._known:
            return self._known[name]
        if node.op == "TensorArrayReadV3":
            return "input"
        if node.op in _VARIABLES:
            return name.removeprefix(self._prefix)
        if node.op == "Const":
            return str(node.scalar())
        if node.op in ("RandomStandardNormal", "Placeholder"):
            return node.op.lower()
        if node.op == "Fill":
            return f"fill({self.write(node.inputs[1])})"
        if node.op == "Split":
            return f"split{number or 0}({self.write(node.inputs[1])})"
        if node.op in _PASSED:
            return self.write(node.inputs[0])
        if node.op in _SUMS:
            return sum_(*self._terms(place))
        parts = [self.write(i) for i in node.inputs]
        if node.op == "Mul":
            # DropConnect with Gaussian noise of mean 1, which is constant 1 at inference
            if _NOISE in parts:
                parts.remove(_NOISE)
                return parts[0]
            return product(*parts)
        return f"{node.op.lower()}({','.join(parts)})"

    def _terms(self, place: str) -> list[str]:
        """Write the terms of a sum, including those of nested sums."""
        self._visited += 1
        place = self._nodes.back(place)
        node = self._nodes.at(place)
        if node.op not in _SUMS or base(place) in self._known or self._visited > _MOST:
            return [self.write(place)]
        return [term for i in node.inputs for term in self._terms(i)]


def same(option: str, found: object, expected: object) -> None:
    """Check that an option of the graph is as expected."""
    if found != expected:
        raise OtherGraphError(f"{option} ({found!s:.60}, not {expected!s:.60})")


def base(place: str) -> str:
    """Name of the node of a place."""
    return place.partition(":")[0]


def sum_(*parts: str) -> str:
    """Write a sum in the form of `Nodes.formula`."""
    return f"add({'+'.join(sorted(parts))})"


def product(*parts: str) -> str:
    """Write a product in the form of `Nodes.formula`."""
    return f"mul({'*'.join(sorted(parts))})"


_NOISE = sum_(
    "1.0", product("randomstandardnormal", "sqrt(realdiv(sub(1.0,placeholder),placeholder))")
)
