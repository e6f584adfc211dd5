"""From a volume to its segmentation, by whichever engine a model needs.

Engines know arrays and voxel sizes. A `Segmenter` stands between them and the volumes of the
pipeline: it turns axes into the engine's order, takes the label of the highest probability, and
merges the classes that a model has beside its regions into the background.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from bids_app.engines.mdgru.engine import MDGRUModel
from bids_app.engines.nnunet.cascade import Cascade
from bids_app.engines.nnunet.inference import NnUNet
from bids_app.engines.nnunet.votes import relative_spread
from bids_app.errors import ModelError, UsageError
from bids_app.io.progress import Progress
from bids_app.models import store
from bids_app.models.manifest import verify
from bids_app.regions import of_brainstem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_app.engines.nnunet.cascade import CascadeOutput
    from bids_app.engines.nnunet.inference import Inferred, Runtime
    from bids_app.io.images import Volume
    from bids_app.models.manifest import Model
    from bids_app.regions import Region

LOG = logging.getLogger(__name__)
Box = tuple[slice, slice, slice]
Tell = Callable[[str], object]
# Along z, y, x, about the middle of a brainstem: the longest are 80 mm long, and may lean.
_BRAINSTEM_MM = (96.0, 80.0, 80.0)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Label map and probabilities of one volume.

    Attributes
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        On the volume's RAS grid: 0 and the label values of the model's regions.
    probabilities : ndarray of float32, shape (K, x, y, z)
        Of the K regions, in the order of the model's regions, within `box`.
    box : tuple of three slices
        Part of the volume's grid that `probabilities` covers; they are 0 elsewhere.
    device : str
        Where the network ran.
    intracranial_mm3 : float or None
        Estimated volume of the inside of the skull, where the model tells it.
    confidence : float or None
        Mean probability with which the brainstem was located, where the model locates it.
    out_of_view : bool
        Where it was located, the brainstem reaches the border of the image.
    agreement : tuple of float, or None
        Mean Dice between the maps of the model's networks, a region, in the order of the model's
        regions, nan where all of them leave it out; None of a model of one network.
    mirror_dice : tuple of float, or None
        Mean Dice between the votes on tiles as they are and mirrored, a region; None without
        mirroring.
    spread : tuple of float, or None
        Standard deviation over mean of the volume, over all single passes (one a network and
        mirroring), a region and then of the whole brainstem; None of a single pass.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    box: Box
    device: str
    intracranial_mm3: float | None = None
    confidence: float | None = None
    out_of_view: bool = False
    agreement: tuple[float, ...] | None = None
    mirror_dice: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None

    def whole_probabilities(self) -> NDArray[np.float32]:
        """Probabilities on the volume's whole grid, shape (K, X, Y, Z)."""
        maps = np.zeros((len(self.probabilities), *self.labels.shape), dtype=np.float32)
        maps[(slice(None), *self.box)] = self.probabilities
        return maps


class Segmenter(Protocol):
    """A loaded model: called with a volume, it gives a segmentation."""

    device: str

    def __call__(self, volume: Volume, tell: Tell | None = None) -> Segmentation:
        """Segment one volume.

        Parameters
        ----------
        volume : Volume
        tell : callable, optional
            Gets a line every minute that says how far a model is that takes long; on a terminal
            there is a bar instead. Without it there is neither.
        """
        ...


@dataclass(frozen=True)
class Choice:
    """How a model is to be run.

    Attributes
    ----------
    device : str
        auto, cpu, openvino (the CPU, by OpenVINO), cuda, cuda:N or mps.
    folds : tuple of str
        Networks of the ensemble to use; empty for all.
    mirror : bool
        Average over mirrored inputs.
    half : bool
        On a CUDA GPU, have networks of nnU-Net multiply in float16.
    region : bool
        Run a model of whole heads on a box around the brainstem alone, which the open model's
        locator finds.
    threads : int
        CPU threads of the network.
    check : callable or None
        Called before each pass of a model of whole heads, which may take hours an image; what it
        raises ends the segmentation.
    """

    device: str = "auto"
    folds: tuple[str, ...] = ()
    mirror: bool = True
    half: bool = True
    region: bool = False
    threads: int = 1
    check: Callable[[], object] | None = None

    @property
    def runtime(self) -> Runtime:
        """What runs the networks of nnU-Net."""
        return "openvino" if self.device == "openvino" else "torch"


def load_segmenter(model: Model, choice: Choice) -> Segmenter:
    """Load a model's networks, once for all images.

    Parameters
    ----------
    model : Model
        Its files must have been verified.
    choice : Choice
        Device, folds and the like.

    Raises
    ------
    UsageError
        The device or what it needs is not there, or a fold is not in the model.
    ModelError
        The engine cannot load the model.
    """
    return load_segmenters(model, choice, 1)[0]


def load_segmenters(model: Model, choice: Choice, most: int) -> list[Segmenter]:
    """Load a model onto each GPU that the choice of a device allows, or once onto the CPU.

    Parameters
    ----------
    model : Model
        Its files must have been verified.
    choice : Choice
        Devices auto and cuda stand for all GPUs that this process sees.
    most : int
        Load no more than these, 1 or more.

    Raises
    ------
    UsageError, ModelError
        As `load_segmenter`.
    """
    model.check_folds(choice.folds)
    device = check_device(choice.device, model)
    torch.set_num_threads(choice.threads)
    if device.type == "cuda":
        return [_WithFallback(model, choice, gpu) for gpu in all_gpus(device)[:most]]
    return [_load(model, choice, device)]


def all_gpus(device: torch.device) -> list[torch.device]:
    """Name each GPU that a device stands for: all that are seen, where it has no number."""
    if device.index is not None or torch.cuda.device_count() < 2:
        return [device]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def check_device(name: str, model: Model) -> torch.device:
    """Find the device that a user's word names, and check that a model can run there.

    Raises
    ------
    UsageError
        The device or what it needs is not there, or the model cannot run on it.
    """
    if name == "openvino":
        if model.engine == "mdgru":
            raise UsageError("--device openvino runs nnU-Net models alone. Use --device cpu.")
        if find_spec("openvino") is None:
            from bids_app.engines.nnunet.openvino import MISSING

            raise UsageError(MISSING)
    return choose_device(name)


def choose_device(name: str) -> torch.device:
    """Find the device that a user's word names; ``auto`` takes a GPU where there is one.

    Raises
    ------
    UsageError
        It is not there.
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
    there = {
        "cpu": True,
        "mps": mps,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
    }
    if not there.get(device.type, False):
        raise UsageError(f"--device {name}: no such device here. Use --device auto or cpu.")
    return device


class _CascadeSegmenter:
    def __init__(self, model: Model, choice: Choice, device: torch.device) -> None:
        self.device = _told(choice, device)
        self._regions = model.regions
        self._values = [region.index for region in model.regions]
        self._cascade = Cascade(
            model.folder,
            device=device,
            folds=choice.folds or None,
            mirror=choice.mirror,
            runtime=choice.runtime,
            half=choice.half,
        )

    def __call__(self, volume: Volume, tell: Tell | None = None) -> Segmentation:  # noqa: ARG002
        output = self._cascade.predict(*_engine_order(volume))
        z, y, x = output.region
        segmentation = _segmentation(
            output.probabilities, (x, y, z), volume, self._values, self.device
        )
        return replace(
            segmentation,
            intracranial_mm3=output.intracranial_mm3,
            confidence=output.confidence,
            out_of_view=output.touches_border,
            **_of_passes(output, self._regions),
        )


class _NnUNetSegmenter:
    def __init__(self, model: Model, choice: Choice, device: torch.device) -> None:
        self.device = _told(choice, device)
        self._regions = model.regions
        self._values = [region.index for region in model.regions]
        self._network = NnUNet(
            model.folder,
            device=device,
            folds=choice.folds or None,
            mirror=choice.mirror,
            averaging="softmax" if model.averaging == "softmax" else "logits",
            mode="v1" if model.mode == "v1" else "v2",
            runtime=choice.runtime,
            half=choice.half,
        )
        if choice.check is not None:
            self._network.before_each_pass(choice.check)
        self._locator = _load_locator(choice, device) if choice.region else None

    def __call__(self, volume: Volume, tell: Tell | None = None) -> Segmentation:
        image, spacing = _engine_order(volume)
        z, y, x = (slice(0, n) for n in image.shape)
        if self._locator is not None:
            z, y, x = self._locator.locate(image, spacing).box(self._network.patch_mm)
        prepared = self._network.prepare(image[z, y, x], spacing)
        with Progress(tell, "passes") as done:
            inferred = self._network.infer(prepared, done.add)
        probabilities = self._network.restore(inferred.mean, prepared)
        segmentation = _segmentation(probabilities, (x, y, z), volume, self._values, self.device)
        labels = self._network.postprocess(segmentation.labels.transpose(2, 1, 0), spacing)
        return replace(
            segmentation,
            labels=labels.transpose(2, 1, 0),
            **_of_passes(inferred, self._regions),
        )


class _MDGRUSegmenter:
    def __init__(self, model: Model, choice: Choice, device: torch.device) -> None:
        self.device = str(device)
        self._values = [region.index for region in model.regions]
        # First, as the last network that is loaded has the say on TF32.
        self._locator = _load_locator(choice, device) if choice.region else None
        self._model = MDGRUModel(
            model.folder, model.inference, device=device, threads=choice.threads
        )
        self._check = choice.check

    def __call__(self, volume: Volume, tell: Tell | None = None) -> Segmentation:
        x, y, z = (slice(0, n) for n in volume.data.shape)
        if self._locator is not None:
            z, y, x = self._locator.locate(*_engine_order(volume)).box(_BRAINSTEM_MM)
        with Progress(tell, "windows", digits=1) as done:

            def progress(share: float, number: int) -> None:
                done.add(share, number)
                if self._check is not None:
                    self._check()

            probabilities = self._model.predict(
                volume.data, volume.voxel_size, box=(x, y, z), progress=progress
            )
        segmentation = _segmentation(
            probabilities.transpose(0, 3, 2, 1), (x, y, z), volume, self._values, self.device
        )
        if self._model.by_threshold(volume.voxel_size):
            labels = np.zeros_like(segmentation.labels)
            for value in self._values:  # of two that reach it, the later one wins
                labels[x, y, z][probabilities[value] >= 0.5] = value
            segmentation = replace(segmentation, labels=labels)
        return segmentation


class _WithFallback:
    """A segmenter on a GPU that goes on with the CPU for an image that the GPU cannot hold."""

    def __init__(self, model: Model, choice: Choice, device: torch.device) -> None:
        self.device = str(device)
        self._arguments = (model, choice)
        self._on_gpu = _load(model, choice, device)
        self._on_cpu: Segmenter | None = None

    def __call__(self, volume: Volume, tell: Tell | None = None) -> Segmentation:
        try:
            return self._on_gpu(volume, tell)
        except torch.OutOfMemoryError:
            LOG.warning("%s is out of memory; this image is segmented on the CPU", self.device)
        torch.cuda.empty_cache()
        if self._on_cpu is None:
            self._on_cpu = _load(*self._arguments, torch.device("cpu"))
        return self._on_cpu(volume, tell)


def _load(model: Model, choice: Choice, device: torch.device) -> Segmenter:
    if model.engine == "cascade":
        return _CascadeSegmenter(model, choice, device)
    if model.engine == "nnunet":
        return _NnUNetSegmenter(model, choice, device)
    if model.engine == "mdgru":
        return _MDGRUSegmenter(model, choice, device)
    raise ModelError(f"Model {model.name}: its engine {model.engine} is not in this version.")


def _told(choice: Choice, device: torch.device) -> str:
    """Name what networks of nnU-Net run on, as sidecars do."""
    if choice.runtime == "openvino":
        return choice.device
    return f"{device} (float16)" if choice.half and device.type == "cuda" else str(device)


def _load_locator(choice: Choice, device: torch.device) -> Cascade:
    """Load the open model, for its locator."""
    model = store.find(store.DEFAULT)
    verify(model)
    return Cascade(model.folder, device=device, mirror=False, half=choice.half)


def _engine_order(volume: Volume) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    x, y, z = volume.voxel_size
    return volume.data.transpose(2, 1, 0), (z, y, x)


def _of_passes(told: CascadeOutput | Inferred, regions: Sequence[Region]) -> dict[str, Any]:
    """Give what single passes tell of regions, as entries of a segmentation."""
    values = [region.index for region in regions]
    parts = [region.index - 1 for region in of_brainstem(regions)]
    whole = told.sizes[:, parts].sum(axis=1)
    return {
        "agreement": _of_values(told.agreement, values),
        "mirror_dice": _of_values(told.mirror_dice, values),
        "spread": relative_spread(
            np.column_stack([told.sizes[:, [value - 1 for value in values]], whole])
        ),
    }


def _of_values(scores: Sequence[float] | None, values: Sequence[int]) -> tuple[float, ...] | None:
    return None if scores is None else tuple(scores[value - 1] for value in values)


def _segmentation(
    classes: NDArray[np.float32],
    box: Box,
    volume: Volume,
    values: Sequence[int],
    device: str,
) -> Segmentation:
    """Make a segmentation of class probabilities, shape (C, z, y, x), background first.

    The class of a label is the one of its value; classes that are no label of the model count
    as background.
    """
    others = [k for k in range(len(classes)) if k not in values]
    highest = classes[others].sum(axis=0)
    best = np.zeros(highest.shape, dtype=np.uint8)
    for value in values:  # of equal classes the first wins, as with argmax
        better = classes[value] > highest
        best[better] = value
        np.maximum(highest, classes[value], out=highest)
    labels = np.zeros(volume.data.shape, dtype=np.uint8)
    labels[box] = best.transpose(2, 1, 0)
    return Segmentation(
        labels=labels,
        probabilities=classes[list(values)].transpose(0, 3, 2, 1),
        box=box,
        device=device,
    )
