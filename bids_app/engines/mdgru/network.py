"""The network of MD-GRU: convolutional gated recurrent units that scan a window along its axes.

After Andermatt et al. 2016, doi 10.1007/978-3-319-46976-8_15. Each of the three layers runs six
units (three axes, both directions), takes the mean of their states, and maps it linearly.

All tensors have their channels last: windows are of shape (X, Y, Z, C), planes (H, W, C).
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from bids_app.engines.mdgru.layout import AXES, DIRECTIONS, LAYERS, scan_name
from bids_app.engines.mdgru.tiles import LARGEST, TiledConvolution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

CONVOLUTIONS = ("direct", "tiled")
# What the transforms of tiles cost a channel of the state, in channels that are multiplied.
_TRANSFORMS = 150
PRECISIONS = ("float32", "tf32", "bfloat16")


class MDGRU:
    """An MD-GRU with its weights.

    Parameters
    ----------
    weights : mapping of str to Tensor of float32
        By the names of `layout`.
    device : torch.device
        Where it runs.
    convolution : {"direct", "tiled"}
        ``tiled`` multiplies spectra of small tiles, which differs from ``direct`` by rounding
        alone and takes a fraction of the time on a CPU.
    precision : {"float32", "tf32", "bfloat16"}
        Of the numbers that direct convolutions multiply; ``tf32`` has an effect on GPUs alone.
    threads : int
        On a CPU, how many of the six scans of a layer run at a time, a thread each. Many small
        convolutions in one thread each are far quicker than each of them in all threads.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        device: torch.device,
        convolution: str = "direct",
        precision: str = "float32",
        threads: int = 1,
    ) -> None:
        self._weights = {name: tensor.to(device) for name, tensor in weights.items()}
        self._tiled = convolution == "tiled"
        self._tf32 = precision == "tf32"
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        # On other devices the queue of the device is shared; one thread fills it.
        self._threads = min(threads, 6) if device.type == "cpu" else 1
        work = []
        for layer in LAYERS:
            *_, channels, gates = weights[_filter(layer, 1, "forward", "Gates", "Inp")].shape
            work.append(gates * (channels + gates // 2 + (_TRANSFORMS if self._tiled else 0)))
        self._shares = [part / sum(work) / 6 for part in work]

    @property
    def classes(self) -> int:
        """Number of classes, the background among them."""
        return len(self._weights[f"{LAYERS[-1]}/b"])

    @torch.inference_mode()
    def __call__(
        self, window: Tensor, progress: Callable[[float], object] = lambda _share: None
    ) -> Tensor:
        """Compute the class probabilities of one window.

        Parameters
        ----------
        window : Tensor of float32, shape (X, Y, Z, 2)
            On the network's device.
        progress : callable, optional
            Called with the share of the window's work that was done since the last call. What it
            raises ends the work.

        Returns
        -------
        Tensor of float32, shape (X, Y, Z, classes)
        """
        # Another algorithm on each run would make results differ from run to run.
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=self._tf32):
            for layer, share in zip(LAYERS, self._shares, strict=True):
                window = self._layer(layer, window, partial(progress, share))
                if layer != LAYERS[-1]:
                    window = window.tanh_()
            return window.softmax(-1)

    def _layer(self, layer: int, window: Tensor, done: Callable[[], object]) -> Tensor:
        """Mean of the six scans through the linear map, shape (X, Y, Z, C) to (X, Y, Z, C')."""
        axes, directions = zip(*itertools.product(AXES, DIRECTIONS), strict=True)
        total: Tensor | None = None
        # The results are added in one order, whichever scan ends first.
        with _pool(self._threads) as pool:
            try:
                for output in pool.map(partial(self._scan, layer, window), axes, directions):
                    total = output if total is None else total.add_(output)
                    done()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        assert total is not None  # noqa: S101 - there are always six
        return total.add_(self._weights[f"{layer}/b"])

    @torch.inference_mode()
    def _scan(self, layer: int, window: Tensor, axis: int, direction: str) -> Tensor:
        """Run one unit along an axis, and map its states; shape (X, Y, Z, C) to (X, Y, Z, C')."""
        planes = window.movedim(axis - 1, 0)
        steps = range(len(planes))
        filters, bias = self._unit(layer, axis, direction)
        parts: TiledConvolution | _Direct
        if self._tiled and max(filters[0].shape[2:]) <= LARGEST:
            parts = TiledConvolution(*filters, planes[0])
        else:
            parts = _Direct(*filters, self._dtype)
        linear = self._weights[f"{layer}/W"][0] / 6
        output = planes.new_empty((*planes.shape[:3], linear.shape[1]))
        state = planes.new_zeros((*planes.shape[1:3], len(linear)))
        hidden = len(linear)
        for step in steps if direction == "forward" else reversed(steps):
            gates, candidate, recurrent = parts(planes[step], state)
            gates.add_(bias[: 2 * hidden]).sigmoid_()
            keep, reset = gates[..., :hidden], gates[..., hidden:]
            candidate = recurrent.mul_(reset).add_(candidate).add_(bias[2 * hidden :]).tanh_()
            state = torch.lerp(candidate, state, keep)
            torch.matmul(state, linear, out=output[step])
        return output.movedim(0, axis - 1)

    def _unit(self, layer: int, axis: int, direction: str) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Give filters of input and state, shape (3 h, C, height, width), and their bias, (3 h,).

        Gates come first, then the candidate. Filters of different sizes are brought to one size
        with zeros around them.
        """
        shapes = [
            self._weights[_filter(layer, axis, direction, part, kind)].shape
            for part in ("Gates", "Candidate")
            for kind in ("Inp", "Stat")
        ]
        height, width = (max(shape[i] for shape in shapes) for i in (0, 1))
        filters = []
        for kind in ("Inp", "Stat"):
            both = []
            for part in ("Gates", "Candidate"):
                filter_ = self._weights[_filter(layer, axis, direction, part, kind)]
                y, x = (height - filter_.shape[0]) // 2, (width - filter_.shape[1]) // 2
                both.append(functional.pad(filter_.permute(3, 2, 0, 1), (x, x, y, y)))
            filters.append(torch.cat(both))
        name = scan_name(layer, axis, direction)
        bias = [self._weights[f"{name}/{part}/Bias"] for part in ("Gates", "Candidate")]
        return (filters[0], filters[1]), torch.cat(bias)


class _Direct:
    """Convolutions of input and state as they are defined."""

    def __init__(self, of_input: Tensor, of_state: Tensor, dtype: torch.dtype) -> None:
        self._filters = of_input.to(dtype), of_state.to(dtype)
        self._dtype = dtype
        self._padding = (of_input.shape[2] // 2, of_input.shape[3] // 2)
        self._gates = 2 * of_state.shape[1]

    def __call__(self, plane: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gates of both, shape (H, W, 2 h), and each one's part of the candidate, (H, W, h)."""
        inputs, states = (
            functional.conv2d(
                image.to(self._dtype).permute(2, 0, 1)[None].contiguous(),
                filter_,
                padding=self._padding,
            )[0]
            .permute(1, 2, 0)
            .float()
            for image, filter_ in zip((plane, state), self._filters, strict=True)
        )
        gates = inputs[..., : self._gates] + states[..., : self._gates]
        return gates, inputs[..., self._gates :], states[..., self._gates :]


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads of which each computes alone."""
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def _filter(layer: int, axis: int, direction: str, part: str, kind: str) -> str:
    return f"{scan_name(layer, axis, direction)}/{part}/ConvLinear/Filter{kind}"
