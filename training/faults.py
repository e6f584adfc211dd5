"""What acquisition and disease do to an image: resolution, bias field, noise, gamma, lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from training.cases import MCP, STEM, is_of

if TYPE_CHECKING:
    from training.networks import Look


THICKEST_MM = 4.5


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


def widen(image: torch.Tensor, reach: int) -> torch.Tensor:
    """Give each voxel of (1, 1, z, y, x) the largest value of a cube of ``2 reach + 1`` voxels.

    Axis by axis, which is many times as fast as one pooling of the cube.
    """
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = 2 * reach + 1, reach
        image = functional.max_pool3d(image, size, stride=1, padding=padding)
    return image


def coarsen(image: torch.Tensor, rng: np.random.Generator, spacing: float) -> torch.Tensor:
    """Lower the resolution: thick slices along one axis, or larger voxels along all three."""
    size = image.shape[2]
    voxel = np.full(3, spacing)
    if rng.random() < 0.5:
        voxel[rng.integers(3)] = spacing * rng.uniform(1, rng.choice([3.0, THICKEST_MM]))
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
    if rng.random() < (0.25 if look.array == "near" else 0.15):
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
    """Draw one to four lesions inside the brainstem and the middle peduncles.

    Half are soft, darker or brighter by up to half. The others have an edge: plaques, which are
    darker by up to 40 % or, after contrast, brighter by up to 80 %, and infarcts, which are as dark
    as fluid or as bright as fluid is on T2w images.

    Parameters
    ----------
    image, target : Tensor, shape (1, 1, z, y, x)
        Intensities, and classes of the segmenter.
    rng : numpy.random.Generator
        Draws places, widths (standard deviation 1 to 4 voxels) and intensities.
    """
    inside = torch.nonzero(is_of(target[0, 0], (*STEM, MCP)))
    if not len(inside):
        return image
    level = image[is_of(target, STEM)].median() if is_of(target, STEM).any() else image.mean()
    for _ in range(int(rng.integers(1, 5))):
        centre = inside[int(rng.integers(len(inside)))]
        widths = rng.uniform(1, 4) * rng.uniform(0.6, 1.4, 3)
        z, y, x = (
            -0.5 * ((torch.arange(n, device=image.device) - c) / width) ** 2
            for n, c, width in zip(image.shape[2:], centre, widths, strict=True)
        )
        blob = torch.exp(z[:, None, None] + y[:, None] + x)
        if rng.random() < 0.5:
            image = image * (1 + blob * float(rng.uniform(-0.5, 0.5)))
            continue
        plaque = ((blob - 0.5) * float(rng.uniform(4, 12)) + 0.5).clamp(0, 1)
        kind = rng.random()
        if kind < 0.4:
            changed = image * float(rng.uniform(0.6, 0.9))
        elif kind < 0.7:
            changed = image * float(rng.uniform(1.1, 1.8))
        else:
            changed = level * float(rng.choice([rng.uniform(0.1, 0.4), rng.uniform(1.6, 2.5)]))
        image = image + plaque * (changed - image)
    return image


def recolour(image: torch.Tensor, target: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Give a T1w image another contrast: that of T2w or FLAIR images, or any.

    Intensities are mapped by a curve through air, fluid, grey matter and brainstem as they are
    found around the brainstem. What is empty stays so.

    Parameters
    ----------
    image : Tensor, shape (1, 1, z, y, x)
        Intensities of about 0 to 1.
    target : Tensor of int64, same shape
        Classes of the segmenter.
    rng : numpy.random.Generator
        Draws the contrast.
    """
    stem = is_of(target, STEM)
    if int(stem.sum()) < 1000:
        return image
    hits = torch.nonzero(stem)[::50, 2:]
    window = tuple(
        slice(int(a), int(b) + 1) for a, b in zip(hits.amin(0), hits.amax(0), strict=True)
    )
    around = image[0, 0][window]
    white = float(image[stem].median())
    fluid = float(torch.quantile(around[around > 0.02], 0.05))
    if not 0.03 < fluid < 0.7 * white:
        return image
    kind = rng.random()
    if kind < 0.4:  # T2w
        ends = [(0.8, 1.0), (0.4, 0.6), (0.25, 0.4), (0.2, 0.5), (0.3, 0.9)]
    elif kind < 0.7:  # FLAIR
        ends = [(0.05, 0.2), (0.4, 0.6), (0.3, 0.5), (0.3, 0.6), (0.4, 1.0)]
    else:
        ends = [(0.05, 1.0)] * 5
    levels = [0.0, 0.03, *(float(rng.uniform(*pair)) for pair in ends)]
    knots = [0.0, fluid / 3, fluid, (fluid + white) / 2, white, 1.3 * white, 1.6 * white]
    curve = np.interp(np.linspace(0, 1.6 * white, 512), knots, levels).astype(np.float32)
    position = (image / (1.6 * white) * 511).clamp(0, 511).long()
    return torch.from_numpy(curve).to(image.device)[position].clamp(min=1e-3)
