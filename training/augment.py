"""From a prepared case to one training patch, as the inference engine would feed it.

Poses, shapes, contrasts and faults of acquisition are drawn anew for every patch. The last step,
`finish`, is what happens to an image at inference: cut to the box of its non-zero voxels,
z-scored in that box, centred in the patch, 0 around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from training.cases import IGNORE, MEDULLA, MIDBRAIN, NOT_STEM
from training.faults import blur, corrupt, draw_lesions
from training.pose import resize_region, sample, sampling_grid
from training.synthesis import draw_image, widen_fluid

if TYPE_CHECKING:
    from training.cases import Case
    from training.networks import Look


NOTHING_SHARE, CUT_OFF_SHARE = 0.1, 0.12  # of the locator's patches
FRAMED_SHARE = 0.5  # of the locator's drawn images
# Of the segmenter's: with a region resized, then another one too; with lesions.
RESIZED_SHARE, TWICE_SHARE, LESION_SHARE = 0.9, 0.4, 0.15


def draw_box(size: int, rng: np.random.Generator, look: Look) -> list[slice]:
    """Draw a narrowed field of view: one to three sides of the patch are cut."""
    box = [[0, size] for _ in range(3)]
    for _ in range(int(rng.integers(1, 4))):
        axis, side = int(rng.integers(3)), int(rng.integers(2))
        depth = int(size * rng.uniform(0, look.depth_cut))
        box[axis][side] = depth if side == 0 else size - depth
    return [slice(*ends) for ends in box]


def draw_frame(grid: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Draw a field of view that is turned with the head: beyond its faces all is empty.

    An image that was turned by a registration has such empty corners. Heads bring theirs along;
    drawn images, whose maps fill the whole look, have none of their own.

    Parameters
    ----------
    grid : Tensor, shape (1, z, y, x, 3)
        Where each voxel of the patch lies in the prepared look, from -1 to 1.
    rng : numpy.random.Generator
        Draws where each face lies: at the border of the look or up to 30 % closer.

    Returns
    -------
    Tensor of bool, shape (1, 1, z, y, x)
        What lies within the field of view.
    """
    faces = np.where(rng.random((2, 3)) < 0.5, 1.0, rng.uniform(0.7, 1.0, (2, 3)))
    low, high = torch.tensor(faces, dtype=torch.float32, device=grid.device)
    within: torch.Tensor = ((grid > -low) & (grid < high)).all(-1)[None]
    return within


def cut_off_brainstem(target: torch.Tensor, rng: np.random.Generator) -> list[slice] | None:
    """Narrow the field of view to what lies above or below the brainstem, and a little farther.

    Parameters
    ----------
    target : Tensor of int64, shape (z, y, x)
        Classes of the locator.
    rng : numpy.random.Generator
        Draws the side and up to 6 voxels between.

    Returns
    -------
    list of slice, or None
        The field of view; None where less than a quarter of the patch would be left.
    """
    size = target.shape[0]
    levels = torch.nonzero((target == 1).any(-1).any(-1))
    if not len(levels):
        return None
    gap = int(rng.integers(1, 7))
    above = slice(int(levels[-1]) + gap, size)
    below = slice(0, max(int(levels[0]) - gap + 1, 0))
    kept = above if rng.random() < 0.7 else below
    if kept.stop - kept.start < size // 4:
        return None
    return [kept, slice(0, size), slice(0, size)]


def finish(
    image: torch.Tensor, target: torch.Tensor, box: list[slice] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do to a patch what nnU-Net's preprocessing does to an image.

    Parameters
    ----------
    image : Tensor, shape (size, size, size)
        Intensities; exact zeros are empty.
    target : Tensor of int64, shape (size, size, size)
    box : list of slice, optional
        The field of view.

    Returns
    -------
    image, target : Tensor, shape (size, size, size)
        The box of the non-zero voxels, z-scored in itself and centred, with zeros around it.
    """
    size = int(image.shape[0])
    if box is not None:
        image, target = image[tuple(box)], target[tuple(box)]
    full = image > 0
    if not full.any():
        return image.new_zeros((size,) * 3), target.new_zeros((size,) * 3)
    ends = []
    for axis in range(3):
        hit = torch.nonzero(full.any(dim=[a for a in range(3) if a != axis]))
        ends.append(slice(int(hit[0]), int(hit[-1]) + 1))
    image, target = image[tuple(ends)], target[tuple(ends)]
    image = (image - image.mean()) / image.std(correction=0).clamp(min=1e-8)
    padding: list[int] = []
    for length in reversed(target.shape):
        before = (size - int(length)) // 2
        padding += [before, size - int(length) - before]
    return functional.pad(image, padding), functional.pad(target, padding)


def to_classes(labels: torch.Tensor, brain: torch.Tensor | None, look: Look) -> torch.Tensor:
    """Turn labels into what the network at hand learns; `labels` unchanged for the segmenter.

    For the locator: 1 the brainstem, 2 the rest inside the skull where `brain` says so, else
    `NOT_STEM`. What is set aside is so only beside the brainstem: the cord below it, where its
    labels end, is surely no brainstem at 4 mm.
    """
    if look.name == "segmenter":
        return labels
    stem = (labels >= MIDBRAIN) & (labels <= MEDULLA)
    rest = torch.full_like(labels, NOT_STEM)
    if brain is not None:
        rest = (brain > 0).long() * 2
    near = functional.max_pool3d(stem.float(), 3, stride=1, padding=1) > 0
    rest = torch.where((labels == IGNORE) & near, labels, rest)
    return torch.where(stem, torch.ones_like(labels), rest)


def strip(
    image: torch.Tensor, brain: torch.Tensor, rng: np.random.Generator, look: Look
) -> torch.Tensor:
    """Return which voxels a skull strip keeps: the brain, and more or less of what is around."""
    keep = (brain == 1).float()
    if rng.random() < 0.3:
        keep = (brain > 0).float()
    reach = int(rng.integers(0, 5) / look.spacing)
    if reach:
        keep = functional.max_pool3d(keep, 2 * reach + 1, stride=1, padding=reach)
    return (keep > 0) & (image > 0)


def draw_nothing(
    look: Look, rng: np.random.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a patch of noise, fine and coarse, in which there is nothing to find.

    It is uniform or normal, and fills the patch or a box of it, as an image would.
    """
    shape = (look.size,) * 3
    coarse = torch.rand([1, 1, *([int(rng.integers(2, 24))] * 3)], device=device)
    coarse = functional.interpolate(coarse, shape, mode="trilinear")[0, 0]
    fine = torch.rand(shape, device=device)
    if rng.random() < 0.5:
        fine = (5 + torch.randn(shape, device=device)).clamp(min=0.1)
    image = coarse * float(rng.random()) + fine * float(rng.random())
    box = [slice(0, int(edge)) for edge in rng.integers(look.size // 3, look.size + 1, 3)]
    return finish(image, torch.zeros(shape, dtype=torch.int64, device=device), box)


def draw_patch(
    case: Case,
    look: Look,
    rng: np.random.Generator | None,
    device: torch.device,
    *,
    t1_like: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make one patch of a case.

    Parameters
    ----------
    case : Case
        A head, or a map to draw an image from.
    look : Look
        The network that will see the patch.
    rng : numpy.random.Generator or None
        None gives the plain patch for validation: upright, unchanged, T1-like if drawn.
    device : torch.device
        Where all is computed.
    t1_like : bool
        For a map: contrast of T1w images, or any.

    Returns
    -------
    image : Tensor of float32, shape (size, size, size)
    target : Tensor of int64, shape (size, size, size)
        Classes, `IGNORE` and `NOT_STEM`.
    """
    if rng is not None and look.name == "locator" and rng.random() < NOTHING_SHARE:
        return draw_nothing(look, rng, device)
    arrays = {
        key.split("/")[1]: array for key, array in case.arrays.items() if key.startswith(look.array)
    }
    grid = sampling_grid(look, arrays["labels"].shape[0], rng, device)
    if rng is not None and look.name == "segmenter" and rng.random() < RESIZED_SHARE:
        for _ in range(1 + (rng.random() < TWICE_SHARE)):
            grid = resize_region(grid, arrays["labels"], rng)
    target = sample(arrays["labels"], grid, "nearest").long()
    brain = sample(arrays["brain"], grid, "nearest") if "brain" in arrays else None
    draws = rng if rng is not None else np.random.default_rng(0)
    if case.real:
        image = sample(arrays["image"], grid, "bilinear") / 255
        present = image > 0.5 / 255
    else:
        anatomy = sample(arrays["anatomy"], grid, "nearest").long()
        if rng is not None and look.name == "segmenter" and rng.random() < 0.25:
            anatomy, target = widen_fluid(anatomy, target, rng)
        image = draw_image(anatomy, draws, t1_like=t1_like)
        present = torch.ones_like(image, dtype=torch.bool)
        if rng is not None and look.name == "locator" and rng.random() < FRAMED_SHARE:
            present = draw_frame(grid, rng)
    target = to_classes(target, brain, look)
    stripped = bool((~present).float().mean() > 0.3)
    if rng is None:
        if not case.real:
            image = blur(image, (0.5, 0.5, 0.5))
    else:
        if brain is not None and rng.random() < 0.4:
            present, stripped = strip(image, brain, rng, look), True
        if not case.real and look.array == "near":
            image = blur(image, tuple(rng.uniform(0.3, 0.8, 3)))
        if look.name == "segmenter" and rng.random() < LESION_SHARE:
            image = draw_lesions(image, target, rng)
        image = corrupt(image, rng, look)
    if stripped:
        image = torch.where(present, image.clamp(min=1e-4), torch.zeros_like(image))
        empty = ~present & (target != IGNORE) & (target != NOT_STEM)
        target = torch.where(empty, torch.zeros_like(target), target)
    box = None
    if rng is not None and rng.random() < 0.35:
        box = draw_box(look.size, rng, look)
    if rng is not None and look.name == "locator" and rng.random() < CUT_OFF_SHARE:
        box = cut_off_brainstem(target[0, 0], rng) or box
    return finish(image[0, 0], target[0, 0], box)
