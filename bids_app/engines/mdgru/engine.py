"""An MD-GRU model folder, loaded once and run on any number of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bids_app.engines.mdgru.inference import predict, whiten
from bids_app.engines.mdgru.layout import select_weights
from bids_app.engines.mdgru.network import MDGRU
from bids_app.engines.mdgru.options import Inference
from bids_app.engines.mdgru.resampling import (
    box_in_millimetres,
    from_millimetres,
    is_coarse_or_fine,
    to_millimetres,
)
from bids_app.engines.torch_files import load
from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bids_app.engines.mdgru.resampling import Box

WEIGHTS = "weights.pth"


class MDGRUModel:
    """A trained MD-GRU, with resampling to its grid and back.

    Parameters
    ----------
    folder : Path
        Holds ``weights.pth``.
    inference : mapping
        The table ``[inference]`` of the manifest.
    device : torch.device
    threads : int
        CPU threads.

    Attributes
    ----------
    inference : Inference

    Raises
    ------
    ModelError
        The weights cannot be loaded.
    ValueError
        An entry of the table is invalid.
    """

    def __init__(
        self, folder: Path, inference: Mapping[str, Any], *, device: torch.device, threads: int = 1
    ) -> None:
        self.inference = Inference.read(inference)
        content = load(folder / WEIGHTS)
        if not isinstance(content, dict) or not all(
            isinstance(tensor, torch.Tensor) for tensor in content.values()
        ):
            raise ModelError(f"{folder / WEIGHTS}: not MD-GRU weights. Install the model again.")
        select_weights({f"default/{name}": tensor.numpy() for name, tensor in content.items()})
        self._device = device
        tiled = device.type == "cpu" and self.inference.precision == "float32"
        self._network = MDGRU(
            content,
            device=device,
            convolution=self.inference.convolution or ("tiled" if tiled else "direct"),
            precision=self.inference.precision,
            threads=threads,
        )

    def by_threshold(self, spacing: Sequence[float]) -> bool:
        """Whether labels of an image follow the published rule for resampled images.

        A voxel then gets the label whose probability is at least 0.5 (the last one of two), or
        none.
        """
        return self.inference.labels == "threshold" and is_coarse_or_fine(spacing)

    def predict(
        self,
        image: NDArray[np.float32],
        spacing: Sequence[float],
        *,
        box: Box | None = None,
        progress: Callable[[float, int], object] = lambda _share, _total: None,
    ) -> NDArray[np.float32]:
        """Compute the class probabilities of an image.

        Parameters
        ----------
        image : ndarray of float32, shape (X, Y, Z)
            In RAS orientation.
        spacing : sequence of three floats
            Voxel size in mm.
        box : tuple of three slices, optional
            Part of the image to segment; all of it by default.
        progress : callable, optional
            Called with the number of windows done since the last call (a fraction) and the total
            number. An exception it raises ends the segmentation.

        Returns
        -------
        ndarray of float32, shape (C, x, y, z)
            Within `box`, background first.
        """
        whole = box or tuple(slice(0, size) for size in image.shape)
        x, y, z = whole
        if not is_coarse_or_fine(spacing):
            return self._predict(image, spacing, (x, y, z), progress)
        fine = to_millimetres(image, spacing)
        fine_box = box_in_millimetres((x, y, z), image.shape, spacing, fine.shape)
        probabilities = self._predict(fine, (1.0, 1.0, 1.0), fine_box, progress)
        return from_millimetres(
            probabilities, fine_box, fine.shape, (x, y, z), image.shape, spacing
        )

    def _predict(
        self,
        image: NDArray[np.float32],
        spacing: Sequence[float],
        box: Box,
        progress: Callable[[float, int], object],
    ) -> NDArray[np.float32]:
        return predict(
            self._network,
            whiten(image, spacing),
            self.inference.window,
            self.inference.padding,
            device=self._device,
            batch=self.inference.batch,
            box=box,
            progress=progress,
        )
