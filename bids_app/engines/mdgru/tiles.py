"""Convolution of planes by the spectra of small tiles ("overlap-save").

A plane is divided into tiles of 16 x 16 that overlap by the filter's size minus one. Their spectra
are multiplied with the filter's spectrum, one matrix of channels per frequency. Of the result, the
part that the tile's borders do not affect is kept. Filters of 7 x 7 take an eighth of the
multiplications. The transforms are matrix products, which at this size are faster than FFTs and
need no copies in another memory order. A complex product takes three real products (Gauss): of real
parts, imaginary parts and sums; forming and combining the sums is part of the transforms' matrices.
Each frequency along y is completed before the next, so that its data stay in the processor's cache.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 16  # of a tile, along both axes
LARGEST = 9  # filter size; for larger ones little of a tile is kept
HALF = SIZE // 2 + 1  # frequencies along y; the others are conjugates


class TiledConvolution:
    """Convolutions of input and state, with those of the gates summed.

    Parameters
    ----------
    of_input, of_state : Tensor of float32, shapes (3 h, C, height, width), (3 h, h, height, width)
        Filters of odd sizes up to `LARGEST`; the gates' 2 h first, then the candidate's h.
    planes : Tensor, shape (B, H, W, C)
        Example of the planes to convolve, which have its shape.
    """

    def __init__(self, of_input: Tensor, of_state: Tensor, planes: Tensor) -> None:
        batch, *self._shape, self._channels = planes.shape
        hidden = of_state.shape[1]
        sizes = of_input.shape[2:]
        self._kept = ky, kx = [SIZE - size + 1 for size in sizes]
        self._tiles = ny, nx = [
            math.ceil(n / kept) for n, kept in zip(self._shape, self._kept, strict=True)
        ]
        number, channels = batch * ny * nx, self._channels + hidden
        new = planes.new_empty
        # Planes and states concatenated and zero-padded, and the part inside the padding.
        self._padded = planes.new_zeros((batch, ny * ky + SIZE - ky, nx * kx + SIZE - kx, channels))
        y, x = (slice(k // 2, k // 2 + n) for k, n in zip(sizes, self._shape, strict=True))
        self._inner = self._padded[:, y, x]
        self._cut = new((SIZE, SIZE, batch, ny, nx, channels))
        self._rows = new((HALF, 2 * SIZE, number * channels))
        self._spectrum = new((3 * SIZE, number, channels))

        inputs, states = _filter_spectrum(of_input), _filter_spectrum(of_state)
        gates = torch.cat([inputs[..., : 2 * hidden], states[..., : 2 * hidden]], dim=2)
        candidate = inputs[..., 2 * hidden :].contiguous()
        recurrent = states[..., 2 * hidden :].contiguous()
        # Channels, their filters, and buffers for the products and the back-transforms.
        self._work = [
            (part, filters, new((3 * SIZE, number, width)), new((HALF, 2 * kx, number * width)))
            for part, filters, width in (
                (slice(None), gates, 2 * hidden),
                (slice(None, self._channels), candidate, hidden),
                (slice(self._channels, None), recurrent, hidden),
            )
        ]
        self._to_spectrum = _analysis(planes.device)
        self._from_spectrum = _synthesis((ky, kx), planes.device)

    def __call__(self, planes: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convolve planes of the input and the states.

        Parameters
        ----------
        planes : Tensor of float32, shape (B, H, W, C)
        states : Tensor of float32, shape (B, H, W, h)

        Returns
        -------
        gates : Tensor, shape (B, H, W, 2 h)
            Sum of both.
        of_input, of_state : Tensor, shape (B, H, W, h)
            Contributions to the candidate.
        """
        self._inner[..., : self._channels] = planes
        self._inner[..., self._channels :] = states
        ky, kx = self._kept
        sb, sy, sx, sc = self._padded.stride()
        tiles = self._padded.as_strided(self._cut.shape, (sy, sx, sb, ky * sy, kx * sx, sc))
        along_y, along_x = self._to_spectrum
        torch.mm(along_y, self._cut.copy_(tiles).view(SIZE, -1), out=self._rows.view(2 * HALF, -1))
        back_along_x, back_along_y = self._from_spectrum
        for frequency in range(HALF):
            torch.mm(along_x, self._rows[frequency], out=self._spectrum.view(3 * SIZE, -1))
            for part, filters, product, back in self._work:
                torch.bmm(self._spectrum[..., part], filters[frequency], out=product)
                torch.mm(back_along_x, product.view(3 * SIZE, -1), out=back[frequency])
        gates, of_input, of_state = (
            self._planes(back_along_y @ back.view(2 * HALF, -1)) for *_, back in self._work
        )
        return gates, of_input, of_state

    def _planes(self, tiles: Tensor) -> Tensor:
        """Assemble the kept parts of tiles, shape (B, H, W, O)."""
        (ky, kx), (ny, nx), (height, width) = self._kept, self._tiles, self._shape
        batch = len(self._padded)
        ordered = tiles.view(ky, kx, batch, ny, nx, -1).permute(2, 3, 0, 4, 1, 5)
        return ordered.reshape(batch, ny * ky, nx * kx, -1)[:, :height, :width]


def _filter_spectrum(filter_: Tensor) -> Tensor:
    """Spectrum of a filter for cross-correlation, shape (O, C, y, x) to (9, 3 * 16, C, O).

    The conjugate of its spectrum (w), arranged for Gauss's product: with spectra a + i b of tiles,
    given as a, b and a + b, the real part is a re(w) - b im(w).
    """
    outputs, channels, height, width = filter_.shape
    waves = _waves().conj()
    both = waves[:HALF, None, :height, None] * waves[None, :, None, :width]
    parts = torch.cat([both.real, both.imag, both.real + both.imag], dim=1)
    matrix = parts.reshape(-1, height * width).float().to(filter_.device)
    spectrum = matrix @ filter_.permute(2, 3, 1, 0).reshape(height * width, -1)
    return spectrum.view(HALF, 3 * SIZE, channels, outputs)


def _waves() -> Tensor:
    """Matrix of the forward transform, 16 x 16."""
    waves: Tensor = torch.fft.fft(torch.eye(SIZE, dtype=torch.complex128))
    return waves


@cache
def _analysis(device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices of the forward transform: of y, shape (9 * 2, 16), then of x, (3 * 16, 2 * 16)."""
    waves = _waves()
    along_y = torch.stack([waves.real[:HALF], waves.imag[:HALF]], dim=1).flatten(0, 1)
    # Input is (re or im, x); output is (re or im or their sum, frequency).
    real = torch.cat([waves.real, -waves.imag], dim=1)
    imaginary = torch.cat([waves.imag, waves.real], dim=1)
    along_x = torch.cat([real, imaginary, real + imaginary])
    return along_y.float().to(device), along_x.float().to(device)


@cache
def _synthesis(kept: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices of the inverse: of x, shape (2 * kept x, 3 * 16), then of y, (kept y, 9 * 2)."""
    waves = _waves().conj() / SIZE
    columns = waves[: kept[1]]
    # Of the products p = a re(w), q = b im(w), s = (a + b)(re(w) + im(w)):
    # the real part is p - q, the imaginary part s - p - q.
    re_re, re_im = columns.real, -columns.imag
    im_re, im_im = columns.imag, columns.real
    real = torch.cat([re_re - re_im, -re_re - re_im, re_im], dim=1)
    imaginary = torch.cat([im_re - im_im, -im_re - im_im, im_im], dim=1)
    along_x = torch.cat([real, imaginary])
    twice = torch.full((HALF,), 2.0, dtype=torch.float64)  # for the conjugates
    twice[0] = twice[-1] = 1
    rows = waves[: kept[0], :HALF]
    along_y = torch.stack([rows.real * twice, -rows.imag * twice], dim=2).flatten(1)
    return along_x.float().to(device), along_y.float().to(device)
