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
from bids_app.errors import ModelError
from bids_app.io.progress import Progress
from bids_app.models import store
from bids_app.models.manifest import verify
from bids_app.regions import of_brainstem
from bids_app.segmentation.canonical import mean_of_passes, segment_in_frame
from bids_app.segmentation.devices import device_label
from bids_app.segmentation.labels import most_probable
from bids_app.segmentation.types import Segmentation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from bids_app.engines.nnunet.inference import Inferred
    from bids_app.geometry.boxes import Box
    from bids_app.io.images import Volume
    from bids_app.models.manifest import Model
    from bids_app.regions import Region
    from bids_app.segmentation.types import InferenceOptions, Report

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
        if missing := [part for part in model.parts if part not in self._cascade.parts]:
            raise ModelError(
                f"{model.folder}: its segmenter has no {' or '.join(missing)}. Install the model "
                "again."
            )
        self._parts = [self._cascade.parts.index(part) for part in model.parts]

    def __call__(self, volume: Volume, report: Report | None = None) -> Segmentation:  # noqa: ARG002
        """Segment one volume; see `bids_app.segmentation.types.Segmenter`."""
        output = self._cascade.predict(*_engine_order(volume))
        z, y, x = output.region
        found = Segmentation(
            labels=np.zeros(volume.data.shape, dtype=np.uint8),
            probabilities=self._of_regions(output.probabilities),
            box=(x, y, z),
            device=self.device,
            intracranial_mm3=output.intracranial_mm3,
            confidence=output.confidence,
            out_of_view=output.touches_border,
        )
        return self._again_in_frame(volume, found)

    def _again_in_frame(self, volume: Volume, first: Segmentation) -> Segmentation:
        """Segment a volume in the canonical frame of its first segmentation, and join both."""
        passes: list[tuple[Inferred, NDArray[np.float32] | None]] = []

        def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
            data = np.ascontiguousarray(image.transpose(2, 1, 0))
            passes.append(self._cascade.predict_sampled(data))
            return self._of_regions(passes[-1][0].mean)

        # Rounded, so that the order in which axes are stored does not change the frame by a bit.
        of_image = np.round(volume.affine, 5)
        affine, maps = first.box_affine(of_image), first.probabilities
        second = segment_in_frame(volume.data, of_image, maps, affine, self._regions, predict)
        if second is None:
            return replace(first, probabilities=maps[:, :0, :0, :0], box=(slice(0, 0),) * 3)
        inferred, parts = passes[-1]
        if parts is not None and self._parts:
            second = replace(second, parts=parts[self._parts].transpose(0, 3, 2, 1))
        mean, pass_dice = mean_of_passes(maps, affine, second)
        values = np.array([0, *(region.index for region in self._regions)], dtype=np.uint8)
        first.labels[first.box] = values[most_probable(mean)]
        return replace(
            first,
            probabilities=mean,
            frame_pass=second,
            pass_dice=pass_dice,
            **_variability(inferred, self._regions),
        )

    def _of_regions(self, classes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the regions from class probabilities, (C, z, y, x) to (K, x, y, z)."""
        return classes[[region.index for region in self._regions]].transpose(0, 3, 2, 1)


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
            inferred = self._network.infer(prepared.data, progress.add)
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


def _variability(output: Inferred, regions: Sequence[Region]) -> dict[str, Any]:
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
