"""Loading a model as a segmenter, on the device and with the options of a run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from bids_app.segmentation.adapters import CascadeSegmenter, MDGRUSegmenter, NnUNetSegmenter
from bids_app.segmentation.devices import all_gpus, check_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from bids_app.io.images import Volume
    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import InferenceOptions, Report, Segmentation, Segmenter

LOG = logging.getLogger(__name__)
_ADAPTERS: dict[str, Callable[[Model, InferenceOptions, torch.device], Segmenter]] = {
    "cascade": CascadeSegmenter,
    "nnunet": NnUNetSegmenter,
    "mdgru": MDGRUSegmenter,
}


def load_segmenter(model: Model, options: InferenceOptions) -> Segmenter:
    """Load a model's networks, once for all images.

    Parameters
    ----------
    model : Model
        Its files must have been verified.
    options : InferenceOptions

    Raises
    ------
    UsageError
        The device or a library it needs is not available, or the model lacks a requested fold.
    ModelError
        The engine cannot load the model.
    """
    return load_segmenters(model, options, 1)[0]


def load_segmenters(model: Model, options: InferenceOptions, most: int) -> list[Segmenter]:
    """Load a model onto each GPU that the options allow, or once onto the CPU.

    Parameters
    ----------
    model : Model
        Its files must have been verified.
    options : InferenceOptions
        The devices auto and cuda stand for all GPUs that this process sees.
    most : int
        Largest number of segmenters to load, at least 1.

    Raises
    ------
    UsageError, ModelError
        As `load_segmenter`.
    """
    model.check_folds(options.folds)
    device = check_device(options.device, model)
    torch.set_num_threads(options.threads)
    if device.type == "cuda":
        return [_WithFallback(model, options, gpu) for gpu in all_gpus(device)[:most]]
    return [_load(model, options, device)]


def _load(model: Model, options: InferenceOptions, device: torch.device) -> Segmenter:
    return _ADAPTERS[model.engine](model, options, device)


class _WithFallback:
    """A segmenter on a GPU that falls back to the CPU for images too large for the GPU."""

    def __init__(self, model: Model, options: InferenceOptions, device: torch.device) -> None:
        self.device = str(device)
        self._arguments = (model, options)
        self._on_gpu = _load(model, options, device)
        self._on_cpu: Segmenter | None = None

    def __call__(self, volume: Volume, report: Report | None = None) -> Segmentation:
        try:
            return self._on_gpu(volume, report)
        except torch.OutOfMemoryError:
            LOG.warning("%s is out of memory; this image is segmented on the CPU", self.device)
        torch.cuda.empty_cache()
        if self._on_cpu is None:
            self._on_cpu = _load(*self._arguments, torch.device("cpu"))
        return self._on_cpu(volume, report)
