"""Weights on disk, of a run and of an exported network, held against what a look asks for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bids_app.errors import ModelError, UsageError, reason

if TYPE_CHECKING:
    from pathlib import Path

    from training.networks import Look

RUN_FILE = "checkpoint.pth"  # in the folder of a run


def read_run(folder: Path, device: torch.device | None = None) -> dict[str, Any]:
    """Read the last checkpoint of a run.

    Returns
    -------
    dict
        ``network``, ``average`` and ``optimiser`` (states), ``step``, ``seconds``.

    Raises
    ------
    ModelError
        When the folder holds none, or no such file.
    """
    path = folder / RUN_FILE
    if not path.exists():
        raise ModelError(f"{folder} holds no {RUN_FILE}. Name the --out of a training run.")
    return _read(path, "average", device)


def read_exported(path: Path, device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """Read the weights of an exported network, ``.../fold_0/checkpoint_final.pth``.

    Raises
    ------
    ModelError
        When there is no such file, or it is of another kind.
    """
    weights: dict[str, torch.Tensor] = _read(path, "network_weights", device)["network_weights"]
    return weights


def _read(path: Path, key: str, device: torch.device | None) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location=device or "cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}.") from error
    except Exception as error:  # torch tells a damaged or foreign file in many ways
        raise ModelError(f"{path} holds no weights that can be read.") from error
    if not isinstance(state, dict) or key not in state:
        raise ModelError(f"{path} is of another kind: it holds no {key}.")
    return state


def look_of(look: Look, weights: dict[str, torch.Tensor], path: Path) -> Look:
    """Give the look as these weights have it: with their channels of each stage.

    Raises
    ------
    UsageError
        When they are of no such network.
    """
    names = (f"encoder.stages.{n}.0.convs.0.conv.weight" for n in itertools.count())
    channels = tuple(
        len(weights[name]) for name in itertools.takewhile(weights.__contains__, names)
    )
    classes = {len(weights[name]) for name in weights if name.startswith("decoder.seg_layers.")}
    if not channels or classes != {len(look.classes)}:
        raise UsageError(f"{path} holds no {look.name}: name the weights of one.")
    return replace(look, features=channels)
