"""Run models on changed heads as the app does, and keep every result.

The file of a result is named after the digests of model and image and the title of the change:
re-run the same command to resume. Empty the folder when the app's inference has changed.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from benchmarks.accuracy.changes import (
    Change,
    atrophy,
    harmless,
    keep_above_medulla,
    strip,
    without_brainstem,
)
from benchmarks.accuracy.deformation import DIRECTIONS, true_change
from benchmarks.app import ImageError, find_model, load, measure, read_volume
from benchmarks.common import REPOSITORY
from training.evaluate import VALUES, HeldOut, read_held_out, volume_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = REPOSITORY / "training" / "labels_v1"
UNCHANGED, STRIPPED, ABOVE_MEDULLA = (
    "as it is",
    "skull-stripped around brain and labels",
    "cut above the medulla",
)
ODD = "odd_medulla_cut_off"  # of `data/odd`: a head whose medulla is out of view


@dataclass(frozen=True, order=True)
class Job:
    """One run: a head, the title of a change, and a model by name or folder."""

    head: str
    change: str
    model: str


@dataclass(frozen=True)
class Folders:
    """Folders: the public data, the maps by registration (or None), and the kept results."""

    data: Path
    registered: Path | None
    kept: Path


@dataclass(frozen=True, eq=False)
class Result:
    """What a model finds in an image.

    Attributes
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        On the RAS grid of the image; empty if the image was refused.
    ml, soft_ml : dict of str to float
        Volume of each region and of the brainstem, from voxels and from probabilities.
    intracranial_ml : float
        NaN if it is unknown.
    flags : str
        Comma-separated, or why the image was refused.
    seconds : float
        CPU time from the voxels of the image to its labels.
    true_change : float
        For atrophy: relative change of the volume of the region's label; else NaN.
    """

    labels: NDArray[np.uint8]
    ml: dict[str, float]
    soft_ml: dict[str, float]
    intracranial_ml: float
    flags: str
    seconds: float
    true_change: float


def run(jobs: Iterable[Job], folders: Folders, processes: int) -> dict[Job, Result]:
    """Do the jobs that are not done yet, and read all results.

    Parameters
    ----------
    jobs : iterable of Job
    folders : Folders
    processes : int
        Each uses one thread.
    """
    folders.kept.mkdir(parents=True, exist_ok=True)
    ordered = sorted(set(jobs))
    work = partial(do, folders=folders)
    if processes == 1:
        files = [work(job) for job in ordered]
    else:
        with ProcessPoolExecutor(processes) as pool:
            files = list(pool.map(work, ordered, chunksize=4))
    return {job: read(file) for job, file in zip(ordered, files, strict=True)}


def do(job: Job, folders: Folders) -> Path:
    """Do a job unless it is done; return the file of its result."""
    head = read_head(job.head, folders.data)
    key = f"{find_model(job.model).sha256} {head.volume.sha256} {job.change}"
    file = folders.kept / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    if not file.exists():
        found = segment(job, head, folders)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, **found)
        part.rename(file)
        print(f"  {job.head}, {job.change}: {found['seconds']:.1f} s", flush=True)
    return file


def segment(job: Job, head: HeldOut, folders: Folders) -> dict[str, Any]:
    """Change a head and segment it; return the arrays of the result's file."""
    region, _, shrunk = job.change.partition(" shrunk by ")
    share, _, direction = shrunk.partition("% ")
    true = true_change(head, region, float(share.rstrip("%")) / 100, direction) if share else np.nan
    begun = time.process_time()
    try:
        if job.change == UNCHANGED:
            volume = head.volume
        else:
            changed = find_change(job.change, job.head, folders).make(head)
            begun = time.process_time()
            volume = volume_of(*changed)
    except ImageError as error:
        nothing = np.full(len(VALUES), np.nan)
        return {
            "labels": np.zeros((0, 0, 0), np.uint8), "start": (0, 0, 0), "shape": (0, 0, 0),
            "ml": nothing, "soft_ml": nothing, "intracranial_ml": np.nan,
            "flags": f"refused: {error}", "seconds": np.nan, "true_change": true,
        }  # fmt: skip
    found = load(job.model)(volume)
    seconds = time.process_time() - begun
    findings = measure(volume, found, job.model)
    inside = np.argwhere(found.labels)
    start, stop = (inside.min(0), inside.max(0) + 1) if len(inside) else (np.zeros(3, int),) * 2
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return {
        "labels": found.labels[window], "start": start, "shape": found.labels.shape,
        "ml": [m.volume_mm3 / 1000 for m in findings.volumes],
        "soft_ml": [(m.soft_volume_mm3 or 0) / 1000 for m in findings.volumes],
        "intracranial_ml": (found.intracranial_mm3 or np.nan) / 1000,
        "flags": ", ".join(findings.flags), "seconds": seconds, "true_change": true,
    }  # fmt: skip


def read(file: Path) -> Result:
    """Read the file of a result."""
    with np.load(file) as kept:
        labels = np.zeros(kept["shape"], np.uint8)
        box = tuple(
            slice(a, a + n) for a, n in zip(kept["start"], kept["labels"].shape, strict=True)
        )
        labels[box] = kept["labels"]
        volumes: list[Mapping[str, float]] = [
            dict(zip(VALUES, kept[key].tolist(), strict=True)) for key in ("ml", "soft_ml")
        ]
        return Result(
            labels,
            dict(volumes[0]),
            dict(volumes[1]),
            float(kept["intracranial_ml"]),
            str(kept["flags"]),
            float(kept["seconds"]),
            float(kept["true_change"]),
        )


def find_change(title: str, head: str, folders: Folders) -> Change:
    """Find a change by its title."""
    if title == STRIPPED:
        brain = mask_path(head, folders)
        return Change(title, lambda held: strip(held, np.asarray(nib.load(brain).dataobj) > 0))
    listed = [*harmless(), *without_brainstem(), Change(ABOVE_MEDULLA, keep_above_medulla)]
    listed += [
        change
        for direction in DIRECTIONS
        for region in VALUES
        for change in atrophy(region, direction)
    ]
    return next(change for change in listed if change.title == title)


def mask_path(head: str, folders: Folders) -> Path:
    """Return the path of a whole head's brain mask, which need not exist."""
    return (folders.registered or folders.kept) / f"{head}_brain.nii.gz"


@lru_cache(maxsize=1)
def read_head(name: str, data: Path) -> HeldOut:
    """Read a head of the split, or `ODD`, which has no labels."""
    if name == ODD:
        volume = read_volume(data / "odd" / "medulla_cut_off_T1w.nii.gz")
        nothing = np.zeros(volume.data.shape, np.uint8)
        return HeldOut(name, volume, nothing, nothing)
    head = read_held_out(name, data, LABELS)
    assert head is not None, name
    return head
