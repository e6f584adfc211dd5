"""Simulated scans of a head, segmented alone and in their middle, and kept.

Heads are cut to a cube around the brainstem first, which saves most of the time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from benchmarks.accuracy.changes import scan
from benchmarks.accuracy.deformation import shrink, true_change
from benchmarks.accuracy.runs import LABELS
from benchmarks.app import find_model, load
from benchmarks.change.erosion import erode
from bids_app.geometry.frame import Frame, Sampled, sample
from bids_app.geometry.middle import align, gain_field
from bids_app.measures.probabilities import near_largest, sum_volumes
from training.cases import REGIONS
from training.evaluate import VALUES, HeldOut, read_held_out, volume_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HALF_MM = 68.0  # half the edge of the cube that is kept around the brainstem
NAMES = ("midbrain", "pons", "medulla")


@dataclass(frozen=True)
class Simulated:
    """What happens to a head before a scan.

    Attributes
    ----------
    kind : str
        ``none``, ``smooth`` (a deformation) or ``sharp`` (the outermost layer eroded).
    share : float
        Of the volume, that is lost.
    region : str
        Of a smooth loss; a sharp one takes all three.
    direction : str
        Of a smooth loss: "" for all, ``across`` or ``along``.
    seed : int
        Of the scan.
    """

    kind: str
    share: float
    region: str
    direction: str
    seed: int

    @property
    def title(self) -> str:
        """What is done, and the seed."""
        return f"{self.kind} {self.region} {self.direction} {self.share:g} {self.seed}"


def read_cut(name: str, data: Path) -> HeldOut:
    """Read a head, and cut a cube around its brainstem."""
    head = read_held_out(name, data, LABELS)
    assert head is not None, name
    edges = voxel_sizes(head.volume.affine)
    centre = np.argwhere(np.isin(head.truth, REGIONS)).mean(axis=0)
    low = np.maximum(np.floor(centre - HALF_MM / edges), 0).astype(int)
    high = np.minimum(np.ceil(centre + HALF_MM / edges), head.truth.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = head.volume.affine.copy()
    affine[:3, 3] = apply_affine(affine, low)
    cut = replace(head.volume, data=np.ascontiguousarray(head.volume.data[box]), affine=affine)
    return HeldOut(name, cut, head.truth[box], head.loose[box])


def simulate(head: HeldOut, what: Simulated) -> tuple[Any, NDArray[np.float64], dict[str, float]]:
    """Change a head and scan it; give voxels, affine, and the true change of each region."""
    truth = dict.fromkeys(NAMES, 0.0)
    changed = head
    if what.kind == "smooth":
        data, _ = shrink(head, what.region, what.share, what.direction)
        changed = replace(head, volume=replace(head.volume, data=data))
        truth[what.region] = true_change(head, what.region, what.share, what.direction)
    elif what.kind == "sharp":
        data, losses = erode(head, what.share)
        changed = replace(head, volume=replace(head.volume, data=data))
        truth = {name: losses[VALUES[name][0]] for name in NAMES}
    return *scan(changed, what.seed), truth


def run(name: str, series: list[Simulated], data: Path, kept: Path, model: str) -> Path:
    """Scan a head several times and segment all scans in their middle, unless that is done.

    Returns
    -------
    Path
        A file of arrays with N scans: ``alone``, volumes in their own frames, shape (N, 3);
        ``shared``, in the middle; ``truth``; ``images``, ``matched`` and ``maps`` around the
        brainstem, shapes (N, x, y, z) and (N, 3, x, y, z); ``fit``; ``angles`` and ``shifts``.
    """
    key = f"{find_model(model).sha256} {name} {[what.title for what in series]}"
    file = kept / f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if file.exists():
        return file
    head = read_cut(name, data)
    segmenter: Any = load(model)
    natives, alone, truths, own, seen, stems, frames = [], [], [], [], [], [], []
    for what in series:
        voxels, affine, truth = simulate(head, what)
        volume = volume_of(voxels, affine)
        found = segmenter(volume).frame_pass
        assert found is not None, (name, what)
        drawn = sample(volume.data, volume.affine, found.frame)
        near = near_largest(found.probabilities[:3], found.frame.affine)
        alone.append(sum_volumes(near, found.frame.affine))
        truths.append([truth[region] for region in NAMES])
        natives.append((volume.data, volume.affine))
        own.append(drawn.data)
        seen.append(drawn.inside)
        stems.append(near.sum(axis=0))
        frames.append(found.frame)
        print(f"  {name} {what.title}: {np.round(alone[-1])}", flush=True)
    middle = align(np.stack(own), np.stack(seen), np.stack(stems))
    assert middle is not None, name
    shared = [
        sample(voxels, affine, Frame(frame.affine @ movement))
        for (voxels, affine), frame, movement in zip(natives, frames, middle.movements, strict=True)
    ]
    common = np.all([one.inside for one in shared], axis=0)
    maps = []
    for one in shared:
        image = Sampled(np.where(common, one.data, np.float32(0)), common).normalized()
        output, _ = segmenter._cascade.predict_sampled(
            np.ascontiguousarray(image.transpose(2, 1, 0))
        )
        maps.append(segmenter._of_regions(output.mean)[:3])
    cleared: Any = [near_largest(one, np.eye(4)) for one in maps]
    fields = [gain_field(middle, k, common.shape) for k in range(len(series))]
    box = around(np.mean([one.sum(axis=0) for one in cleared], axis=0))
    part = file.with_suffix(".part.npz")
    np.savez_compressed(
        part,
        alone=alone,
        shared=[sum_volumes(one, np.eye(4)) for one in cleared],
        truth=truths,
        images=np.stack([one.data[box] for one in shared]),
        matched=np.stack([(s.data * f)[box] for s, f in zip(shared, fields, strict=True)]),
        maps=np.stack([one[(slice(None), *box)] for one in cleared]),
        fit=middle.fit,
        movements=middle.movements,
        titles=[what.title for what in series],
    )
    part.rename(file)
    return file


def around(stem: NDArray[np.float32], margin: int = 10) -> tuple[slice, ...]:
    """Box around a brainstem."""
    places = np.argwhere(stem > 0.1)
    low = np.maximum(places.min(axis=0) - margin, 0)
    high = np.minimum(places.max(axis=0) + margin + 1, stem.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
