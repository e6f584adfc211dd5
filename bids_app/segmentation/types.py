"""What goes into a segmenter and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bids_app.geometry.boxes import Box, affine_of_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_app.engines.nnunet.inference import Runtime
    from bids_app.io.images import Volume
    from bids_app.segmentation.canonical import FramePass

Report = Callable[[str], object]


@dataclass(frozen=True)
class InferenceOptions:
    """How a model is run.

    Attributes
    ----------
    device : str
        auto, cpu, openvino (the CPU, by OpenVINO), cuda, cuda:N or mps.
    folds : tuple of str
        Networks of the ensemble to use; empty for all.
    mirror : bool
        Average over mirrored inputs.
    half : bool
        On a CUDA GPU, nnU-Net networks multiply in float16.
    region : bool
        Run a model of whole heads only on a box around the brainstem, which the open model's
        localizer finds.
    threads : int
        CPU threads of the network.
    check : callable or None
        Called before each pass of a model of whole heads, which may take hours per image. An
        exception that it raises ends the segmentation.
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
        """What runs nnU-Net networks."""
        return "openvino" if self.device == "openvino" else "torch"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Label map and probabilities of one volume.

    Attributes
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        On the volume's RAS grid: 0 and the label values of the model's regions.
    probabilities : ndarray of float32, shape (K, x, y, z)
        Of the model's K regions, in their order, within `box`.
    box : tuple of three slices
        Part of the volume's grid that `probabilities` covers; outside it they are 0.
    device : str
        Where the network ran.
    frame_pass : FramePass or None
        The segmentation in the canonical frame, if the model has one. Volumes and shape come from
        it, `labels` and `probabilities` from the mean of both passes.
    pass_dice : tuple of float, or None
        Per region, Dice between the passes on the image's axes and in the canonical frame; nan if
        neither has the region. None without `frame_pass`.
    intracranial_mm3 : float or None
        Estimated intracranial volume, if the model gives one.
    confidence : float or None
        Mean probability of the brainstem in the localizer, if the model has one.
    out_of_view : bool
        The brainstem that the localizer found reaches the border of the image.
    agreement : tuple of float, or None
        Per region, mean Dice between the maps of the model's networks; nan if no map has the
        region. None for a single network.
    mirror_dice : tuple of float, or None
        Per region, mean Dice between predictions on mirrored and unmirrored tiles. None without
        mirroring.
    spread : tuple of float, or None
        Per region and then for the whole brainstem, standard deviation over mean of the volume
        over all single passes (one for each network and mirroring). None for a single pass.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    box: Box
    device: str
    frame_pass: FramePass | None = None
    pass_dice: tuple[float, ...] | None = None
    intracranial_mm3: float | None = None
    confidence: float | None = None
    out_of_view: bool = False
    agreement: tuple[float, ...] | None = None
    mirror_dice: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None

    def box_affine(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel indices of `box` to millimetres, from those of the volume; shape (4, 4) both."""
        return affine_of_box(affine, self.box)

    def whole_probabilities(self) -> NDArray[np.float32]:
        """Probabilities on the volume's whole grid, shape (K, X, Y, Z)."""
        maps = np.zeros((len(self.probabilities), *self.labels.shape), dtype=np.float32)
        maps[(slice(None), *self.box)] = self.probabilities
        return maps


class Segmenter(Protocol):
    """A loaded model."""

    device: str

    def __call__(self, volume: Volume, report: Report | None = None) -> Segmentation:
        """Segment one volume.

        Parameters
        ----------
        volume : Volume
        report : callable, optional
            Receives a line on the progress every minute; on a terminal a bar is shown instead.
            Without it, no progress is shown.
        """
        ...
