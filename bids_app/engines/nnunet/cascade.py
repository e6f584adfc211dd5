"""Find the brainstem on a coarse grid, segment a box around it, and segment it in its own frame.

The engine of the open model. The localizer's output is not resampled to the image: it gives a
point, the intracranial volume and a confidence. The segmenter runs twice: on the image's axes,
which gives the pose of the brainstem, and on an image that was sampled in that pose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_app.engines.nnunet.classes import Classes
from bids_app.engines.nnunet.inference import Inferred, NnUNet
from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from bids_app.engines.nnunet.inference import Runtime
    from bids_app.engines.nnunet.preprocessing import Prepared

Box = tuple[slice, slice, slice]

# Classes of the localizer.
BRAINSTEM, REST_OF_INTRACRANIAL = 1, 2
# The midbrain, pons and medulla of an adult have at least 17 ml. A field of view that cuts the
# brainstem may hold only a quarter of that; anything smaller is taken for a false positive.
SMALLEST_MM3 = 4000.0
# Mean probability of the brainstem: 0.95 to 0.98 on 27 heads with the open model; up to 0.78 on
# smooth noise and 0.72 on balls with its version 1.2.0.
LEAST_CONFIDENCE = 0.8
# In training, crops lay at most this far from the centre of the brainstem along each axis.
LARGEST_OFFSET_MM = 8.0
# Height of the centre of a patch of 256 mm around the head, above the brainstem. Of 20, 32, 44 and
# 56 mm this changed the intracranial volume least when four heads, from training and validation,
# were rotated by 10 degrees.
HEAD_ABOVE_MM = 32.0
# Ratio of tissue outside the skull to the intracranial volume: 0.5 to 1.6 on whole heads from three
# sources, at most 0.1 on skull-stripped images.
LEAST_SCALP = 0.25


@dataclass(frozen=True)
class Localization:
    """Where the brainstem lies in an image.

    Attributes
    ----------
    found : bool
    centre : tuple of float
        Along z, y, x in voxels of the image, voxel centres at whole numbers; the centre of the
        image if nothing looks like a brainstem.
    confidence : float
        Mean probability of the brainstem within its outline, 0 to 1; 0 without an outline.
    touches_border : bool
        The outline reaches the border of the image: part of the brainstem may be out of view.
    intracranial_mm3 : float or None
        Intracranial volume, the sum of its probabilities. None on a skull-stripped image, where it
        cannot be estimated.
    shape : tuple of int
        Of the image.
    spacing : tuple of float
        Voxel size of the image in mm.
    """

    found: bool
    centre: tuple[float, ...]
    confidence: float
    touches_border: bool
    intracranial_mm3: float | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    def box(self, extent_mm: Sequence[float]) -> Box:
        """Box around the brainstem, or all of the image if none was found.

        Parameters
        ----------
        extent_mm : sequence of three floats
            Edges in mm along z, y, x.

        Returns
        -------
        tuple of three slices
            Along z, y, x, at most `extent_mm` long, clipped at the border of the image.
        """
        if not self.found:
            z, y, x = (slice(0, size) for size in self.shape)
            return z, y, x
        parts = []
        for centre, size, edge, extent in zip(
            self.centre, self.shape, self.spacing, extent_mm, strict=True
        ):
            # Affines are rounded: 96 mm of 1.0000001 mm are 96 voxels.
            length = max(math.floor(extent / edge + 0.01), 1)
            start = round(centre + 0.5 - length / 2)
            parts.append(slice(max(start, 0), min(start + length, size)))
        z, y, x = parts
        return z, y, x


@dataclass(frozen=True, eq=False)
class CascadeOutput:
    """The output of a cascade for one image, on the image's axes.

    Attributes
    ----------
    probabilities : ndarray of float32, shape (C, z, y, x)
        Of `Cascade.labels` within `region`, background first, from one pass of each network. No
        voxels if no brainstem was found.
    region : tuple of three slices
        Box in the image, along z, y, x; everything outside it is background.
    intracranial_mm3 : float or None
        Intracranial volume; None on a skull-stripped image.
    confidence : float
        Mean probability of the brainstem in the localizer, 0 to 1.
    found : bool
        The image shows a brainstem.
    touches_border : bool
        The brainstem reaches the border of the image.
    """

    probabilities: NDArray[np.float32]
    region: Box
    intracranial_mm3: float | None
    confidence: float
    found: bool
    touches_border: bool


class Cascade:
    """A localizer and a segmenter, loaded once and run on any number of images.

    Both average softmax, whose sums over voxels are volumes.

    Parameters
    ----------
    folder : Path
        Holds ``locator`` (the localizer) and ``segmenter``, two nnU-Net v2 model folders.
    device : torch.device
        Of the networks.
    folds : sequence of str, optional
        Of the segmenter; all of them by default.
    mirror : bool
        Average over mirrored inputs, along the axes that each checkpoint allows.
    runtime : {"torch", "openvino"}
        What runs the networks.
    half : bool
        On a CUDA GPU, multiply in float16.

    Attributes
    ----------
    labels : tuple of str
        Background and regions.
    parts : tuple of str
        Parts of regions and peduncles that the segmenter knows
        (`bids_app.engines.nnunet.classes`); empty if it knows none.

    Raises
    ------
    ModelError
        The folder is damaged, or its networks do not have the classes of a cascade.
    UsageError
        A requested fold is missing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device,
        folds: Sequence[str] | None = None,
        mirror: bool = True,
        runtime: Runtime = "torch",
        half: bool = True,
    ) -> None:
        load = partial(
            NnUNet,
            device=device,
            mirror=mirror,
            averaging="softmax",
            runtime=runtime,
            half=half,
        )
        self._localizer = load(folder / "locator")
        self._segmenter = load(folder / "segmenter", folds=folds)
        self._classes = Classes.of(self._segmenter.labels)
        if len(self._localizer.labels) != REST_OF_INTRACRANIAL + 1 or len(self._classes.labels) < 2:
            raise ModelError(
                f"{folder}: the localizer or segmenter does not have the classes of a cascade. "
                "Install the model again."
            )
        self._segmenter.count_together(self._classes.groups)
        self.labels = self._classes.labels
        self.parts = self._classes.parts

    def predict(self, image: NDArray[np.float32], spacing: Sequence[float]) -> CascadeOutput:
        """Find the brainstem in an image and segment a box around it.

        Parameters
        ----------
        image : ndarray of float32, shape (z, y, x)
            It is not changed.
        spacing : sequence of three floats
            Voxel size in mm along z, y, x.
        """
        localization = self.localize(image, spacing)
        if localization.found:
            region = localization.box(self._segmenter.patch_mm)
            probabilities = self._segment(image[region], spacing)
            brainstem = probabilities[1:].sum(axis=0) > 0.5
            if (recentred := _recentred(localization, region, brainstem)) is not None:
                region = recentred.box(self._segmenter.patch_mm)
                probabilities = self._segment(image[region], spacing)
        else:
            region = (slice(0, 0),) * 3
            probabilities = np.zeros((len(self.labels), 0, 0, 0), dtype=np.float32)
        return CascadeOutput(
            probabilities=probabilities,
            region=region,
            intracranial_mm3=localization.intracranial_mm3,
            confidence=localization.confidence,
            found=localization.found,
            touches_border=localization.touches_border,
        )

    def predict_sampled(
        self, data: NDArray[np.float32]
    ) -> tuple[Inferred, NDArray[np.float32] | None]:
        """Segment an image that was sampled and normalized for the segmenter.

        Parameters
        ----------
        data : ndarray of float32, shape (z, y, x)
            On a grid of the segmenter's spacing.

        Returns
        -------
        inferred : Inferred
            Probabilities of `labels`, and agreement of these over all mirrorings.
        parts : ndarray of float32, shape (P, z, y, x), or None
            Probabilities of `parts`; None without any.
        """
        found = self._segmenter.infer(data[None])
        parts = self._classes.choose_parts(found.mean)
        return found._replace(mean=self._classes.merge(found.mean)), parts

    def _segment(self, crop: NDArray[np.float32], spacing: Sequence[float]) -> NDArray[np.float32]:
        prepared = self._segmenter.prepare(crop, spacing)
        inferred = self._segmenter.infer(prepared.data, mirror=False)
        return self._segmenter.restore(self._classes.merge(inferred.mean), prepared)

    def localize(self, image: NDArray[np.float32], spacing: Sequence[float]) -> Localization:
        """Find the brainstem in an image.

        An image larger than the localizer's patch, such as a rotated one, is processed in tiles.
        Tiles that cut through the head give a poor intracranial volume. The part with the head is
        then processed again as an image of its own, and only that counts.

        Parameters
        ----------
        image : ndarray of float32, shape (z, y, x)
            It is not changed.
        spacing : sequence of three floats
            Voxel size in mm along z, y, x.
        """
        localization, in_tiles = self._run_localizer(image, spacing)
        if not (in_tiles and localization.confidence):
            return localization
        z, y, x = localization.centre
        middle = (z + HEAD_ABOVE_MM / spacing[0], y, x)
        head = replace(localization, found=True, centre=middle).box(self._localizer.patch_mm)
        localization, _ = self._run_localizer(image[head], spacing)
        z, y, x = (
            place + part.start for place, part in zip(localization.centre, head, strict=True)
        )
        return replace(localization, centre=(z, y, x), shape=image.shape)

    def _run_localizer(
        self, image: NDArray[np.float32], spacing: Sequence[float]
    ) -> tuple[Localization, bool]:
        """Run the localizer on an image; also return whether it took several tiles."""
        prepared = self._localizer.prepare(image, spacing)
        probabilities = self._localizer.probabilities(self._localizer.infer(prepared.data).mean)
        inside = probabilities[[BRAINSTEM, REST_OF_INTRACRANIAL]].sum(axis=0)
        stripped = _is_stripped(prepared.data[0], inside > 0.5)
        brainstem = _largest_component(probabilities.argmax(axis=0) == BRAINSTEM)
        confidence = float(probabilities[BRAINSTEM][brainstem].mean()) if brainstem.any() else 0.0
        found = (
            confidence >= LEAST_CONFIDENCE
            and np.count_nonzero(brainstem) * prepared.voxel_volume >= SMALLEST_MM3
        )
        points = np.argwhere(brainstem).astype(np.float64)
        centre = (np.array(image.shape) - 1.0) / 2
        if len(points):
            centre = prepared.to_image(points.mean(axis=0, keepdims=True))[0]
        localization = Localization(
            found=bool(found),
            centre=tuple(centre.tolist()),
            confidence=confidence,
            touches_border=bool(found) and _reaches_border(points, prepared, image.shape),
            intracranial_mm3=(
                None if stripped else float(inside.sum(dtype=np.float64) * prepared.voxel_volume)
            ),
            shape=image.shape,
            spacing=tuple(spacing),
        )
        sizes = np.array(prepared.data.shape[1:])
        return localization, bool((sizes > self._localizer.patch_size).any())


def _recentred(
    localization: Localization, region: Box, brainstem: NDArray[np.bool_]
) -> Localization | None:
    """Move the centre to the brainstem that a crop shows; None if the crop was near enough.

    In a narrow field of view a crop may lie farther from the brainstem than any in training.
    """
    if not brainstem.any():
        return None
    start = [part.start for part in region]
    centre = np.argwhere(brainstem).mean(axis=0) + start
    offset = np.abs(centre - localization.centre) * localization.spacing
    return replace(localization, centre=tuple(centre)) if offset.max() > LARGEST_OFFSET_MM else None


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Largest component of a mask, of voxels that share faces."""
    labels, number = ndimage.label(mask)
    if number < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == sizes.argmax()
    return largest


def _is_stripped(data: NDArray[np.float32], inside: NDArray[np.bool_]) -> bool:
    """Whether there is next to no tissue outside the skull, or nothing inside."""
    if not inside.any():
        return True
    air, tissue = np.percentile(data, 1), np.median(data[inside])
    bright = data > air + 0.3 * (tissue - air)
    scalp = np.count_nonzero(bright & ~inside)
    return bool(scalp < LEAST_SCALP * np.count_nonzero(inside))


def _reaches_border(
    points: NDArray[np.float64], prepared: Prepared, shape: tuple[int, ...]
) -> bool:
    """Whether the outermost points of the network's grid lie on the border of the image."""
    first = prepared.to_image(points.min(axis=0, keepdims=True) - 0.5)[0]
    last = prepared.to_image(points.max(axis=0, keepdims=True) + 0.5)[0]
    return bool((first <= -0.25).any() or (last >= np.array(shape) - 0.75).any())
