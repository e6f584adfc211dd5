"""Convolution of planes by the spectra of small tiles ("overlap-save").

A plane is cut into tiles of 16 x 16 that overlap by a filter's size less one; their spectra are
multiplied with the filter's, frequency by frequency, as matrices of channels, and of what comes
back the part is kept that the tile's borders do not reach. Filters of 7 x 7 take an eighth of the
multiplications. The transforms are matrix products: at this size they are quicker than FFTs, and
need no copies in other orders. The product of complex numbers takes three real ones (Gauss): of
real parts, imaginary parts, and sums; making the sums, and the result of them, are parts of the
transforms' matrices.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 16  # of a tile, along both axes
LARGEST = 9  # of a filter; beyond it little of a tile is kept
HALF = SIZE // 2 + 1  # frequencies along y, of which the others are conjugates


class TiledConvolution:
    """Convolutions of input and state, added up before they leave the spectrum.

    Parameters
    ----------
    of_input, of_state : Tensor of float32, shapes (3 h, C, height, width), (3 h, h, height, width)
        Filters of odd sizes up to `LARGEST`; the gates' 2 h first, then the candidate's h.
    plane : Tensor, shape (H, W, C)
        One of those to come, which have its height and width.
    """

    def __init__(self, of_input: Tensor, of_state: Tensor, plane: Tensor) -> None:
        self._shape = plane.shape[:2]
        self._hidden = of_state.shape[1]
        filter_size = of_input.shape[2:]
        self._before = tuple(k // 2 for k in filter_size)
        self._kept = (SIZE - filter_size[0] + 1, SIZE - filter_size[1] + 1)
        self._tiles = tuple(
            math.ceil(n / kept) for n, kept in zip(self._shape, self._kept, strict=True)
        )
        self._spectra = [_filter_spectrum(filter_) for filter_ in (of_input, of_state)]
        self._to_spectrum = _analysis(of_input.device)
        self._from_spectrum = _synthesis(self._kept, of_input.device)
        frequencies, count = SIZE * HALF, math.prod(self._tiles)
        self._product = of_input.new_empty((3, frequencies, count, 4 * self._hidden))

    def __call__(self, plane: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convolve a plane of the input and the state.

        Parameters
        ----------
        plane : Tensor of float32, shape (H, W, C)
        state : Tensor of float32, shape (H, W, h)

        Returns
        -------
        gates : Tensor, shape (H, W, 2 h)
            Sum of both.
        of_input, of_state : Tensor, shape (H, W, h)
            Each one's part of the candidate.
        """
        hidden = self._hidden
        inputs, states = self._spectrum(plane), self._spectrum(state)
        of_input, of_state = self._spectra
        for i in range(3):
            product = self._product[i]
            torch.bmm(inputs[i], of_input[i], out=product[..., : 3 * hidden])
            product[..., : 2 * hidden].baddbmm_(states[i], of_state[i][..., : 2 * hidden])
            torch.bmm(states[i], of_state[i][..., 2 * hidden :], out=product[..., 3 * hidden :])
        image = self._image(self._product)
        return (
            image[..., : 2 * hidden],
            image[..., 2 * hidden : 3 * hidden],
            image[..., 3 * hidden :],
        )

    def _spectrum(self, plane: Tensor) -> Tensor:
        """Spectra of all tiles, shape (H, W, C) to (3, 16 * 9, tiles, C)."""
        channels = plane.shape[2]
        padding = [0, 0]
        for axis in (1, 0):
            inner = self._tiles[axis] * self._kept[axis]
            before = self._before[axis]
            padding += [before, inner + before - self._shape[axis]]
        padded = functional.pad(plane, padding)
        (ky, kx), (ny, nx) = self._kept, self._tiles
        sy, sx, sc = padded.stride()
        tiles = padded.as_strided(
            (SIZE, SIZE, ny, nx, channels), (sx, sy, ky * sy, kx * sx, sc)
        ).reshape(SIZE, SIZE, -1)
        along_y, along_x = self._to_spectrum
        rows = torch.matmul(along_y, tiles)  # (x, re or im of y's frequencies, tiles and channels)
        spectra = along_x @ rows.reshape(2 * SIZE, -1)
        return spectra.view(3, SIZE * HALF, ny * nx, channels)

    def _image(self, product: Tensor) -> Tensor:
        """Plane of all tiles, shape (3, 16 * 9, tiles, C) to (H, W, C)."""
        (ky, kx), (ny, nx) = self._kept, self._tiles
        channels = product.shape[-1]
        along_x, along_y = self._from_spectrum
        rows = (along_x @ product.view(3 * SIZE, -1)).view(kx, 2 * HALF, -1)
        tiles = torch.matmul(along_y, rows).view(kx, ky, ny, nx, channels)
        whole = tiles.permute(2, 1, 3, 0, 4).reshape(ny * ky, nx * kx, channels)
        return whole[: self._shape[0], : self._shape[1]]


def _filter_spectrum(filter_: Tensor) -> Tensor:
    """Spectrum of a filter for cross-correlation, shape (O, C, y, x) to (3, 16 * 9, C, O).

    The conjugate of its own spectrum (w), as sums for Gauss's product: with the spectra (a + i b)
    of tiles, which come as a, b and a + b, the real part is a re(w) - b im(w).
    """
    spectrum = torch.fft.fft2(filter_.cpu().double(), s=(SIZE, SIZE)).conj()[:, :, :HALF]
    ordered = spectrum.permute(3, 2, 1, 0).reshape(SIZE * HALF, *filter_.shape[1::-1])
    parts = torch.stack([ordered.real, ordered.imag, ordered.real + ordered.imag])
    return parts.float().contiguous().to(filter_.device)


@cache
def _analysis(device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices of the forward transform: of y, shape (2 * 9, 16), then of x, (3 * 16, 16 * 2)."""
    waves = torch.fft.fft(torch.eye(SIZE, dtype=torch.complex128))
    along_y = torch.cat([waves.real[:HALF], waves.imag[:HALF]])
    # What comes in is (x, re or im); what goes out (re or im or their sum, frequency).
    real = torch.stack([waves.real, -waves.imag], dim=-1).flatten(1)
    imaginary = torch.stack([waves.imag, waves.real], dim=-1).flatten(1)
    along_x = torch.cat([real, imaginary, real + imaginary])
    return along_y.float().to(device), along_x.float().to(device)


@cache
def _synthesis(kept: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices of the way back: of x, shape (kept x * 2, 3 * 16), then of y, (kept y, 2 * 9)."""
    waves = torch.fft.ifft(torch.eye(SIZE, dtype=torch.complex128))
    columns = waves[: kept[1]]
    # Of the products p = a re(w), q = b im(w), s = (a + b)(re(w) + im(w)):
    # the real part is p - q, the imaginary part s - p - q.
    re_re, re_im = columns.real, -columns.imag
    im_re, im_im = columns.imag, columns.real
    real = torch.cat([re_re - re_im, -re_re - re_im, re_im], dim=1)
    imaginary = torch.cat([im_re - im_im, -im_re - im_im, im_im], dim=1)
    along_x = torch.stack([real, imaginary], dim=1).flatten(0, 1)
    twice = torch.full((HALF,), 2.0, dtype=torch.float64)  # for the conjugates
    twice[0] = twice[-1] = 1
    rows = waves[: kept[0], :HALF]
    along_y = torch.cat([rows.real * twice, -rows.imag * twice], dim=1)
    return along_x.float().to(device), along_y.float().to(device)
