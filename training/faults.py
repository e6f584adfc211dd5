"""What acquisition and disease do to an image: resolution, bias field, noise, gamma, lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from training.cases import MEDULLA, MIDBRAIN

if TYPE_CHECKING:
    from training.networks import Look


def blur(image: torch.Tensor, sigmas: tuple[float, float, float]) -> torch.Tensor:
    """Smooth an image (1, 1, z, y, x) with a Gaussian of its own width, in voxels, on each axis."""
    for axis, sigma in enumerate(sigmas):
        if sigma < 0.2:
            continue
        reach = max(1, round(2.5 * sigma))
        steps = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
        shape, padding = [1] * 5, [0] * 3
        shape[axis + 2], padding[axis] = 2 * reach + 1, reach
        image = functional.conv3d(image, (kernel / kernel.sum()).view(shape), padding=padding)
    return image


def coarsen(image: torch.Tensor, rng: np.random.Generator, spacing: float) -> torch.Tensor:
    """Lower the resolution: thick slices along one axis, or larger voxels along all three."""
    size = image.shape[2]
    voxel = np.full(3, spacing)
    if rng.random() < 0.5:
        voxel[rng.integers(3)] = spacing * rng.uniform(1, 3)
    else:
        voxel *= rng.uniform(1, 2.2)
    coarse = [max(8, round(size * spacing / v)) for v in voxel]
    mode = "area" if rng.random() < 0.6 else "trilinear"
    return functional.interpolate(
        functional.interpolate(image, coarse, mode=mode), image.shape[2:], mode="trilinear"
    )


def corrupt(image: torch.Tensor, rng: np.random.Generator, look: Look) -> torch.Tensor:
    """Apply faults of acquisition to an image of about 0 to 1, shape (1, 1, z, y, x)."""
    device, shape = image.device, image.shape[2:]
    if rng.random() < 0.35:
        low, high = (0.3, 1.0) if look.array == "near" else (0.2, 0.5)
        image = blur(image, tuple(rng.uniform(low, high, 3)))
    if rng.random() < (0.35 if look.array == "near" else 0.15):
        image = coarsen(image, rng, look.spacing)
    if rng.random() < 0.7:
        knots = int(rng.integers(2, 5 if look.array == "near" else 7))
        field = torch.randn(1, 1, knots, knots, knots, device=device) * rng.uniform(0, 0.35)
        field = functional.interpolate(field, shape, mode="trilinear", align_corners=True)
        image = image * field.exp_()
    if rng.random() < 0.5:
        noise = torch.randn(image.shape, device=device)
        image = (image + noise * float(rng.uniform(0, 0.08) * image.max())).abs_()
    if rng.random() < 0.6:
        top = image.max().clamp(min=1e-6)
        image = (image / top).clamp(min=0) ** float(np.exp(rng.normal(0, 0.3))) * top
    return image


def draw_lesions(
    image: torch.Tensor, target: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Draw one to four soft blobs, darker or brighter, inside the brainstem.

    Parameters
    ----------
    image, target : Tensor, shape (1, 1, z, y, x)
        Intensities, and classes of the segmenter.
    rng : numpy.random.Generator
        Draws places, widths (standard deviation 1 to 4 voxels) and intensities.
    """
    inside = torch.nonzero((target[0, 0] >= MIDBRAIN) & (target[0, 0] <= MEDULLA))
    if not len(inside):
        return image
    for _ in range(int(rng.integers(1, 5))):
        centre = inside[int(rng.integers(len(inside)))]
        width = float(rng.uniform(1, 4))
        bells = [
            torch.exp(-0.5 * ((torch.arange(n, device=image.device) - c) / width) ** 2)
            for n, c in zip(image.shape[2:], centre, strict=True)
        ]
        blob = bells[0][:, None, None] * bells[1][:, None] * bells[2]
        image = image * (1 + blob * float(rng.uniform(-0.5, 0.5)))
    return image
