"""What the networks of the open model are trained to make small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from training.cases import CORD, IGNORE, MEDULLA, NOT_STEM

if TYPE_CHECKING:
    from training.networks import Look


def loss_of(logits: torch.Tensor, target: torch.Tensor, look: Look) -> torch.Tensor:
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
    """
    logits = logits.float()
    log_p = functional.log_softmax(logits, 1)
    known = target != IGNORE
    partial = target == NOT_STEM
    sure = known & ~partial
    chosen = torch.where(sure, target, torch.zeros_like(target))
    entropy = -log_p.gather(1, chosen[:, None])[:, 0] * sure
    p = log_p.exp()
    if partial.any():
        rest = 1 - p[:, look.stem].sum(1)
        entropy = entropy - torch.log(rest.clamp(min=1e-6)) * partial
    loss = entropy.sum() / known.sum().clamp(min=1)

    def dice(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        a, b = a * where, b * where
        return (2 * (a * b).sum() + 50) / (a.sum() + b.sum() + 50)

    scores = []
    for index in range(1, len(look.classes)):
        truth = (target == index).float()
        if truth.any():  # else the cord, out of view in most patches, would never be learned
            scores.append(dice(p[:, index], truth, known if index in look.stem else sure))
    if scores:
        loss = loss + 1 - torch.stack(scores).mean()
    if len(look.stem) > 1:
        first, last = look.stem[0], look.stem[-1]
        stem = (target >= first) & (target <= last)
        loss = loss + 1 - dice(p[:, look.stem].sum(1), stem.float(), known)
        if stem.any():
            regions = logits[:, first : last + 1].movedim(1, -1)[stem]
            loss = loss + functional.cross_entropy(regions, target[stem] - first)
    cord, medulla = target == CORD, target == MEDULLA
    if look.name == "segmenter" and cord.any() and medulla.any():
        cord_over_medulla = (logits[:, CORD] - logits[:, MEDULLA])[medulla]
        wrong = entropy[cord].mean() + functional.softplus(cord_over_medulla).mean()
        loss = loss + wrong / 2
    return loss
