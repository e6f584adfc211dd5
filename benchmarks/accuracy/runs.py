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
    simulated_scans,
    strip,
    without_brainstem,
)
from benchmarks.accuracy.deformation import DIRECTIONS, true_change
from benchmarks.app import ImageError, find_model, load, measure, read_volume
from benchmarks.common import REPOSITORY
from training.evaluate import VALUES, HeldOut, read_held_out, volume_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = REPOSITORY / "training" / "labels_v1"
UNCHANGED, STRIPPED, ABOVE_MEDULLA = (
    "as it is",
    "skull-stripped around brain and labels",
    "cut above the medulla",
)
ODD = "odd_medulla_cut_off"  # of `data/odd`: a head whose medulla is out of view
SHAPES = tuple(
    f"{name} {column}"
    for column in ("midsagittal_mm2", "ap_diameter_mm", "surface_mm2", "volume_20mm_mm3")
    for name in ("midbrain", "pons", "medulla")
    if column != "volume_20mm_mm3" or name == "medulla"
)


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
    ml, label_ml : dict of str to float
        Volume of each region and of the brainstem, from probabilities and from voxels.
    shape : dict of str to float
        Areas (mm2) and diameters (mm) by `SHAPES`; NaN where there is none.
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
    label_ml: dict[str, float]
    shape: dict[str, float]
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


def read_kept(jobs: Iterable[Job], folders: Folders, kept: Path) -> dict[Job, Result]:
    """Read those results that another folder of kept results has."""
    files = {job: path_of(job, read_head(job.head, folders.data), kept) for job in sorted(jobs)}
    return {job: read(file) for job, file in files.items() if file.exists()}


def path_of(job: Job, head: HeldOut, kept: Path) -> Path:
    """Return the file of a job's result."""
    key = f"{find_model(job.model).sha256} {head.volume.sha256} {job.change}"
    return kept / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def do(job: Job, folders: Folders) -> Path:
    """Do a job unless it is done; return the file of its result."""
    head = read_head(job.head, folders.data)
    file = path_of(job, head, folders.kept)
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
            "ml": nothing, "label_ml": nothing, "shapes": np.full(len(SHAPES), np.nan),
            "intracranial_ml": np.nan,
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
        "label_ml": [(m.label_volume_mm3 or 0) / 1000 for m in findings.volumes],
        "shapes": [shape_of(findings.volumes, *key.split(" ", 1)) for key in SHAPES],
        "intracranial_ml": (found.intracranial_mm3 or np.nan) / 1000,
        "flags": ", ".join(findings.flags), "seconds": seconds, "true_change": true,
    }  # fmt: skip


def shape_of(rows: Sequence[Any], region: str, column: str) -> float:
    """Take a measure of shape from the rows of a table of volumes; NaN where there is none."""
    values = (getattr(row, column) for row in rows if row.name == region)
    return next((value for value in values if value is not None), np.nan)


def read(file: Path) -> Result:
    """Read the file of a result."""
    with np.load(file) as kept:
        labels = np.zeros(kept["shape"], np.uint8)
        box = tuple(
            slice(a, a + n) for a, n in zip(kept["start"], kept["labels"].shape, strict=True)
        )
        labels[box] = kept["labels"]
        return Result(
            labels,
            dict(zip(VALUES, kept["ml"].tolist(), strict=True)),
            dict(zip(VALUES, kept["label_ml"].tolist(), strict=True)),
            dict(zip(SHAPES, kept["shapes"].tolist(), strict=True)),
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
    listed = [*harmless(), *simulated_scans(), *without_brainstem()]
    listed += [Change(ABOVE_MEDULLA, keep_above_medulla)]
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
