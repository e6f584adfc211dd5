"""One adapter per engine, between volumes and the arrays that engines use.

An adapter puts axes into the engine's order, takes the label of the highest probability, and
merges classes that are no region of the model into the background.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.engines.mdgru.engine import MDGRUModel
from bids_app.engines.nnunet.cascade import Cascade
from bids_app.engines.nnunet.inference import NnUNet
from bids_app.engines.nnunet.votes import relative_spread
from bids_app.io.progress import Progress
from bids_app.models import store
from bids_app.models.manifest import verify
from bids_app.regions import of_brainstem
from bids_app.segmentation.devices import device_label
from bids_app.segmentation.types import Segmentation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from bids_app.engines.nnunet.cascade import CascadeOutput
    from bids_app.engines.nnunet.inference import Inferred
    from bids_app.io.images import Volume
    from bids_app.models.manifest import Model
    from bids_app.regions import Region
    from bids_app.segmentation.types import Box, InferenceOptions, Report

# Along z, y, x, around the centre of a brainstem: the longest are 80 mm long, and may be tilted.
_BRAINSTEM_MM = (96.0, 80.0, 80.0)


class CascadeSegmenter:
    """Runs a localizer and a segmenter, as the open model has them."""

    def __init__(self, model: Model, options: InferenceOptions, device: torch.device) -> None:
        self.device = device_label(options, device)
        self._regions = model.regions
        self._cascade = Cascade(
            model.folder,
            device=device,
            folds=options.folds or None,
            mirror=options.mirror,
            runtime=options.runtime,
            half=options.half,
        )

    def __call__(self, volume: Volume, report: Report | None = None) -> Segmentation:  # noqa: ARG002
        """Segment one volume; see `bids_app.segmentation.types.Segmenter`."""
        output = self._cascade.predict(*_engine_order(volume))
        z, y, x = output.region
        return replace(
            _segmentation(output.probabilities, (x, y, z), volume, self._regions, self.device),
            intracranial_mm3=output.intracranial_mm3,
            confidence=output.confidence,
            out_of_view=output.touches_border,
            **_variability(output, self._regions),
        )


class NnUNetSegmenter:
    """Runs an nnU-Net on whole heads, or on a box around the brainstem."""

    def __init__(self, model: Model, options: InferenceOptions, device: torch.device) -> None:
        self.device = device_label(options, device)
        self._regions = model.regions
        self._network = NnUNet(
            model.folder,
            device=device,
            folds=options.folds or None,
            mirror=options.mirror,
            averaging="softmax" if model.averaging == "softmax" else "logits",
            mode="v1" if model.mode == "v1" else "v2",
            runtime=options.runtime,
            half=options.half,
        )
        if options.check is not None:
            self._network.before_each_pass(options.check)
        self._localizer = _load_localizer(options, device)

    def __call__(self, volume: Volume, report: Report | None = None) -> Segmentation:
        """Segment one volume; see `bids_app.segmentation.types.Segmenter`."""
        image, spacing = _engine_order(volume)
        z, y, x = (slice(0, n) for n in image.shape)
        if self._localizer is not None:
            z, y, x = self._localizer.localize(image, spacing).box(self._network.patch_mm)
        prepared = self._network.prepare(image[z, y, x], spacing)
        with Progress(report, "passes") as progress:
            inferred = self._network.infer(prepared, progress.add)
        probabilities = self._network.restore(inferred.mean, prepared)
        segmentation = _segmentation(probabilities, (x, y, z), volume, self._regions, self.device)
        labels = self._network.postprocess(segmentation.labels.transpose(2, 1, 0), spacing)
        return replace(
            segmentation,
            labels=labels.transpose(2, 1, 0),
            **_variability(inferred, self._regions),
        )


class MDGRUSegmenter:
    """Runs an MD-GRU on whole heads, or on a box around the brainstem."""

    def __init__(self, model: Model, options: InferenceOptions, device: torch.device) -> None:
        self.device = str(device)
        self._regions = model.regions
        # First, because the network that is loaded last decides on TF32 for the process.
        self._localizer = _load_localizer(options, device)
        self._model = MDGRUModel(
            model.folder, model.inference, device=device, threads=options.threads
        )
        self._check = options.check

    def __call__(self, volume: Volume, report: Report | None = None) -> Segmentation:
        """Segment one volume; see `bids_app.segmentation.types.Segmenter`."""
        x, y, z = (slice(0, n) for n in volume.data.shape)
        if self._localizer is not None:
            z, y, x = self._localizer.localize(*_engine_order(volume)).box(_BRAINSTEM_MM)
        with Progress(report, "windows", digits=1) as progress:

            def add(share: float, number: int) -> None:
                progress.add(share, number)
                if self._check is not None:
                    self._check()

            probabilities = self._model.predict(
                volume.data, volume.voxel_size, box=(x, y, z), progress=add
            )
        classes = probabilities.transpose(0, 3, 2, 1)
        segmentation = _segmentation(classes, (x, y, z), volume, self._regions, self.device)
        if self._model.by_threshold(volume.voxel_size):
            labels = np.zeros_like(segmentation.labels)
            for region in self._regions:  # if two reach the threshold, the later one wins
                labels[x, y, z][probabilities[region.index] >= 0.5] = region.index
            segmentation = replace(segmentation, labels=labels)
        return segmentation


def _load_localizer(options: InferenceOptions, device: torch.device) -> Cascade | None:
    """Load the open model for its localizer, if a box around the brainstem is asked for."""
    if not options.region:
        return None
    model = store.find(store.DEFAULT)
    verify(model)
    return Cascade(model.folder, device=device, mirror=False, half=options.half)


def _engine_order(volume: Volume) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """Voxels and voxel size of a volume in the order z, y, x."""
    x, y, z = volume.voxel_size
    return volume.data.transpose(2, 1, 0), (z, y, x)


def _variability(output: CascadeOutput | Inferred, regions: Sequence[Region]) -> dict[str, Any]:
    """Fields of a segmentation that compare the single passes of an ensemble."""
    channels = [region.index - 1 for region in regions]
    whole = output.sizes[:, [region.index - 1 for region in of_brainstem(regions)]].sum(axis=1)
    return {
        "agreement": output.agreement and tuple(output.agreement[k] for k in channels),
        "mirror_dice": output.mirror_dice and tuple(output.mirror_dice[k] for k in channels),
        "spread": relative_spread(np.column_stack([output.sizes[:, channels], whole])),
    }


def _segmentation(
    classes: NDArray[np.float32],
    box: Box,
    volume: Volume,
    regions: Sequence[Region],
    device: str,
) -> Segmentation:
    """Make a segmentation from class probabilities, shape (C, z, y, x), background first.

    A label's class has the number of its value. Classes without a label count as background.
    """
    values = [region.index for region in regions]
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
        probabilities=classes[values].transpose(0, 3, 2, 1),
        box=box,
        device=device,
    )
