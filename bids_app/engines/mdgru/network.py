"""The network of MD-GRU: convolutional gated recurrent units that scan a window along its axes.

After Andermatt et al. 2016, doi 10.1007/978-3-319-46976-8_15. Each of the three layers runs six
units (three axes, both directions), takes the mean of their states, and maps it linearly.

All tensors have their channels last: windows are of shape (B, X, Y, Z, C), planes (B, H, W, C).
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from bids_app.engines.mdgru.layout import AXES, DIRECTIONS, LAYERS, scan_name
from bids_app.engines.mdgru.tiles import LARGEST, TiledConvolution
from bids_app.engines.threads import fix_convolutions, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

# Cost of the tile transforms per channel of the state, in units of multiplied channels.
_TRANSFORMS = 100


class MDGRU:
    """An MD-GRU with its weights.

    Parameters
    ----------
    weights : mapping of str to Tensor of float32
        By the names of `layout`.
    device : torch.device
    convolution : {"direct", "tiled"}
        ``tiled`` multiplies spectra of small tiles, which differs from ``direct`` only by rounding
        and takes a fraction of the time on a CPU.
    precision : {"float32", "tf32", "bfloat16"}
        Of the multiplications in direct convolutions; ``tf32`` only has an effect on GPUs.
    threads : int
        On a CPU, how many of the six scans of a layer run at once, with one thread each. For many
        small convolutions this is much faster than using all threads for each.
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
        fix_convolutions(device, tf32=precision == "tf32")
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        # Other devices have one queue, which one thread can fill.
        self._threads = min(threads, 6) if device.type == "cpu" else 1
        work = []
        for layer in LAYERS:
            *_, channels, gates = weights[_filter(layer, 1, "forward", "Gates", "Inp")].shape
            work.append(gates * (channels + gates // 2 + (_TRANSFORMS if self._tiled else 0)))
        self._shares = [part / sum(work) / 6 for part in work]

    @property
    def classes(self) -> int:
        """Number of classes, including the background."""
        return len(self._weights[f"{LAYERS[-1]}/b"])

    @torch.inference_mode()
    def __call__(
        self, windows: Tensor, progress: Callable[[float], object] = lambda _share: None
    ) -> Tensor:
        """Compute the class probabilities of windows.

        Parameters
        ----------
        windows : Tensor of float32, shape (B, X, Y, Z, 2)
            B windows of one size, on the network's device.
        progress : callable, optional
            Called with the fraction of the work done since the last call. An exception it raises
            ends the work.

        Returns
        -------
        Tensor of float32, shape (B, X, Y, Z, classes)
        """
        for layer, share in zip(LAYERS, self._shares, strict=True):
            windows = self._layer(layer, windows, partial(progress, share))
            if layer != LAYERS[-1]:
                windows = windows.tanh_()
        return windows.softmax(-1)

    def _layer(self, layer: int, windows: Tensor, done: Callable[[], object]) -> Tensor:
        """Mean of the six scans through the linear map, (B, X, Y, Z, C) to (B, X, Y, Z, C')."""
        axes, directions = zip(*itertools.product(AXES, DIRECTIONS), strict=True)
        total: Tensor | None = None
        # The results are added in a fixed order, whichever scan ends first.
        with side_by_side(self._threads) as pool:
            try:
                for output in pool.map(partial(self._scan, layer, windows), axes, directions):
                    total = output if total is None else total.add_(output)
                    done()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        assert total is not None  # noqa: S101 - there are always six
        return total.add_(self._weights[f"{layer}/b"])

    @torch.inference_mode()
    def _scan(self, layer: int, windows: Tensor, axis: int, direction: str) -> Tensor:
        """Run one unit along an axis and map its states: (B, X, Y, Z, C) to (B, X, Y, Z, C')."""
        planes = windows.movedim(axis, 0)
        steps = range(len(planes))
        filters, bias = self._unit(layer, axis, direction)
        parts: TiledConvolution | _Direct
        if self._tiled and max(filters[0].shape[2:]) <= LARGEST:
            parts = TiledConvolution(*filters, planes[0])
        else:
            parts = _Direct(*filters, self._dtype)
        linear = self._weights[f"{layer}/W"][0] / 6
        output = planes.new_empty((*planes.shape[:4], linear.shape[1]))
        state = planes.new_zeros((*planes.shape[1:4], len(linear)))
        hidden = len(linear)
        for step in steps if direction == "forward" else reversed(steps):
            gates, candidate, recurrent = parts(planes[step], state)
            gates.add_(bias[: 2 * hidden]).sigmoid_()
            keep, reset = gates[..., :hidden], gates[..., hidden:]
            candidate = recurrent.mul_(reset).add_(candidate).add_(bias[2 * hidden :]).tanh_()
            state = torch.lerp(candidate, state, keep)
            torch.matmul(state, linear, out=output[step])
        return output.movedim(0, axis)

    def _unit(self, layer: int, axis: int, direction: str) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return filters of input and state, shape (3 h, C, height, width), and their bias, (3 h,).

        Gates come first, then the candidate. Filters of different sizes are zero-padded to one
        size.
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
    """Convolutions of input and state, computed directly."""

    def __init__(self, of_input: Tensor, of_state: Tensor, dtype: torch.dtype) -> None:
        self._filters = of_input.to(dtype), of_state.to(dtype)
        self._dtype = dtype
        self._padding = (of_input.shape[2] // 2, of_input.shape[3] // 2)
        self._gates = 2 * of_state.shape[1]

    def __call__(self, planes: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gates of both, shape (B, H, W, 2 h), and each one's part of the candidate."""
        of_input, of_state = (
            functional.conv2d(
                images.to(self._dtype).permute(0, 3, 1, 2), filter_, padding=self._padding
            )
            .permute(0, 2, 3, 1)
            .float()
            for images, filter_ in zip((planes, states), self._filters, strict=True)
        )
        gates = of_input[..., : self._gates] + of_state[..., : self._gates]
        return gates, of_input[..., self._gates :], of_state[..., self._gates :]


def _filter(layer: int, axis: int, direction: str, part: str, kind: str) -> str:
    return f"{scan_name(layer, axis, direction)}/{part}/ConvLinear/Filter{kind}"
