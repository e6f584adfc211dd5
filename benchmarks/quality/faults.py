"""Heads made worse on purpose: noise, blur, ghosts, a cut view, another contrast, upside down.

Each fault has steps from mild to severe. Faults that change the voxel grid also say how a label map
is brought back to the grid of the head.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from nibabel.affines import apply_affine
from scipy import fft, ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.app import Volume

FWHM = 2 * math.sqrt(2 * math.log(2))
STILL = 0.06  # share of the central lines of k-space during which the head does not move


@dataclass(frozen=True, eq=False)
class Faulty:
    """A worsened image.

    Attributes
    ----------
    data : ndarray of float32, shape (I, J, K)
    affine : ndarray, shape (4, 4)
    back : callable
        Brings a label map of this image to the grid of the original head.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    back: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Case:
    """A head, the label map of the undisturbed head, and a generator of random numbers."""

    head: Volume
    labels: NDArray[np.uint8]
    rng: np.random.Generator


@dataclass(frozen=True)
class Fault:
    """A fault at one step.

    Attributes
    ----------
    kind, step : str
        Such as ``noise`` and ``10 %``.
    make : callable
        Worsens a case.
    """

    kind: str
    step: str
    make: Callable[[Case], Faulty]

    @property
    def title(self) -> str:
        """Fault and step, as in the tables."""
        return f"{self.kind}, {self.step}"

    def __call__(self, head: Volume, labels: NDArray[np.uint8]) -> Faulty:
        """Worsen a head; the result is the same for each call."""
        rng = np.random.default_rng(zlib.crc32(f"{head.sha256} {self.title}".encode()))
        return self.make(Case(head, labels, rng))


def all_faults() -> list[Fault]:
    """List all faults, each kind from its mildest to its most severe step."""
    return [
        *(Fault("noise", f"{s:.0%}", partial(add_noise, share=s)) for s in (0.05, 0.1, 0.2, 0.4)),
        *(Fault("blur", f"{w} mm", partial(smooth, fwhm=w)) for w in (2, 3.5, 5, 8)),
        *(Fault("ghosts", f"{a} mm", partial(move, reach_mm=a)) for a in (1, 3, 6, 12)),
        *(Fault("cut view", f"{s:.0%}", partial(cut, share=s)) for s in (0.1, 0.25, 0.5, 0.75)),
        Fault("wrong modality", "T2-like", partial(recontrast, like="T2")),
        Fault("wrong modality", "FLAIR-like", partial(recontrast, like="FLAIR")),
        Fault("wrong modality", "PD-like", partial(recontrast, like="PD")),
        Fault("wrong modality", "EPI-like", partial(recontrast, like="EPI")),
        Fault("upside down", "turned about x", partial(turn, axes=(1, 2))),
        Fault("upside down", "turned about y", partial(turn, axes=(0, 2))),
        Fault("upside down", "mirrored", partial(turn, axes=(2,))),
    ]


def add_noise(case: Case, share: float) -> Faulty:
    """Add Rician noise, a share of the brainstem's median, everywhere."""
    sigma = share * float(np.median(case.head.data[case.labels > 0]))
    real = case.head.data + case.rng.normal(0, sigma, case.head.data.shape)
    return _same_grid(case.head, np.hypot(real, case.rng.normal(0, sigma, case.head.data.shape)))


def smooth(case: Case, fwhm: float) -> Faulty:
    """Blur with a Gaussian; `fwhm` in mm."""
    sigma = [fwhm / FWHM / edge for edge in case.head.voxel_size]
    return _same_grid(case.head, ndimage.gaussian_filter(case.head.data, sigma))


def move(case: Case, reach_mm: float) -> Faulty:
    """Add the ghosts of a head that moves in the sagittal plane during acquisition.

    Lines of k-space are acquired one after the other along y. The head rests, then jumps to another
    position, at most `reach_mm` away. During the central lines it is in its original position.
    """
    lines = case.head.data.shape[1]
    jumps = np.sort(case.rng.choice(lines, 12, replace=False))
    places = case.rng.uniform(-reach_mm, reach_mm, (len(jumps) + 1, 2))[
        np.searchsorted(jumps, np.arange(lines))
    ]
    places[abs(np.arange(lines) - lines // 2) < STILL * lines / 2] = 0
    places = fft.ifftshift(places, axes=0)  # the centre of k-space comes first
    y, z = (
        np.fft.fftfreq(case.head.data.shape[axis]) / case.head.voxel_size[axis] for axis in (1, 2)
    )
    phase = y[:, None] * places[:, :1] + z[None, :] * places[:, 1:]
    kspace = fft.fft2(case.head.data, axes=(1, 2)) * np.exp(-2j * np.pi * phase).astype(
        np.complex64
    )
    return _same_grid(case.head, abs(fft.ifft2(kspace, axes=(1, 2))))


def cut(case: Case, share: float) -> Faulty:
    """Cut the field of view from below, so that a share of the brainstem's height is outside."""
    slices = np.flatnonzero((case.labels > 0).any((0, 1)))
    first = round(float(slices[0] + share * (slices[-1] + 1 - slices[0])))
    affine = case.head.affine.copy()
    affine[:3, 3] = apply_affine(affine, (0, 0, first))

    def back(found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.pad(found, ((0, 0), (0, 0), (first, 0)))

    return Faulty(np.ascontiguousarray(case.head.data[:, :, first:]), affine, back)


def recontrast(case: Case, like: str) -> Faulty:
    """Change the contrast between tissues; air stays dark.

    T2: inverted. FLAIR: inverted, with dark fluid. PD: nearly flat, fluid a little brighter.
    EPI: as T2, at a resolution of 3 mm.
    """
    top = float(np.percentile(case.head.data[case.head.data > 0], 99))
    share = np.clip(case.head.data / top, 0, 1)
    inside = ndimage.binary_closing(_largest(share > 0.12), iterations=3)
    if like == "PD":
        new = np.where(inside, 0.75 - 0.15 * share, 0.2 * share)
    else:
        new = np.where(inside, 1.05 - share, 0.1 * share)
        if like == "FLAIR":
            new *= np.clip(share / 0.35, 0, 1) ** 2
    if like == "EPI":
        new = ndimage.gaussian_filter(new, [3 / FWHM / edge for edge in case.head.voxel_size])
    return _same_grid(case.head, new * top)


def turn(case: Case, axes: tuple[int, ...]) -> Faulty:
    """Flip the voxels along some axes, without changing the header."""

    def back(found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.flip(found, axes)

    return Faulty(np.ascontiguousarray(np.flip(case.head.data, axes)), case.head.affine, back)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, _ = ndimage.label(mask)
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)


def _same_grid(head: Volume, data: NDArray[np.floating]) -> Faulty:
    return Faulty(data.astype(np.float32), head.affine, lambda found: found)
