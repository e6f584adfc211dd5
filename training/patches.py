"""Patches of a run, drawn by other processes while the network learns.

Step `n` of a run always draws the same patches, whoever draws them: all chance comes from the seed
and the step.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.augment import Pair, draw_pair, draw_patch
from training.pose import LARGEST_TURN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from training.cases import Case
    from training.networks import Look

REAL_SHARE = {"locator": 0.3, "segmenter": 0.5}
T1_SHARE = 0.5  # of the drawn images; the others are of random contrast
# From this part of a segmenter's run on, most poses are within 8 degrees of the canonical frame.
UPRIGHT_FROM, UPRIGHT_SHARE, UPRIGHT_TURN = 0.4, 0.7, 8.0
AHEAD = 2  # steps that are drawn ahead, for each process
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """The patches of a step, in types that pass quickly from one process to another.

    Attributes
    ----------
    images : Tensor of float16, shape (batch, z, y, x)
    targets : Tensor of uint8, shape (batch, z, y, x)
    shifts : Tensor of float16, shape (batch / 2, z, y, x, 3), or None
        Of the segmenter's patches, which come two by two: how far each voxel of the second lies
        from the one at the same place in the first, along x, y and z in voxels.
    """

    images: torch.Tensor
    targets: torch.Tensor
    shifts: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the same on a device, as float32 and int64."""
        return Batch(
            self.images.to(device).float(),
            self.targets.to(device).long(),
            None if self.shifts is None else self.shifts.to(device).float(),
        )

    def places(self) -> torch.Tensor:
        """Return where the voxels of each second patch lie in the first, from -1 to 1."""
        if self.shifts is None:
            raise ValueError("These patches are no pairs.")
        edge = self.images.shape[-1] - 1
        return (self.shifts + _voxels(edge + 1).to(self.shifts.device)) / edge * 2 - 1


@dataclass(frozen=True)
class Drawing:
    """What all batches of a run are drawn from.

    Attributes
    ----------
    cases : list of Case
        Those to learn from.
    look : Look
        The network at hand.
    seed : int
        Seed of the run.
    batch : int
        Patches a step; the segmenter takes pairs, one at least.
    small : float
        Part of a segmenter's run, from its start, on boxes cut from the patches.
    """

    cases: list[Case]
    look: Look
    seed: int
    batch: int
    small: float

    def draw(self, step: int, done: float) -> Batch:
        """Draw the batch of a step, at which a part `done` of the run is done."""
        rng = np.random.default_rng([self.seed, step])
        torch.manual_seed(int(rng.integers(2**31)))
        if self.look.name == "segmenter":
            pairs = [self._pair(done, rng) for _ in range(max(self.batch // 2, 1))]
            places = torch.cat([pair.places for pair in pairs])
            return Batch(
                torch.cat([pair.images for pair in pairs]).half(),
                torch.cat([pair.targets for pair in pairs]).to(torch.uint8),
                (places - _voxels(places.shape[1])).half(),
            )
        patches = []
        for _ in range(self.batch):
            t1_like = bool(rng.random() < T1_SHARE)
            case = choose_case(self.cases, self.look, rng)
            patches.append(draw_patch(case, self.look, rng, CPU, t1_like=t1_like))
        images, targets = zip(*patches, strict=True)
        return Batch(torch.stack(images).half(), torch.stack(targets).to(torch.uint8))

    def _pair(self, done: float, rng: np.random.Generator) -> Pair:
        upright = done > UPRIGHT_FROM and rng.random() < UPRIGHT_SHARE
        case = choose_case(self.cases, self.look, rng)
        turn = UPRIGHT_TURN if upright else LARGEST_TURN
        pair = draw_pair(case, self.look, rng, CPU, T1_SHARE, turn)
        return cut_box(pair, rng) if done < self.small else pair


def choose_case(cases: list[Case], look: Look, rng: np.random.Generator) -> Case:
    """Draw a case: heads and maps by their share, heads by the root of their dataset's size."""
    heads, maps = [c for c in cases if c.real], [c for c in cases if not c.real]
    if heads and (not maps or rng.random() < REAL_SHARE[look.name]):
        sizes = Counter(c.name.split("_")[0] for c in heads)
        shares = np.sqrt(list(sizes.values()))
        source = list(sizes)[rng.choice(len(sizes), p=shares / shares.sum())]
        heads = [c for c in heads if c.name.startswith(source)]
        return heads[rng.integers(len(heads))]
    return maps[rng.integers(len(maps))]


def cut_box(pair: Pair, rng: np.random.Generator) -> Pair:
    """Cut a box of five sixths of the edge, somewhere in the patch, the same from both patches.

    Its edge is a multiple of 16, as the network asks for. In smaller boxes nearly all is brainstem,
    and a network that has learned from them says too much of its neighbours on a whole patch.
    """
    size = pair.images.shape[-1]
    edge = size * 5 // 6 // 16 * 16
    start = rng.integers(0, size - edge + 1, 3)
    z, y, x = (slice(int(a), int(a) + edge) for a in start)
    places = pair.places[:, z, y, x] - pair.places.new_tensor(start[::-1].copy())
    return Pair(pair.images[:, z, y, x].clone(), pair.targets[:, z, y, x].clone(), places)


def _voxels(size: int) -> torch.Tensor:
    """Coordinates (z, y, x, 3) of the voxels of a cube, along x, y and z."""
    steps = torch.arange(size, dtype=torch.float32)
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).flip(-1)


@contextmanager
def drawn_ahead(drawing: Drawing, workers: int) -> Iterator[Callable[[int, float], Batch]]:
    """Give a function of step and part done that returns a step's batch.

    With `workers`, that many processes draw ahead; they have a session of their own, so that
    Ctrl-C is left to the run. They end with it.
    """
    if not workers:
        yield drawing.draw
        return
    ahead: deque[tuple[int, Future[Batch]]] = deque()
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin, (drawing, os.getpid())
    ) as pool:

        def batch_of(step: int, done: float) -> Batch:
            following = ahead[-1][0] + 1 if ahead else step
            for later in range(following, step + AHEAD * workers + 1):
                ahead.append((later, pool.submit(_draw, later, done)))
            drawn, future = ahead.popleft()
            if drawn != step:
                raise ValueError(f"Batches come in order: {drawn}, not {step}.")
            return future.result()

        try:
            yield batch_of
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_drawing: list[Drawing] = []  # of this process, once


def _begin(drawing: Drawing, parent: int) -> None:
    """Prepare a process that draws."""
    os.setsid()
    torch.set_num_threads(1)
    _drawing.append(drawing)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(5)
    os._exit(1)


def _draw(step: int, done: float) -> Batch:
    return _drawing[0].draw(step, done)
