"""Checkpoints of nnU-Net v2, and networks with their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bids_app.engines.torch_files import load
from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class Checkpoint:
    """The parts of an nnU-Net v2 checkpoint that inference needs.

    Attributes
    ----------
    weights : mapping of str to Tensor
        Memory-mapped.
    configuration : str
        Configuration of the plans that it was trained with.
    mirror_axes : tuple of int
        Spatial axes of the network's grid along which the input may be mirrored.
    """

    weights: Mapping[str, Tensor]
    configuration: str
    mirror_axes: tuple[int, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of nnU-Net v2.

    Raises
    ------
    ModelError
        It is missing or damaged, would run code, or is not an nnU-Net v2 checkpoint.
    """
    content = load(path)
    try:
        return Checkpoint(
            weights=content["network_weights"],
            configuration=content["init_args"]["configuration"],
            mirror_axes=tuple(content.get("inference_allowed_mirroring_axes") or ()),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not an nnU-Net v2 checkpoint. Install the model again."
        ) from error


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Set the weights of a network, converted to float32.

    nnU-Net stores most tensors under several names; they stay one tensor.

    Raises
    ------
    ModelError
        Names or shapes differ from the network's.
    """
    if not _fit(weights, network.state_dict()):
        raise ModelError(
            "The weights of a checkpoint do not fit the network in plans.json. "
            "Install the model again."
        )
    copies: dict[tuple[Any, ...], Tensor] = {}
    owned = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if key not in copies:
            # A copy, so that later changes of the file do not affect the weights.
            copies[key] = tensor.to(torch.float32, copy=True)
        owned[name] = copies[key]
    network.load_state_dict(owned, assign=True)
    return network.eval()


def _fit(weights: Any, expected: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a checkpoint fit a network."""
    return (
        isinstance(weights, dict)
        and weights.keys() == expected.keys()
        and all(
            isinstance(tensor, torch.Tensor)
            and tensor.is_floating_point()
            and tensor.shape == expected[name].shape
            and (tensor.layout, tensor.device.type) == (torch.strided, "cpu")
            for name, tensor in weights.items()
        )
    )
