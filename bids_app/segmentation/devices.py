"""Devices that networks run on: chosen by name, checked, and named in records."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from bids_app.errors import UsageError

if TYPE_CHECKING:
    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import InferenceOptions


def check_device(name: str, model: Model) -> torch.device:
    """Choose a device by name, and check that a model can run on it.

    Raises
    ------
    UsageError
        The device or a library it needs is not available, or the model cannot run on it.
    """
    if name == "openvino":
        if model.engine == "mdgru":
            raise UsageError("--device openvino only runs nnU-Net models. Use --device cpu.")
        if find_spec("openvino") is None:
            from bids_app.engines.nnunet.openvino import MISSING

            raise UsageError(MISSING)
    return choose_device(name)


def choose_device(name: str) -> torch.device:
    """Choose a device by name; ``auto`` prefers a GPU.

    Raises
    ------
    UsageError
        The name is unknown, or the device is not available.
    """
    mps = torch.backends.mps.is_available()
    if name == "openvino":
        return torch.device("cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"--device {name}: not one of auto, cpu, openvino, cuda, cuda:N, mps."
        ) from None
    available = {
        "cpu": True,
        "mps": mps,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
    }
    if not available.get(device.type, False):
        raise UsageError(f"--device {name}: not available on this machine. Use --device auto.")
    return device


def all_gpus(device: torch.device) -> list[torch.device]:
    """GPUs that a CUDA device stands for: every visible one, unless it has a number."""
    if device.index is not None or torch.cuda.device_count() < 2:
        return [device]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def device_label(options: InferenceOptions, device: torch.device) -> str:
    """Name of what nnU-Net networks run on, as written to sidecars."""
    if options.runtime == "openvino":
        return options.device
    return f"{device} (float16)" if options.half and device.type == "cuda" else str(device)
