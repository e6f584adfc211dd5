"""Checkpoints of nnU-Net, read without running any code that they might hold."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.serialization import safe_globals

from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

CHECKPOINT = "checkpoint_final.pth"
# Beside tensors, nnU-Net checkpoints hold the training's losses, which are numpy scalars; numpy 1
# wrote them under another module name.
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
SAFE: list[Any] = [
    np.dtype,
    *(type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "?")),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
]


@dataclass(frozen=True)
class Checkpoint:
    """What inference needs of an nnU-Net v2 checkpoint.

    Attributes
    ----------
    weights : mapping of str to Tensor
        On disk until they are read.
    configuration : str
        Of the plans that it was trained with.
    mirror_axes : tuple of int
        Spatial axes of the network's grid along which its input may be mirrored.
    """

    weights: Mapping[str, Tensor]
    configuration: str
    mirror_axes: tuple[int, ...]


def load(path: Path) -> Any:
    """Load a file of torch with nothing in it but tensors, numbers and containers.

    Zip files (all since torch 1.6) are mapped: an optimizer's state, twice the size of the
    weights, is never read.

    Raises
    ------
    ModelError
        The file is missing or damaged, or wants to run code.
    """
    try:
        with safe_globals(SAFE):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # a damaged file raises almost anything
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{path}: cannot be loaded as network weights ({reason}). Install the model again."
        ) from error


def save(content: object, path: Path) -> None:
    """Save with torch; unlike torch's own writing, a full disk is an `OSError` that says so."""
    stream = io.BytesIO()
    torch.save(content, stream)
    path.write_bytes(stream.getbuffer())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of nnU-Net v2.

    Raises
    ------
    ModelError
        It is missing or damaged, wants to run code, or is no such checkpoint.
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
    """Give a network its weights, in float32 whatever they are stored in.

    The tensors become the network's own parameters. nnU-Net stores most of them under several
    names; those stay one tensor.

    Raises
    ------
    ModelError
        Names or shapes are not the network's.
    """
    if not _fit(weights, network.state_dict()):
        raise ModelError(
            "A checkpoint's weights are not those of the network in plans.json. "
            "Install the model again."
        )
    copies: dict[tuple[Any, ...], Tensor] = {}
    owned = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if key not in copies:
            # A copy, so that no later change of the file can reach the weights.
            copies[key] = tensor.to(torch.float32, copy=True)
        owned[name] = copies[key]
    network.load_state_dict(owned, assign=True)
    return network.eval()


def _fit(weights: Any, expected: Mapping[str, Tensor]) -> bool:
    """Tell whether the content of a checkpoint is what a network expects, before it is touched."""
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
