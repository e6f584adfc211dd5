"""From a prepared case to one training patch, as the inference engine would feed it.

Poses, shapes, contrasts and faults of acquisition are drawn anew for every patch. The last step,
`finish`, is what happens to an image at inference: cut to the box of its non-zero voxels,
z-scored in that box, centred in the patch, 0 around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from training.cases import IGNORE, MEDULLA, NOT_STEM, STEM, is_of
from training.faults import blur, corrupt, draw_lesions, recolour, widen
from training.pose import LARGEST_TURN, deform, resize_region, sample, sampling_grid
from training.synthesis import draw_image, widen_fluid

if TYPE_CHECKING:
    from training.cases import Case
    from training.networks import Look


NOTHING_SHARE, CUT_OFF_SHARE = 0.1, 0.12  # of the locator's patches
FRAMED_SHARE = 0.5  # of the locator's drawn images
# Of the segmenter's: with a region resized, then another one too; with lesions.
RESIZED_SHARE, TWICE_SHARE, LESION_SHARE = 0.9, 0.4, 0.2
RECOLOURED_SHARE = 0.2  # of its heads: with the contrast of other images
STRIPPED_SHARE = 0.4  # of images of which the brain is known
NECKLESS_SHARE = 0.2  # of the segmenter's: nothing is seen from somewhere below the medulla on
DEFORMED_SHARE = 0.75  # of pairs


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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
    shift : Tensor, shape (3,)
        How far it was moved along x, y and z, in voxels.
    """
    size = int(image.shape[0])
    start = np.zeros(3, int)
    if box is not None:
        image, target = image[tuple(box)], target[tuple(box)]
        start += [side.start for side in box]
    full = image > 0
    if not full.any():
        empty = image.new_zeros((size,) * 3)
        return empty, target.new_zeros((size,) * 3), image.new_zeros(3)
    ends = []
    for axis in range(3):
        hit = torch.nonzero(full.any(dim=[a for a in range(3) if a != axis]))
        ends.append(slice(int(hit[0]), int(hit[-1]) + 1))
    start += [side.start for side in ends]
    image, target = image[tuple(ends)], target[tuple(ends)]
    image = (image - image.mean()) / image.std(correction=0).clamp(min=1e-8)
    padding: list[int] = []
    for length in reversed(target.shape):
        before = (size - int(length)) // 2
        padding += [before, size - int(length) - before]
    shift = image.new_tensor(
        [before - a for before, a in zip(padding[::2], start[::-1], strict=True)]
    )
    return functional.pad(image, padding), functional.pad(target, padding), shift


def to_classes(labels: torch.Tensor, brain: torch.Tensor | None, look: Look) -> torch.Tensor:
    """Turn labels into what the network at hand learns; `labels` unchanged for the segmenter.

    For the locator: 1 the brainstem, 2 the rest inside the skull where `brain` says so, else
    `NOT_STEM`. What is set aside is so only beside the brainstem: the cord below it, where its
    labels end, is surely no brainstem at 4 mm.
    """
    if look.name == "segmenter":
        return labels
    stem = is_of(labels, STEM)
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
        keep = widen(keep, reach)
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
    return finish(image, torch.zeros(shape, dtype=torch.int64, device=device), box)[:2]


def cut_neck(present: torch.Tensor, target: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Empty what lies below a plane under the medulla, as a skull strip may.

    Parameters
    ----------
    present : Tensor of bool, shape (1, 1, z, y, x)
        What the image shows.
    target : Tensor of int64, same shape
        Classes of the segmenter.
    rng : numpy.random.Generator
        Draws the distance, up to 20 voxels, and a tilt of up to 15 degrees.

    Returns
    -------
    Tensor of bool, shape (1, 1, z, y, x)
        `present`, less what lies below; unchanged where no medulla ends in view.
    """
    z, y, x = torch.nonzero(target[0, 0] == MEDULLA).float().unbind(1)
    if len(z) < 100 or z.min() < 2:
        return present
    low = z <= z.min() + 3
    tilt = np.tan(np.deg2rad(rng.uniform(-15, 15, 2)))
    size = target.shape[2]
    steps = torch.arange(size, device=target.device, dtype=torch.float32)
    slope = float(tilt[0]) * (steps - y[low].mean())[:, None] + float(tilt[1]) * (
        steps - x[low].mean()
    )
    floor = z.min() - float(rng.uniform(0, 20)) + slope
    return present & (steps[:, None, None] >= floor)


@dataclass(frozen=True)
class Anatomy:
    """A patch before an image of it is made; tensors of shape (1, 1, z, y, x).

    Attributes
    ----------
    target : Tensor of int64
        Labels.
    image : Tensor
        The image of a head, 0 to 1; of a map empty.
    tissue : Tensor or None
        Of a map the positions in `CODES`.
    brain : Tensor or None
        Inside of the skull, where it is known.
    grid : Tensor, shape (1, z, y, x, 3)
        Where each voxel lies in the prepared look.
    """

    target: torch.Tensor
    image: torch.Tensor
    tissue: torch.Tensor | None
    brain: torch.Tensor | None
    grid: torch.Tensor


def sample_anatomy(case: Case, look: Look, grid: torch.Tensor) -> Anatomy:
    """Sample a case where a patch lies."""
    arrays = {
        key.split("/")[1]: array for key, array in case.arrays.items() if key.startswith(look.array)
    }
    return Anatomy(
        target=sample(arrays["labels"], grid, "nearest").long(),
        image=sample(arrays["image"], grid, "bilinear") / 255 if case.real else torch.empty(0),
        tissue=None if case.real else sample(arrays["anatomy"], grid, "nearest").long(),
        brain=sample(arrays["brain"], grid, "nearest") if "brain" in arrays else None,
        grid=grid,
    )


def place_patch(
    case: Case, look: Look, rng: np.random.Generator | None, device: torch.device, turn: float
) -> torch.Tensor:
    """Draw where a patch lies in a case, and deform the brainstem there."""
    labels = case.arrays[f"{look.array}/labels"]
    grid = sampling_grid(look, labels.shape[0], rng, device, turn)
    if rng is not None and look.name == "segmenter" and rng.random() < RESIZED_SHARE:
        for _ in range(1 + (rng.random() < TWICE_SHARE)):
            grid = resize_region(grid, labels, rng)
    return grid


def make_image(
    anatomy: Anatomy, look: Look, rng: np.random.Generator | None, *, t1_like: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make the image of a patch as the inference engine would feed it.

    Parameters
    ----------
    anatomy : Anatomy
    look : Look
        The network that will see the patch.
    rng : numpy.random.Generator or None
        None gives the plain image for validation.
    t1_like : bool
        For a map: contrast of T1w images, or any.

    Returns
    -------
    image : Tensor of float32, shape (size, size, size)
    target : Tensor of int64, shape (size, size, size)
        Classes, `IGNORE` and `NOT_STEM`.
    shift : Tensor, shape (3,)
        How far along x, y and z the patch was moved when it was centred, in voxels.
    """
    target, brain = anatomy.target, anatomy.brain
    draws = rng if rng is not None else np.random.default_rng(0)
    segments = look.name == "segmenter"
    if anatomy.tissue is not None:
        image = draw_image(anatomy.tissue, draws, t1_like=t1_like)
        present = torch.ones_like(image, dtype=torch.bool)
        if rng is not None and look.name == "locator" and rng.random() < FRAMED_SHARE:
            present = draw_frame(anatomy.grid, rng)
    else:
        image = anatomy.image
        present = image > 0.5 / 255
        if rng is not None and segments and rng.random() < RECOLOURED_SHARE:
            image = recolour(image, target, rng)
    target = to_classes(target, brain, look)
    stripped = bool((~present).float().mean() > 0.3)
    if rng is None:
        if anatomy.tissue is not None:
            image = blur(image, (0.5, 0.5, 0.5))
    else:
        if brain is not None and not stripped and rng.random() < STRIPPED_SHARE:
            present, stripped = strip(image, brain, rng, look), True
        if segments and rng.random() < NECKLESS_SHARE:
            present, stripped = cut_neck(present, target, rng), True
        if anatomy.tissue is not None and look.array == "near":
            image = blur(image, tuple(rng.uniform(0.3, 0.8, 3)))
        if segments and rng.random() < LESION_SHARE:
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
    anatomy = sample_anatomy(case, look, place_patch(case, look, rng, device, LARGEST_TURN))
    if rng is not None:
        anatomy = age(anatomy, look, rng)
    return make_image(anatomy, look, rng, t1_like=t1_like)[:2]


def age(anatomy: Anatomy, look: Look, rng: np.random.Generator) -> Anatomy:
    """Put fluid in the place of the outermost brainstem, in a quarter of the segmenter's maps."""
    if anatomy.tissue is None or look.name != "segmenter" or rng.random() >= 0.25:
        return anatomy
    tissue, target = widen_fluid(anatomy.tissue, anatomy.target, rng)
    return replace(anatomy, tissue=tissue, target=target)


@dataclass(frozen=True)
class Pair:
    """Two patches of one anatomy, of other contrast, field of view or faults.

    Attributes
    ----------
    images : Tensor of float32, shape (2, z, y, x)
    targets : Tensor of int64, shape (2, z, y, x)
    places : Tensor, shape (1, z, y, x, 3)
        Where each voxel of the second patch lies in the first, in voxels along x, y and z.
    """

    images: torch.Tensor
    targets: torch.Tensor
    places: torch.Tensor


def draw_pair(
    case: Case,
    look: Look,
    rng: np.random.Generator,
    device: torch.device,
    t1_share: float,
    turn: float = LARGEST_TURN,
) -> Pair:
    """Draw two patches of a case whose answers must agree.

    In a quarter of the pairs the second shows the brainstem as it is in the first, in the others
    with a region resized.

    Parameters
    ----------
    case : Case
        A head, or a map to draw images from.
    look : Look
        The network that will see the patches.
    rng : numpy.random.Generator
        Draws all but noise.
    device : torch.device
        Where all is computed.
    t1_share : float
        Share of T1-like images among those that are drawn.
    turn : float
        Largest turn in degrees.
    """
    first = sample_anatomy(case, look, place_patch(case, look, rng, device, turn))
    if rng.random() < DEFORMED_SHARE:
        grid, places = deform(first.grid, first.target, rng)
        second = sample_anatomy(case, look, grid)
    else:
        first = second = age(first, look, rng)
        places = functional.affine_grid(
            torch.eye(3, 4, device=device)[None], list(first.target.shape), align_corners=True
        )
    (image, target, shift), (image_2, target_2, shift_2) = (
        make_image(anatomy, look, rng, t1_like=bool(rng.random() < t1_share))
        for anatomy in (first, second)
    )
    voxels = (places + 1) / 2 * (look.size - 1)
    # Voxel v of the second patch was voxel v - shift_2 before it was centred.
    moved = torch.roll(voxels, [int(n) for n in shift_2.flip(0)], (1, 2, 3))
    # What is rolled around the ends is empty in the second image.
    return Pair(torch.stack([image, image_2]), torch.stack([target, target_2]), moved + shift)
