"""Locate the brainstem on a coarse grid, then segment a box around it on a fine one.

The engine of the open model. The locator's output never leaves its own grid: it gives a point, a
volume and a measure of trust.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_app.engines.nnunet.inference import NnUNet
from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from bids_app.engines.nnunet.inference import Inferred, Runtime
    from bids_app.engines.nnunet.preprocessing import Prepared

Box = tuple[slice, slice, slice]

# Classes of the locator.
BRAINSTEM, REST_OF_INTRACRANIAL = 1, 2
# The segmenter learns the cord so that the medulla ends where it begins; nobody asked for it.
HELPERS = ("cord",)
# Midbrain, pons and medulla of an adult have 17 ml at the least. A quarter of that may be all there
# is in a field of view that cuts the brainstem; anything smaller is a false alarm.
SMALLEST_MM3 = 4000.0
# The open model is 0.95 to 0.98 sure of the brainstem of 27 heads; version 1.2.0 reached 0.78 in
# smooth noise and 0.72 in balls.
LEAST_CONFIDENCE = 0.8
# Crops of training lay this far from the middle of the brainstem at most, along each axis.
LARGEST_OFFSET_MM = 8.0
# So far above the brainstem lies the middle of the one patch of 256 mm with the head in it. Of 20,
# 32, 44 and 56 mm this changed the volume of the inside of the skull least when four heads, of
# training and validation, were turned by 10 degrees.
HEAD_ABOVE_MM = 32.0
# Outside the skull is tissue of 0.5 to 1.6 times the volume of its inside on the whole heads that
# were looked at (of three sources), and of a tenth of it at most on skull-stripped ones.
LEAST_SCALP = 0.25


@dataclass(frozen=True)
class Located:
    """Where the brainstem lies in an image.

    Attributes
    ----------
    found : bool
    centre : tuple of float
        Along z, y, x in voxels of the image, voxel centres at whole numbers; the middle of the
        image where nothing looks like a brainstem.
    confidence : float
        Mean probability of the brainstem within its outline, 0 to 1; 0 where there is none.
    touches_border : bool
        The outline ends at the border of the image: part of the brainstem may be out of view.
    intracranial_mm3 : float or None
        Volume of the inside of the skull: the sum of its probabilities. None on a skull-stripped
        image, where it cannot be told.
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
        """Cut a box around the brainstem, or all of the image where none was found.

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
    """What a cascade says of an image.

    Attributes
    ----------
    probabilities : ndarray of float32, shape (C, z, y, x)
        Of the segmenter's classes on `region`, background first and helper classes merged into it.
        Without a voxel where no brainstem was found.
    region : tuple of three slices
        Box of the image, along z, y, x; outside it all is background.
    intracranial_mm3 : float or None
        Volume of the inside of the skull; None on a skull-stripped image.
    confidence : float
        Mean probability with which the brainstem was located, 0 to 1.
    found : bool
        A brainstem is in the image.
    touches_border : bool
        The brainstem ends at the border of the image.
    agreement : tuple of float, or None
        Of the segmenter's networks, for each class but the background (`Inferred`).
    mirror_dice : tuple of float, or None
        Of the segmenter's mirrored passes, likewise.
    sizes : ndarray, shape (P, C - 1)
        Of the classes by its single passes, likewise; no pass where no brainstem was found.
    """

    probabilities: NDArray[np.float32]
    region: Box
    intracranial_mm3: float | None
    confidence: float
    found: bool
    touches_border: bool
    agreement: tuple[float, ...] | None
    mirror_dice: tuple[float, ...] | None
    sizes: NDArray[np.float64]


class Cascade:
    """A locator and a segmenter, loaded once and run on any number of images.

    Both average softmax, whose sums over voxels are volumes.

    Parameters
    ----------
    folder : Path
        Holds ``locator`` and ``segmenter``, two nnU-Net v2 model folders.
    device : torch.device
        Of the networks.
    folds : sequence of str, optional
        Of the segmenter; by default all of them.
    mirror : bool
        Average over mirrored inputs, along the axes that each checkpoint allows.
    runtime : {"torch", "openvino"}
        What runs the networks.
    half : bool
        On a CUDA GPU, multiply in float16.

    Raises
    ------
    ModelError
        The folder is damaged, or its networks have other classes than a cascade needs.
    UsageError
        A fold that was asked for is not there.
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
        self._locator = load(folder / "locator")
        self._segmenter = load(folder / "segmenter", folds=folds)
        labels = self._segmenter.labels
        kept = [name for name in labels if name not in HELPERS]
        if len(self._locator.labels) != REST_OF_INTRACRANIAL + 1 or labels[: len(kept)] != tuple(
            kept
        ):
            raise ModelError(
                f"{folder}: the classes of locator or segmenter are not a cascade's. "
                "Install the model again."
            )
        self.labels = tuple(kept)

    def predict(self, image: NDArray[np.float32], spacing: Sequence[float]) -> CascadeOutput:
        """Segment an image.

        Parameters
        ----------
        image : ndarray of float32, shape (z, y, x)
            It is not changed.
        spacing : sequence of three floats
            Voxel size in mm along z, y, x.
        """
        located = self.locate(image, spacing)
        if located.found:
            region = located.box(self._segmenter.patch_mm)
            classes, inferred = self._segment(image[region], spacing)
            kept = len(self.labels)
            better = _recentred(located, region, classes[1:kept].sum(axis=0) > 0.5)
            if better is not None:
                region = better.box(self._segmenter.patch_mm)
                classes, inferred = self._segment(image[region], spacing)
            agreement = inferred.agreement and inferred.agreement[: kept - 1]
            mirror_dice = inferred.mirror_dice and inferred.mirror_dice[: kept - 1]
            sizes = inferred.sizes[:, : kept - 1]
            classes[0] += classes[kept:].sum(axis=0)
            probabilities = classes[:kept]
        else:
            region, agreement, mirror_dice = (slice(0, 0),) * 3, None, None
            sizes = np.zeros((0, len(self.labels) - 1))
            probabilities = np.zeros((len(self.labels), 0, 0, 0), dtype=np.float32)
        return CascadeOutput(
            probabilities=probabilities,
            region=region,
            intracranial_mm3=located.intracranial_mm3,
            confidence=located.confidence,
            found=located.found,
            touches_border=located.touches_border,
            agreement=agreement,
            mirror_dice=mirror_dice,
            sizes=sizes,
        )

    def _segment(
        self, crop: NDArray[np.float32], spacing: Sequence[float]
    ) -> tuple[NDArray[np.float32], Inferred]:
        prepared = self._segmenter.prepare(crop, spacing)
        inferred = self._segmenter.infer(prepared)
        return self._segmenter.restore(inferred.mean, prepared), inferred

    def locate(self, image: NDArray[np.float32], spacing: Sequence[float]) -> Located:
        """Find the brainstem in an image.

        An image larger than the locator's patch, a turned or a long one, is seen in tiles, and one
        that cuts through a head tells the inside of its skull badly. There only the part with the
        head counts, which is prepared and seen as an image of its own.

        Parameters
        ----------
        image : ndarray of float32, shape (z, y, x)
            It is not changed.
        spacing : sequence of three floats
            Voxel size in mm along z, y, x.
        """
        located, in_tiles = self._look(image, spacing)
        if not (in_tiles and located.confidence):
            return located
        z, y, x = located.centre
        middle = (z + HEAD_ABOVE_MM / spacing[0], y, x)
        head = replace(located, found=True, centre=middle).box(self._locator.patch_mm)
        located, _ = self._look(image[head], spacing)
        z, y, x = (place + part.start for place, part in zip(located.centre, head, strict=True))
        return replace(located, centre=(z, y, x), shape=image.shape)

    def _look(self, image: NDArray[np.float32], spacing: Sequence[float]) -> tuple[Located, bool]:
        """Run the locator on an image; also tell whether it took several tiles."""
        prepared = self._locator.prepare(image, spacing)
        probabilities = self._locator.probabilities(self._locator.infer(prepared).mean)
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
        located = Located(
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
        return located, bool((sizes > self._locator.patch_size).any())


def _recentred(located: Located, region: Box, brainstem: NDArray[np.bool_]) -> Located | None:
    """Move the centre to the brainstem that a crop shows; None where the crop lay well.

    In a narrow field of view a crop may lie farther off than any of training did.
    """
    if not brainstem.any():
        return None
    start = [part.start for part in region]
    centre = np.argwhere(brainstem).mean(axis=0) + start
    offset = np.abs(centre - located.centre) * located.spacing
    return replace(located, centre=tuple(centre)) if offset.max() > LARGEST_OFFSET_MM else None


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest component of a mask, of voxels that share faces."""
    labels, number = ndimage.label(mask)
    if number < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == sizes.argmax()
    return largest


def _is_stripped(data: NDArray[np.float32], inside: NDArray[np.bool_]) -> bool:
    """Tell whether next to no tissue is outside the skull, or nothing is inside."""
    if not inside.any():
        return True
    air, tissue = np.percentile(data, 1), np.median(data[inside])
    bright = data > air + 0.3 * (tissue - air)
    scalp = np.count_nonzero(bright & ~inside)
    return bool(scalp < LEAST_SCALP * np.count_nonzero(inside))


def _reaches_border(
    points: NDArray[np.float64], prepared: Prepared, shape: tuple[int, ...]
) -> bool:
    """Tell whether the outer faces of voxels of the network's grid lie on the image's."""
    first = prepared.to_image(points.min(axis=0, keepdims=True) - 0.5)[0]
    last = prepared.to_image(points.max(axis=0, keepdims=True) + 0.5)[0]
    return bool((first <= -0.25).any() or (last >= np.array(shape) - 0.75).any())
