"""nnU-Net inference within this process: networks are loaded once, sums are in float32.

The result is that of nnunetv2's own predictor without its float16 sums; in mode ``v1``, that of
nnU-Net v1. nnunetv2's predictor is not used, because it imports the trainers (four seconds) and
starts worker processes.
"""

from __future__ import annotations

import itertools
import logging
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from bids_app.engines.nnunet import preprocessing
from bids_app.engines.nnunet.cpu import passes_at_once, use_onednn
from bids_app.engines.nnunet.gpu import use_half
from bids_app.engines.nnunet.plans import read_plans
from bids_app.engines.nnunet.postprocessing import postprocess, read_steps
from bids_app.engines.nnunet.sliding import predict_tiles, tile_weights
from bids_app.engines.nnunet.votes import Votes
from bids_app.engines.nnunet.weights import CHECKPOINT, fill, read_checkpoint
from bids_app.engines.threads import fix_convolutions, side_by_side
from bids_app.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from bids_app.engines.nnunet.preprocessing import Prepared

Runtime = Literal["torch", "openvino"]

LOG = logging.getLogger(__name__)


class Inferred(NamedTuple):
    """Output of the networks on their own grid.

    Attributes
    ----------
    mean : ndarray of float32, shape (C, z', y', x')
        Mean logits or softmax.
    agreement : tuple of float, or None
        For each class except the background, the mean Dice over all pairs of networks; nan if no
        network predicts the class. None for a single network.
    mirror_dice : tuple of float, or None
        For each class except the background, the mean Dice between a network's predictions on
        mirrored and unmirrored tiles. None without mirroring.
    sizes : ndarray, shape (P, C - 1)
        Size of each class except the background in each pass (one for each network and
        mirroring), in an arbitrary unit.
    """

    mean: NDArray[np.float32]
    agreement: tuple[float, ...] | None
    mirror_dice: tuple[float, ...] | None
    sizes: NDArray[np.float64]


class NnUNet:
    """A trained nnU-Net, loaded once and run on any number of images.

    Each fold is a separate network. Networks use the loaded tensors directly, so this needs no
    more memory than the weights, and no copying between folds.

    Parameters
    ----------
    folder : Path
        An nnU-Net v2 model: ``plans.json``, ``dataset.json``, ``fold_*/checkpoint_final.pth``.
    device : torch.device
    folds : sequence of str, optional
        Such as ``("0", "1")`` or ``("all",)``. All numbered folds by default, else ``all``.
    mirror : bool
        Average over mirrored inputs, along the axes that the checkpoint allows.
    averaging : {"logits", "softmax"}
        What is averaged over mirrors, tiles and folds, and resampled to the image.
    mode : {"v1", "v2"}
        Version of nnU-Net whose order of steps is followed; ``v1`` averages softmax.
    runtime : {"torch", "openvino"}
        What runs the networks; OpenVINO uses as many threads as torch.
    half : bool
        On a CUDA GPU, multiply in float16; sums and averages stay in float32.

    Attributes
    ----------
    labels : tuple of str
        Name of each channel of the probabilities, background first.
    patch_mm : tuple of float
        Extent of the network's input in mm along z, y, x.

    Raises
    ------
    ModelError
        The folder is damaged, or holds a kind of model that this engine does not support.
    UsageError
        A requested fold is missing, or OpenVINO is missing or cannot run the network.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device,
        folds: Sequence[str] | None = None,
        mirror: bool = True,
        averaging: Literal["logits", "softmax"] = "logits",
        mode: preprocessing.Mode = "v2",
        runtime: Runtime = "torch",
        half: bool = True,
    ) -> None:
        if mode == "v1" and averaging != "softmax":
            raise ModelError(f'{folder}: mode v1 requires averaging = "softmax". Fix model.toml.')
        checkpoints = [read_checkpoint(path) for path in _checkpoints(folder, folds)]
        self._plans = read_plans(folder, checkpoints[0].configuration)
        fix_convolutions(device)
        self._networks: list[nn.Module]
        self._networks = [fill(self._plans.network(), c.weights).to(device) for c in checkpoints]
        if runtime == "openvino":
            from bids_app.engines.nnunet.openvino import OpenVINONetwork

            patch, threads = self._plans.patch_size, torch.get_num_threads()
            self._networks = [OpenVINONetwork(n, patch, threads) for n in self._networks]
        elif device.type == "cpu" and mode == "v2":  # v1: rounding as in nnU-Net v1
            for network in self._networks:
                use_onednn(network)
        elif device.type == "cuda" and half:
            for network in self._networks:
                use_half(network)
        self._weights = tile_weights(self._plans.patch_size, device)
        self._device = device
        self._mirror_axes = checkpoints[0].mirror_axes if mirror else ()
        self._at_once, self._threads = 1, torch.get_num_threads()
        if device.type == "cpu" and runtime == "torch":
            most = min(self._threads, 2 ** len(self._mirror_axes))
            self._at_once = passes_at_once(self._networks[0], self._plans.patch_size, most)
        self._groups: tuple[tuple[int, ...], ...] | None = None
        self._softmax = averaging == "softmax"
        self._mode = mode
        self._steps = read_steps(folder) if mode == "v1" else ()
        self.labels = self._plans.labels
        extent = [n * mm for n, mm in zip(self._plans.patch_size, self._plans.spacing, strict=True)]
        z, y, x = (extent[axis] for axis in self._plans.transpose_backward)
        self.patch_mm = (z, y, x)
        self.patch_size = self._plans.patch_size

    def count_together(self, groups: Sequence[Sequence[int]]) -> None:
        """Compare and measure sums of classes instead of classes, in all passes to come.

        The averaging must be ``softmax``. `Inferred.mean` keeps all classes; its other fields then
        have an entry for each group but the first, the background.

        Parameters
        ----------
        groups : sequence of sequences of int
            Classes of each group.
        """
        self._groups = tuple(map(tuple, groups))

    def before_each_pass(self, function: Callable[[], object]) -> None:
        """Call a function before each pass of a network; an exception it raises ends the inference.

        An image can take hours on a CPU. This is how a run stops within an image.
        """

        def hook(_network: nn.Module, _inputs: object) -> None:
            function()

        for network in self._networks:
            network.register_forward_pre_hook(hook)

    def prepare(self, image: NDArray[np.float32], spacing: Sequence[float]) -> Prepared:
        """Crop to non-zero, normalise and resample an image.

        Parameters
        ----------
        image : ndarray of float32, shape (z, y, x)
            It is not changed.
        spacing : sequence of three floats
            Voxel size in mm along z, y, x.
        """
        return preprocessing.prepare(image, spacing, self._plans, self._mode)

    def infer(
        self,
        data: NDArray[np.float32],
        progress: Callable[[int, int], object] = lambda _passes, _total: None,
        *,
        mirror: bool = True,
    ) -> Inferred:
        """Run the networks on an image that `prepare` gave, or that has their grid and scale.

        If a GPU cannot hold the sums in addition to the network, they are kept in main memory.

        Parameters
        ----------
        data : ndarray of float32, shape (1, z', y', x')
            `Prepared.data`.
        progress : callable, optional
            Called with the passes done since the last call and the total number of passes: networks
            x tiles x mirrorings.
        mirror : bool
            If false, run on the unmirrored image alone.

        Raises
        ------
        torch.OutOfMemoryError
            The GPU cannot hold one tile.
        """
        values = torch.from_numpy(data)
        axes = self._mirror_axes if mirror else ()
        try:
            return self._infer(values.to(self._device), self._weights, axes, progress)
        except torch.OutOfMemoryError:
            LOG.warning("%s is short of memory; sums are kept in main memory", self._device)
        torch.cuda.empty_cache()
        return self._infer(values, self._weights.cpu(), axes, progress)

    @torch.inference_mode()
    def _infer(
        self,
        data: Tensor,
        weights: Tensor,
        axes: Sequence[int],
        progress: Callable[[int, int], object],
    ) -> Inferred:
        total: Tensor | None = None
        maps: list[NDArray[np.uint8]] = []
        votes = [Votes(self._weights, self._groups) for _ in self._networks]

        def report(passes: int, number: int) -> None:
            progress(passes, number * len(self._networks))

        with self._pool(2 ** len(axes)) as pool:
            for network, own_votes in zip(self._networks, votes, strict=True):
                output = predict_tiles(
                    network,
                    data,
                    weights,
                    device=self._device,
                    mirror_axes=axes,
                    softmax=self._softmax,
                    votes=own_votes,
                    pool=pool,
                    progress=report,
                )
                if len(self._networks) > 1:
                    maps.append(own_votes.of(output).cpu().numpy())
                total = output if total is None else total.add_(output)
        assert total is not None  # noqa: S101 - there is always a fold
        mean: NDArray[np.float32] = total.div_(len(self._networks)).cpu().contiguous().numpy()
        dice = np.concatenate([own_votes.mirror_dice() for own_votes in votes])
        return Inferred(
            mean,
            _agreement(maps, len(self._groups or mean)) if maps else None,
            tuple(dice.mean(axis=0).tolist()) if len(dice) else None,
            np.concatenate([own_votes.sizes for own_votes in votes]),
        )

    def _pool(self, passes: int) -> AbstractContextManager[Executor | None]:
        at_once = min(self._at_once, passes)
        if at_once == 1:
            return nullcontext()
        return side_by_side(at_once, self._threads // at_once)

    def probabilities(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert the output of `infer` to probabilities on the network's grid, in place."""
        if not self._softmax:
            preprocessing.softmax_(output)
        return output

    def restore(self, output: NDArray[np.float32], prepared: Prepared) -> NDArray[np.float32]:
        """Resample the output of `infer` to the image's grid, as probabilities.

        Parameters
        ----------
        output : ndarray of float32, shape (C, z', y', x')
            It may be overwritten.
        prepared : Prepared

        Returns
        -------
        ndarray of float32, shape (C, z, y, x)
        """
        return preprocessing.restore(
            output, prepared, self._plans, self._mode, logits=not self._softmax
        )

    def postprocess(self, labels: NDArray[np.uint8], spacing: Sequence[float]) -> NDArray[np.uint8]:
        """Apply the model's postprocessing to a label map, as nnU-Net v1 does.

        Parameters
        ----------
        labels : ndarray of uint8, shape (z, y, x)
            Classes of the highest probability; not changed.
        spacing : sequence of three floats
            Voxel size in mm along z, y, x.
        """
        return postprocess(labels, spacing, self._steps)

    def predict(self, image: NDArray[np.float32], spacing: Sequence[float]) -> NDArray[np.float32]:
        """Segment an image: `prepare`, `infer` and `restore` in sequence.

        Parameters
        ----------
        image : ndarray of float32, shape (z, y, x)
        spacing : sequence of three floats
            Voxel size in mm along z, y, x.

        Returns
        -------
        ndarray of float32, shape (C, z, y, x)
            Probabilities of `labels`.
        """
        prepared = self.prepare(image, spacing)
        return self.restore(self.infer(prepared.data).mean, prepared)


def _agreement(maps: Sequence[NDArray[np.uint8]], classes: int) -> tuple[float, ...]:
    """Mean Dice over all pairs of label maps, for each class except the background."""
    sizes = [np.bincount(map_.ravel(), minlength=classes) for map_ in maps]
    scores = []
    for a, b in itertools.combinations(range(len(maps)), 2):
        both = np.bincount(maps[a][maps[a] == maps[b]], minlength=classes)
        total = sizes[a] + sizes[b]
        scores.append(np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)[1:])
    return tuple(np.mean(scores, axis=0).tolist())


def _checkpoints(folder: Path, folds: Sequence[str] | None) -> list[Path]:
    there = {path.parent.name[len("fold_") :]: path for path in folder.glob(f"fold_*/{CHECKPOINT}")}
    numbered = sorted((name for name in there if re.fullmatch(r"\d+", name)), key=int)
    names = list(folds) if folds else numbered or sorted(there)
    if not names:
        raise ModelError(f"{folder}: no fold_*/{CHECKPOINT}. Install the model again.")
    for name in names:
        if name not in there:
            noun = "folds" if len(there) > 1 else "fold"
            raise UsageError(
                f"--folds {name}: the model only has {noun} {', '.join(sorted(there))}."
            )
    return [there[name] for name in names]
