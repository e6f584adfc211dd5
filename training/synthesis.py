"""Images drawn from label maps: T1-like or of random contrast.

The idea is that of SynthSeg (Billot et al. 2023, doi 10.1016/j.media.2023.102789): every class of
the map gets a Gaussian of intensities, so that a network learns shape instead of one scanner's
contrast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from training.cases import (
    BRAINSTEM_CODE,
    CODES,
    CORD_ANATOMY,
    CSF_CODE,
    IGNORE,
    T1_CLASSES,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Mean over brains of the mean and of the spread of each class on T1w images, and their standard
# deviations over brains: prior_means_t1.npy and prior_stds_t1.npy of SynthSeg, rounded.
T1_MEANS = np.array([
    [7, 44.4, 160.3, 96.3, 136, 88.2, 129.5, 124.1, 151.8, 142.5, 116.1, 86.8, 59.6, 129.8, 126.4,
     18.1, 93.9, 117.1, 69.9, 113.7, 68.2, 48.4, 30.2, 94.2, 144.4],
    [1.8, 11.2, 21.7, 12.2, 13.4, 10.6, 17.7, 15.7, 19.5, 16.1, 14.8, 17.5, 10.4, 12.2, 24.8,
     3.8, 9.1, 11.7, 9.2, 12.4, 11.1, 8.6, 6.9, 18.3, 16.3],
])  # fmt: skip
T1_SPREADS = np.array([
    [5, 25.6, 15.6, 18.9, 15.3, 17.1, 19.6, 13.8, 8.6, 21.1, 19.5, 17.2, 23.7, 17.5, 84,
     13.9, 48.6, 64.8, 25.5, 74.9, 35.9, 19.9, 22, 43.3, 44.7],
    [2.5, 9.8, 5.5, 6.3, 5.7, 5.5, 7.8, 7.1, 4.1, 7, 7.2, 8.5, 11.1, 6.8, 49.4,
     7.4, 12.6, 28.5, 13.1, 20.5, 18.4, 9, 11.6, 20, 26.2],
])  # fmt: skip
FLUID_CLASS, OUTSIDE_FROM = 1, 14  # classes of T1_CLASSES
INVERTED_SHARE = 0.35
BRAINSTEM = CODES.index(BRAINSTEM_CODE)
CSF = CODES.index(CSF_CODE)
FLUIDS = tuple(CODES.index(code) for code in (CSF_CODE, 4, 43, 5, 44, 14, 15, 72))
NEIGHBOURS = tuple(CODES.index(code) for code in (28, 60, 7, 46))


def draw_classes(
    rng: np.random.Generator, t1_like: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw the mean and the spread of intensity of every anatomy.

    A third of the contrasts that are not T1-like have those of T2w or FLAIR images inside the head.
    In 70 % of the draws the ventral diencephalon and the white matter of the cerebellum look like
    the brainstem: there the border of the label is no edge in the image, and must be learned as
    shape. The cord looks like the brainstem nearly always.

    Returns
    -------
    means, spreads : ndarray of float32, shape (anatomies,)
        Indexed by position in `CODES`, the cord last; intensities from 0 to 255.
    """
    kinds = np.array(T1_CLASSES)
    if t1_like:
        mean = rng.normal(T1_MEANS[0], 1.5 * T1_MEANS[1])
        spread = rng.normal(T1_SPREADS[0], T1_SPREADS[1])
    else:
        mean = rng.uniform(5, 250, (T1_MEANS.shape[1],))
        spread = rng.uniform(2, 25, (T1_MEANS.shape[1],))
        if rng.random() < INVERTED_SHARE:
            inside = slice(1, OUTSIDE_FROM)
            mean[inside] = (
                240 - rng.uniform(0.9, 1.4) * rng.normal(T1_MEANS[0], T1_MEANS[1])[inside]
            )
            mean[inside] += rng.normal(0, 8, OUTSIDE_FROM - 1)
            if rng.random() < 0.5:
                mean[FLUID_CLASS] = rng.uniform(5, 50)
        if rng.random() < 0.5:
            mean[0], spread[0] = rng.uniform(0, 10), rng.uniform(0, 5)
    means = np.append(mean[kinds], 0.0)
    spreads = np.append(spread[kinds], 0.0)
    means[CORD_ANATOMY] = means[BRAINSTEM] + rng.normal(0, 6)
    spreads[CORD_ANATOMY] = spreads[BRAINSTEM]
    if rng.random() < 0.7:
        for neighbour in NEIGHBOURS[:2], NEIGHBOURS[2:]:
            means[list(neighbour)] = means[BRAINSTEM] + rng.normal(0, 5)
            spreads[list(neighbour)] = spreads[BRAINSTEM]
    spreads = np.clip(spreads, 1, 40) * rng.uniform(0.3, 1.0)
    return np.clip(means, 1, 255).astype(np.float32), spreads.astype(np.float32)


def widen_fluid(
    anatomy: torch.Tensor, target: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shrink the brainstem as atrophy does: fluid takes the place of its outermost layer.

    Parameters
    ----------
    anatomy, target : Tensor, shape (1, 1, z, y, x)
        Positions in `CODES`, and labels to learn (`IGNORE` stays).
    """
    fluid = torch.isin(anatomy, torch.tensor(FLUIDS, device=anatomy.device))
    near = functional.avg_pool3d(fluid.float(), 3, stride=1, padding=1)
    if rng.random() < 0.5:
        near = functional.avg_pool3d((near > 0.2).float(), 3, stride=1, padding=1)
    taken = (near > rng.uniform(0.1, 0.5)) & (anatomy == BRAINSTEM)
    anatomy = torch.where(taken, torch.full_like(anatomy, CSF), anatomy)
    target = torch.where(taken & (target != IGNORE), torch.zeros_like(target), target)
    return anatomy, target


def draw_image(anatomy: torch.Tensor, rng: np.random.Generator, *, t1_like: bool) -> torch.Tensor:
    """Draw an image from a map of anatomies.

    Parameters
    ----------
    anatomy : Tensor of int64, shape (1, 1, z, y, x)
        Positions in `CODES`.
    rng : numpy.random.Generator
        Draws the contrast; torch's own generator draws the noise.
    t1_like : bool
        Contrast of T1w images, or any.

    Returns
    -------
    Tensor of float32, shape (1, 1, z, y, x)
        Intensities of about 0 to 1.
    """
    means, spreads = (torch.from_numpy(a).to(anatomy.device) for a in draw_classes(rng, t1_like))
    fine = torch.randn(anatomy.shape, device=anatomy.device)
    coarse = torch.randn([max(2, n // 6) for n in anatomy.shape[2:]], device=anatomy.device)
    coarse = functional.interpolate(coarse[None, None], anatomy.shape[2:], mode="trilinear")
    noise = fine + coarse * float(rng.uniform(0, 0.7))
    return (means[anatomy] + spreads[anatomy] * noise).clamp_(min=0) / 255
