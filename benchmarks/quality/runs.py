"""Run a model on worsened heads as the app does, and keep every result.

The JSON file of a result is named after the digests of model and head and the fault: re-run the
same command to resume. Empty the folder when the app's inference or its measures have changed.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.app import ImageError, find_model, load, measure, read_volume
from benchmarks.quality.faults import all_faults
from training.evaluate import VALUES, dice, volume_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.app import Volume
    from benchmarks.quality.faults import Fault

UNDISTURBED = "as it is"


@dataclass(frozen=True)
class Run:
    """What a model finds in one image.

    Attributes
    ----------
    head, kind, step : str
        The head and the fault; the kind is `UNDISTURBED` for the head itself.
    refused : str
        Why the app refused the image, or empty.
    dice : dict of str to float
        Overlap with the result of the undisturbed head, by region and for the brainstem.
    quality : dict of str to float
        As in the sidecar of a label map.
    flags : tuple of str
    """

    head: str
    kind: str
    step: str
    refused: str
    dice: dict[str, float]
    quality: dict[str, float]
    flags: tuple[str, ...]


def run(heads: Sequence[str], model: str, data: Path, kept: Path, processes: int) -> list[Run]:
    """Do what is not done yet on these heads, and read all results.

    Parameters
    ----------
    heads : sequence of str
        Dataset and participant, such as ``ds011_sub-06``.
    model : str
        Name or folder.
    data, kept : Path
        The public data, and the folder for results.
    processes : int
        Each uses one thread.
    """
    kept.mkdir(parents=True, exist_ok=True)
    work = partial(do_head, model=model, data=data, kept=kept)
    if processes == 1:
        return [found for head in heads for found in work(head)]
    with ProcessPoolExecutor(processes) as pool:
        return [found for runs in pool.map(work, heads) for found in runs]


def do_head(head: str, *, model: str, data: Path, kept: Path) -> list[Run]:
    """Run a head and all its faults, or read what is there."""
    volume = _read(head, data)

    def file(title: str, ending: str) -> Path:
        key = f"{find_model(model).sha256} {volume.sha256} {title}"
        return kept / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.{ending}"

    plain = file(UNDISTURBED, "npz")
    if not plain.exists():
        labels, content = _segment(model, volume)
        _write(file(UNDISTURBED, "json"), content | {"dice": {}})
        part = plain.with_suffix(".part.npz")
        np.savez_compressed(part, labels=labels)
        part.rename(plain)
    with np.load(plain) as stored:
        undisturbed = stored["labels"]
    for fault in all_faults():
        if not (place := file(fault.title, "json")).exists():
            _write(place, _do_fault(model, volume, undisturbed, fault))
            print(f"  {head}, {fault.title}", flush=True)
    titles = [(UNDISTURBED, ""), *((fault.kind, fault.step) for fault in all_faults())]
    return [
        _run(head, kind, step, file(f"{kind}, {step}" if step else kind, "json"))
        for kind, step in titles
    ]


def _do_fault(
    model: str, volume: Volume, undisturbed: NDArray[np.uint8], fault: Fault
) -> dict[str, Any]:
    faulty = fault(volume, undisturbed)
    try:
        worse = volume_of(faulty.data, faulty.affine)
    except ImageError as error:
        return {"refused": str(error), "dice": {}, "quality": {}, "flags": []}
    labels, content = _segment(model, worse)
    labels = faulty.back(labels)
    everywhere = np.ones(labels.shape, bool)
    overlap = {
        name: dice(np.isin(labels, values), np.isin(undisturbed, values), everywhere)
        for name, values in VALUES.items()
    }
    return content | {"dice": overlap}


def _segment(model: str, volume: Volume) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    found = load(model)(volume)
    findings = measure(volume, found, model)
    return found.labels, {"refused": "", "quality": findings.quality, "flags": list(findings.flags)}


def _write(file: Path, content: Any) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.rename(file)


def _run(head: str, kind: str, step: str, file: Path) -> Run:
    content = json.loads(file.read_text())
    return Run(
        head, kind, step, content["refused"], content["dice"], content["quality"],
        tuple(content["flags"]),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _read(head: str, data: Path) -> Volume:
    dataset, participant = head.split("_")
    return read_volume(data / dataset / participant / "anat" / f"{participant}_T1w.nii.gz")
