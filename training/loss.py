"""What the networks of the open model are trained to make small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from training.cases import CORD, ICP, IGNORE, MEDULLA, NOT_STEM, SCP, is_of
from training.faults import widen

if TYPE_CHECKING:
    from training.networks import Look


PARTS_WEIGHT = 0.5  # of the Dice of parts and cord against that of the regions
VOLUME_WEIGHT = 2.0
LEAST_VOXELS = 100.0  # added to volumes, so that what hardly shows in a patch pulls little
THIN = (SCP, ICP)  # a few hundred voxels of a head
THIN_REACH = 4  # voxels around them, which they are compared with
BOX_MARGIN, BEYOND = 8, 8  # around what is labelled; beyond, one voxel in so many counts for all


def loss_of(
    logits: torch.Tensor, target: torch.Tensor, look: Look, rare: float = 0.0
) -> torch.Tensor:
    """Cross-entropy + Dice, of classes and of the whole brainstem, + what tells regions apart.

    Of all voxels of a patch few lie at a border between regions, and where the network is sure and
    wrong the Dice hardly changes with its answer. So a cross-entropy of the regions among each
    other is the mean over the brainstem alone: a border that has moved pulls as hard as one that is
    merely unsharp, and the outer border has no part in it.

    The cord is a few hundred voxels of a patch: among all the others it would never be learned, and
    the volume of the medulla hangs on where it begins. So the cord has a cross-entropy of its own,
    and the medulla one against the cord, each a mean over its own voxels.

    Parameters
    ----------
    logits : Tensor, shape (batch, classes, z, y, x)
    target : Tensor of int64, shape (batch, z, y, x)
        `IGNORE` has no part in any term; where it is `NOT_STEM`, only the sum of the
        probabilities of all classes but those of the brainstem counts.
    look : Look
        The network at hand.
    rare : float
        Weight of a cross-entropy of each thin part against what lies within `THIN_REACH` voxels of
        it: a mean over its own voxels and one over those around. What is not yet found has a
        Dice that hardly changes, and one voxel in several thousand has no part in a mean over
        all; so a new small class is learned by this. As both sides weigh the same it makes parts
        too large, and should be 0 in the end.
    """
    flat = target.flatten()
    # A row for each class of the target, one for `NOT_STEM` and one for `IGNORE`.
    kinds = len(look.classes)
    kind = torch.where(flat == IGNORE, kinds + 1, torch.where(flat == NOT_STEM, kinds, flat))
    index, counts = rows_that_count(target)
    rows = logits.movedim(1, -1).flatten(0, -2)
    log_p = rows[index].float().log_softmax(1)
    flat, kind = flat[index], kind[index]
    chosen = kind.clamp(max=kinds - 1)
    entropy = -log_p.gather(1, chosen[:, None])[:, 0] * (kind < kinds)
    p = log_p.exp()
    if (kind == kinds).any():
        rest = 1 - p[:, list(look.stem)].sum(1)
        entropy = entropy - torch.log(rest.clamp(min=1e-6)) * (kind == kinds)
    loss = (entropy * counts).sum() / (counts * (kind <= kinds)).sum().clamp(min=1)
    # Sums of the probabilities of each class over the voxels of each kind: all Dice follow.
    weighted = functional.one_hot(kind, kinds + 2).to(p.dtype) * counts[:, None]
    found, sizes = weighted.T @ p, weighted.sum(0)

    def dice(classes: tuple[int, ...]) -> torch.Tensor:
        rows = list(classes)
        of_stem = set(classes) <= set(look.stem)
        everywhere = found[: kinds + 1 if of_stem else kinds, rows].sum()
        both = found[rows][:, rows].sum()
        return (2 * both + 50) / (everywhere + sizes[rows].sum() + 50)

    for groups, weight in ((look.regions, 1.0), (look.parts, PARTS_WEIGHT)):
        # Else the cord, out of view in most patches, would never be learned.
        scores = [dice(classes) for classes in groups if sizes[list(classes)].any()]
        if scores:
            loss = loss + weight * (1 - torch.stack(scores).mean())
    if rare and look.parts:
        for part in THIN:
            own = flat == part
            if own.any():
                near = widen((target == part)[:, None].float(), THIN_REACH).flatten()[index] > 0
                around = near & ~own & (kind < kinds)
                apart = -torch.log1p(-p[around, part].clamp(max=1 - 1e-6))
                loss = loss + rare * (entropy[own].mean() + apart.sum() / around.sum().clamp(min=1))
    if len(look.stem) > 1:
        loss = loss + 1 - dice(look.stem)
        stem = is_of(flat, look.stem)
        if stem.any():
            position = torch.zeros(kinds, dtype=torch.int64, device=target.device)
            position[list(look.stem)] = torch.arange(len(look.stem), device=target.device)
            regions = log_p[stem][:, list(look.stem)]
            loss = loss + functional.cross_entropy(regions, position[flat[stem]])
    cord, medulla = flat == CORD, flat == MEDULLA
    if look.name == "segmenter" and cord.any() and medulla.any():
        cord_over_medulla = (log_p[:, CORD] - log_p[:, MEDULLA])[medulla]
        wrong = entropy[cord].mean() + functional.softplus(cord_over_medulla).mean()
        loss = loss + wrong / 2
    return loss


def rows_that_count(target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the voxels that a loss is taken of: far from the brainstem a part stands for all.

    Parameters
    ----------
    target : Tensor of int64, shape (batch, z, y, x)

    Returns
    -------
    index : Tensor of int64, shape (n,)
        Positions in the flattened target: the box around what is labelled, and every `BEYOND`-th
        voxel elsewhere, another one at each call.
    counts : Tensor of float32, shape (n,)
        How many voxels each stands for.
    """
    kept = torch.zeros(target.shape, device=target.device)
    kept.view(-1)[int(torch.randint(BEYOND, ())) :: BEYOND] = BEYOND
    for z, y, x, patch in ((*labelled_box(own), at) for own, at in zip(target, kept, strict=True)):
        patch[z, y, x] = 1
    index = torch.nonzero(kept.flatten())[:, 0]
    return index, kept.flatten()[index]


def labelled_box(target: torch.Tensor) -> tuple[slice, slice, slice]:
    """Return the box around all classes in a target (..., z, y, x), with `BOX_MARGIN` around it."""
    known = (target > 0) & (target < NOT_STEM)
    places = []
    for axis in (-3, -2, -1):
        others = [n for n in range(-target.ndim, 0) if n != axis]
        hit = torch.nonzero(known.any(dim=others) if others else known)
        if not len(hit):
            return (slice(0, 0),) * 3
        places.append(slice(max(int(hit[0]) - BOX_MARGIN, 0), int(hit[-1]) + 1 + BOX_MARGIN))
    return places[0], places[1], places[2]


def cut_pair(
    logits: torch.Tensor, places: torch.Tensor, seen: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cut a pair to the boxes around what is labelled, for `disagreement`.

    Parameters
    ----------
    logits, places, seen : Tensor
        As for `disagreement`.
    target : Tensor of int64, shape (2, z, y, x)

    Returns
    -------
    logits, places, seen : Tensor
        Of the box that holds what is labelled in both patches.
    """
    z, y, x = labelled_box(target)
    if z.stop == z.start:
        return logits, places, seen
    logits, seen = logits[:, :, z, y, x], seen[:, z, y, x]
    edges = places.new_tensor([n - 1 for n in target.shape[:0:-1]])
    first = places.new_tensor([x.start, y.start, z.start])
    inside = places.new_tensor([n - 1 for n in seen.shape[:0:-1]])
    voxels = (places[:, z, y, x] + 1) / 2 * edges - first
    return logits, voxels / inside * 2 - 1, seen


def disagreement(
    logits: torch.Tensor, places: torch.Tensor, seen: torch.Tensor, look: Look
) -> torch.Tensor:
    """Measure how far the answers for two patches of one anatomy differ.

    The first answer is carried to the second patch. The squared difference of the probabilities
    is taken relative to the size of what was found, and to it is added the relative difference of
    the volumes (sums of probabilities) of each region and part but the thin ones. Where the
    second patch is deformed, this is the error of the change in volume, whatever the labels say.

    Parameters
    ----------
    logits : Tensor, shape (2, classes, z, y, x)
    places : Tensor, shape (1, z, y, x, 3)
        Where each voxel of the second patch lies in the first, from -1 to 1 (``align_corners``).
    seen : Tensor of bool, shape (2, z, y, x)
        Voxels that hold image.
    look : Look
        The network at hand.
    """
    both = logits.float().softmax(1)
    carried = functional.grid_sample(
        torch.cat([both[:1], seen[:1, None].float()], 1), places, align_corners=True
    )[0]
    mask = (carried[-1] > 0.99) & seen[1]
    first, second = carried[:-1] * mask, both[1] * mask
    size = (first[1:].sum() + second[1:].sum()) / 2 + LEAST_VOXELS
    apart = ((first - second) ** 2).sum() / size
    volumes = [chosen.sum((1, 2, 3)) for chosen in (first, second)]
    changes = []
    # A thin part that is not yet found would agree with itself best by not being there at all.
    for classes in (*look.regions, *(part for part in look.parts if not set(part) & set(THIN))):
        a, b = (volume[list(classes)].sum() for volume in volumes)
        changes.append((a - b).abs() / ((a + b) / 2 + LEAST_VOXELS))
    return apart + VOLUME_WEIGHT * torch.stack(changes).mean()
