"""Names and shapes of the variables of an MD-GRU with three layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Shape = tuple[int, ...]

LAYERS, AXES, DIRECTIONS = (1, 2, 3), (1, 2, 3), ("forward", "backward")
CHANNELS = 2  # the image and the high-pass filtered image
STEP = "global_step"
_SLOT = re.compile(r"/Adadelta(_1)?$")  # optimiser state


def scan_name(layer: int, axis: int, direction: str) -> str:
    """Name of the recurrent unit that scans along one axis (1, 2, 3) in one direction."""
    return f"{layer}/mdgru/dim{axis}/{direction}/rnn/CGRUCell"


def make_layout(
    hidden: Sequence[int], linear: Sequence[int], filters: Mapping[str, Shape] | None = None
) -> dict[str, Shape]:
    """Names and shapes of all weights, with filters of 7 x 7 by default.

    Parameters
    ----------
    hidden, linear : sequence of int
        Channels of the state and of the following linear map in each of the three layers.
    filters : mapping of str to (height, width), optional
        Sizes of filters other than 7 x 7, by name.
    """
    layout: dict[str, Shape] = {}
    channels = CHANNELS
    for layer, state, out in zip(LAYERS, hidden, linear, strict=True):
        for axis in AXES:
            for direction in DIRECTIONS:
                for part, width in (("Gates", 2 * state), ("Candidate", state)):
                    name = f"{scan_name(layer, axis, direction)}/{part}"
                    for kind, inputs in (("FilterInp", channels), ("FilterStat", state)):
                        filter_ = f"{name}/ConvLinear/{kind}"
                        size = (filters or {}).get(filter_, (7, 7))
                        layout[filter_] = (*size, inputs, width)
                    layout[f"{name}/Bias"] = (width,)
        layout |= {f"{layer}/W": (1, state, out), f"{layer}/b": (out,)}
        channels = out
    return layout


PUBLISHED = make_layout((16, 32, 64), (25, 45, 4))


def select_weights(
    tensors: Mapping[str, NDArray[Any]], expected: Mapping[str, Shape] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Select the weights of the network in a checkpoint, without the optimiser's variables.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        All variables of the checkpoint. Names begin with the network's name, usually ``default``.
    expected : mapping of str to tuple of int, optional
        Required names and shapes; by default any consistent ones are accepted.

    Returns
    -------
    dict of str to ndarray of float32
        By name, without the name of the network.

    Raises
    ------
    ModelError
        A variable is missing or unknown, has the wrong shape, or is not finite.
    """
    networks = sorted({name.partition("/")[0] for name in tensors})
    if len(networks) != 1:
        raise ModelError(f"The checkpoint contains {len(networks)} networks instead of one.")
    stripped = {name.partition("/")[2]: tensor for name, tensor in tensors.items()}
    slots = {name: tensor for name, tensor in stripped.items() if _SLOT.search(name)}
    weights = {
        name: tensor for name, tensor in stripped.items() if name not in slots and name != STEP
    }
    layout = expected or _infer(weights)
    for name in [*layout, *weights]:
        if name not in weights:
            raise ModelError(f"The checkpoint lacks the variable {name}.")
        if name not in layout:
            raise ModelError(f"The checkpoint has an unknown variable {name}.")
        if weights[name].shape != layout[name]:
            raise ModelError(
                f"The variable {name} has the shape {weights[name].shape}, not {layout[name]}."
            )
        if weights[name].dtype != np.float32 or not np.isfinite(weights[name]).all():
            raise ModelError(f"The variable {name} is not finite float32.")
    for name, tensor in slots.items():
        owner = _SLOT.sub("", name).removeprefix(f"{networks[0]}/")
        if owner not in layout or tensor.shape != layout[owner]:
            raise ModelError(f"The checkpoint has a variable {name} that belongs to no weight.")
    return weights


def _infer(weights: Mapping[str, NDArray[Any]]) -> dict[str, Shape]:
    """Infer the layout from the linear maps and filter sizes."""
    hidden, linear = [], []
    for layer in LAYERS:
        shape = weights[f"{layer}/W"].shape if f"{layer}/W" in weights else ()
        if len(shape) != 3 or shape[0] != 1:
            raise ModelError(f"The checkpoint lacks the variable {layer}/W of MD-GRU.")
        hidden.append(shape[1])
        linear.append(shape[2])
    filters = {
        name: (tensor.shape[0], tensor.shape[1])
        for name, tensor in weights.items()
        if name.endswith(("/FilterInp", "/FilterStat")) and tensor.ndim == 4
    }
    even = [name for name, size in filters.items() if not (size[0] % 2 and size[1] % 2)]
    if even:
        raise ModelError(
            f"The variable {even[0]} is a filter of even size, which is not supported."
        )
    return make_layout(hidden, linear, filters)
