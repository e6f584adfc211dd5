"""Run a model on worsened heads, end to end as the app does, and keep every result.

A result is a JSON file named by the digest of the model, of the head and the fault, so that a run
that was stopped goes on. Empty the folder when the app's inference or its measures changed.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from accuracy_runs import load, load_model
from quality_faults import all_faults

from bids_app.errors import ImageError
from bids_app.io.images import read_volume
from bids_app.measures.quality import judge
from training.evaluate import VALUES, dice, volume_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_app.io.images import Volume

UNDISTURBED = "as it is"


@dataclass(frozen=True)
class Run:
    """What a model says of one image.

    Attributes
    ----------
    head, kind, step : str
        The head, and what was done to it; kind `UNDISTURBED` of the head itself.
    refused : str
        Why the app refused the image; else empty.
    dice : dict of str to float
        Overlap with the result of the undisturbed head, a region and all together.
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
        Names as ``ds011_sub-06``, of the folders of `data`.
    model : str
        Name or folder.
    data, kept : Path
        The public data, and where results are kept.
    processes : int
        Each with one thread.
    """
    kept.mkdir(parents=True, exist_ok=True)
    work = partial(do_head, model=model, data=data, kept=kept)
    if processes == 1:
        return [found for head in heads for found in work(head)]
    with ProcessPoolExecutor(processes) as pool:
        return [found for runs in pool.map(work, heads) for found in runs]


def do_head(head: str, *, model: str, data: Path, kept: Path) -> list[Run]:
    """Do a head and all its faults."""
    volume = _read(head, data)

    def file(title: str, ending: str) -> Path:
        key = f"{load_model(model).sha256} {volume.sha256} {title}"
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


def _do_fault(model: str, volume: Volume, undisturbed: NDArray[np.uint8], fault: Any) -> Any:
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
    judged = judge(volume, found, load_model(model).regions)
    return found.labels, {"refused": "", "quality": judged.quality, "flags": list(judged.flags)}


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
