"""Weights on disk, of a run and of an exported network, held against what a look asks for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bids_app.errors import ModelError, UsageError, reason
from training.cases import ICP, MCP, MIDBRAIN, SCP, TECTUM

if TYPE_CHECKING:
    from pathlib import Path

    from training.networks import Look

RUN_FILE = "checkpoint.pth"  # in the folder of a run
HEADS = "decoder.seg_layers."  # the layers whose rows are the classes
# Classes of the segmenter of version 1, and how the parts of version 2 begin, until the last layer
# is fitted: each with the row of a class that held it, and what is added to the logit. Tegmentum
# and tectum share the midbrain.
CLASSES_1 = 5
BORN_FROM = {TECTUM: (MIDBRAIN, -0.7), SCP: (0, -3.0), MCP: (0, -3.0), ICP: (0, -3.0)}


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


def add_parts(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give a segmenter of version 1 the classes of version 2; others are returned as they are.

    Parameters
    ----------
    weights : dict of str to Tensor
        Of a network whose last layers have a row for each class.
    """
    grown = dict(weights)
    for name, rows in weights.items():
        if name.startswith(HEADS) and len(rows) == CLASSES_1:
            parts = [rows[origin].clone() for origin, _ in BORN_FROM.values()]
            grown[name] = torch.cat([rows, torch.stack(parts)])
            if name.endswith(".bias"):
                grown[name][MIDBRAIN] += BORN_FROM[TECTUM][1]
                grown[name][CLASSES_1:] += torch.tensor([shift for _, shift in BORN_FROM.values()])
    return grown


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
    classes = {len(weights[name]) for name in weights if name.startswith(HEADS)}
    if not channels or classes != {len(look.classes)}:
        raise UsageError(f"{path} holds no {look.name}: name the weights of one.")
    return replace(look, features=channels)
