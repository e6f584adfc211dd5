"""Run models on changed heads, end to end as the app does, and keep every result.

A result is kept in a file named by the digest of the model, of the image and the title of the
change, so that a run that was stopped goes on. Empty the folder when the app's inference changed.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from accuracy_changes import (
    Change,
    atrophy,
    emptied,
    keep_above_medulla,
    self_consistency,
    strip,
)
from accuracy_deformation import WAYS, true_change

from bids_app.errors import ImageError
from bids_app.io.images import read_volume
from bids_app.measures.quality import judge
from bids_app.models import store
from bids_app.models.manifest import verify
from bids_app.segmentation.segmenter import load_segmenter
from bids_app.segmentation.types import InferenceOptions
from training.evaluate import VALUES, HeldOut, read_held_out, volume_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import Segmenter

LABELS = Path(__file__).resolve().parent.parent / "training" / "labels_v1"
PLAIN, STRIPPED, ABOVE_MEDULLA = (
    "as it is",
    "skull-stripped around brain and labels",
    "cut above the medulla",
)
ODD = "odd_medulla_cut_off"  # of `data/odd`: a head whose medulla is out of view


@dataclass(frozen=True, order=True)
class Job:
    """A model's folder, a head and the title of a change."""

    head: str
    change: str
    model: str


@dataclass(frozen=True)
class Places:
    """Where things lie: the public data, the registered maps (or None), and the results kept."""

    data: Path
    registered: Path | None
    kept: Path


@dataclass(frozen=True, eq=False)
class Result:
    """What a model says of an image.

    Attributes
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        On the RAS grid of the image; without a voxel where it was refused.
    ml, soft_ml : dict of str to float
        Volume of each region and of the whole, from voxels and from probabilities.
    intracranial_ml : float
        nan where it cannot be told.
    flags : str
        Comma-separated, or why the image was refused.
    seconds : float
        Of the processor, from the voxels of the image to its labels.
    true_change : float
        For atrophy: by how much the region's label was changed; else nan.
    """

    labels: NDArray[np.uint8]
    ml: dict[str, float]
    soft_ml: dict[str, float]
    intracranial_ml: float
    flags: str
    seconds: float
    true_change: float


def run(jobs: Iterable[Job], places: Places, processes: int) -> dict[Job, Result]:
    """Do the jobs that are not done yet, and read all results.

    Parameters
    ----------
    jobs : iterable of Job
    places : Places
    processes : int
        Each with one thread.
    """
    places.kept.mkdir(parents=True, exist_ok=True)
    ordered = sorted(set(jobs))
    work = partial(do, places=places)
    if processes == 1:
        files = [work(job) for job in ordered]
    else:
        with ProcessPoolExecutor(processes) as pool:
            files = list(pool.map(work, ordered, chunksize=4))
    return {job: read(file) for job, file in zip(ordered, files, strict=True)}


def do(job: Job, places: Places) -> Path:
    """Do a job unless it is done; the file of its result."""
    head = read_head(job.head, places.data)
    key = f"{load_model(job.model).sha256} {head.volume.sha256} {job.change}"
    file = places.kept / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    if not file.exists():
        found = segment(job, head, places)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, **found)
        part.rename(file)
        print(f"  {job.head}, {job.change}: {found['seconds']:.1f} s", flush=True)
    return file


def segment(job: Job, head: HeldOut, places: Places) -> dict[str, Any]:
    """Change a head and segment it; the arrays of a result's file."""
    region, _, shrunk = job.change.partition(" shrunk by ")
    share, _, way = shrunk.partition("% ")
    true = true_change(head, region, float(share.rstrip("%")) / 100, way) if share else np.nan
    begun = time.process_time()
    try:
        if job.change == PLAIN:
            volume = head.volume
        else:
            picture = find_change(job.change, job.head, places).make(head)
            begun = time.process_time()
            volume = volume_of(*picture)
    except ImageError as error:
        nothing = np.full(len(VALUES), np.nan)
        return {
            "labels": np.zeros((0, 0, 0), np.uint8), "start": (0, 0, 0), "shape": (0, 0, 0),
            "ml": nothing, "soft_ml": nothing, "intracranial_ml": np.nan,
            "flags": f"refused: {error}", "seconds": np.nan, "true_change": true,
        }  # fmt: skip
    found = load(job.model)(volume)
    seconds = time.process_time() - begun
    findings = judge(volume, found, load_model(job.model).regions)
    inside = np.argwhere(found.labels)
    start, stop = (inside.min(0), inside.max(0) + 1) if len(inside) else (np.zeros(3, int),) * 2
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return {
        "labels": found.labels[window], "start": start, "shape": found.labels.shape,
        "ml": [m.volume_mm3 / 1000 for m in findings.measures],
        "soft_ml": [(m.soft_volume_mm3 or 0) / 1000 for m in findings.measures],
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


def find_change(title: str, head: str, places: Places) -> Change:
    """Find a change by its title."""
    if title == STRIPPED:
        brain = mask_path(head, places)
        return Change(title, lambda held: strip(held, np.asarray(nib.load(brain).dataobj) > 0))
    listed = [*self_consistency(), *emptied(), Change(ABOVE_MEDULLA, keep_above_medulla)]
    listed += [change for way in WAYS for region in VALUES for change in atrophy(region, way)]
    return next(change for change in listed if change.title == title)


def mask_path(head: str, places: Places) -> Path:
    """Name the file of a whole head's brain mask, there or not."""
    return (places.registered or places.kept) / f"{head}_brain.nii.gz"


@lru_cache(maxsize=1)
def read_head(name: str, data: Path) -> HeldOut:
    """Read a head of the split, or the odd one, which has no labels."""
    if name == ODD:
        volume = read_volume(data / "odd" / "medulla_cut_off_T1w.nii.gz")
        nothing = np.zeros(volume.data.shape, np.uint8)
        return HeldOut(name, volume, nothing, nothing)
    head = read_held_out(name, data, LABELS)
    assert head is not None, name
    return head


@lru_cache
def load_model(name: str) -> Model:
    """Find a model by name or folder, and check it."""
    model = store.find(name)
    verify(model)
    return model


@lru_cache
def load(name: str) -> Segmenter:
    """Load a model on one thread of the CPU."""
    return load_segmenter(load_model(name), InferenceOptions(device="cpu", threads=1))
