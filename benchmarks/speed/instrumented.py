"""Run the app with its functions timed or replaced; a process of its own for each run.

    python -m benchmarks.speed.instrumented {stages,head,run} ...

The one module that reaches into the app's functions. They are imported after the clock starts, as
the start of the app is timed, too.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from functools import partial
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STAGES = ("start-up", "reading", "preprocessing", "network", "resampling back", "writing")
BASELINE = "as it is"
SMALL_PAGES = "memory pages of 4 KB for large tensors"
OPENVINO = "OpenVINO (--device openvino)"
HEAD_THREADS, RUN_THREADS = 1, 2
REPEATS = 7  # of a head in a process; the one with the least CPU time counts


def wrap(module: str, name: str, around: Callable[[Any], Any]) -> None:
    """Replace a function of the app by what `around` makes of it.

    Parameters
    ----------
    module, name : str
        Module below `bids_app`, and the function or ``Class.method``.
    around : callable
        Takes the function and returns another.

    Raises
    ------
    AttributeError
        The app has no such function.
    """
    owner: Any = importlib.import_module(f"bids_app.{module}")
    *classes, last = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    setattr(owner, last, around(getattr(owner, last)))


def replace(module: str, name: str, function: Any) -> None:
    """Replace a function of the app; see `wrap`."""
    wrap(module, name, lambda _: function)


# --- stages of a run ----------------------------------------------------------------------


def run_stages(output: Path, begun: float, words: Sequence[str]) -> int:
    """Run the app in this process and write the seconds that each stage took.

    Parameters
    ----------
    output : Path
        JSON file, seconds by stage.
    begun : float
        `time.time` at which the process was started.
    words : sequence of str
        Command line of the app.
    """
    from bids_app.cli import main as cli

    seconds = dict.fromkeys(STAGES, 0.0)
    lock = threading.Lock()

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                with lock:
                    seconds[stage] += time.perf_counter() - start

        return call

    def started(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return function(*arguments, **options)
            finally:
                seconds["start-up"] = time.time() - begun

        return call

    wrap("segmentation.segmenter", "load_segmenters", started)
    wrap("workflow.pipeline", "read_volume", partial(timed, "reading"))
    wrap("engines.nnunet.inference", "NnUNet.prepare", partial(timed, "preprocessing"))
    wrap("engines.nnunet.inference", "NnUNet.infer", partial(timed, "network"))
    wrap("engines.nnunet.inference", "NnUNet.restore", partial(timed, "resampling back"))
    wrap("workflow.pipeline", "write_image", partial(timed, "writing"))
    sys.argv[0] = "bids_app"
    status = cli.main(list(words))
    output.write_text(json.dumps(seconds))
    return status


# --- the app without one optimization -----------------------------------------------------


def keep() -> None:
    """Change nothing."""


def run_passes_in_turn() -> None:
    """Run mirrored passes one after the other, each with all threads."""
    replace("engines.nnunet.inference", "passes_at_once", lambda *_: 1)


def use_torch_convolutions() -> None:
    """Leave the choice of convolutions to torch."""
    replace("engines.nnunet.inference", "use_onednn", lambda _: None)


def use_torch_argmax() -> None:
    """Find the labels of single passes by torch's argmax."""
    import torch

    replace("engines.nnunet.sliding", "winners", lambda c: c.argmax(0).to(torch.uint8))


def use_nnunet_resampling() -> None:
    """Resample with nnunetv2's function."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    replace("engines.nnunet.plans", "resample", resample_data_or_seg_to_shape)


HEAD_VARIANTS: dict[str, Callable[[], None]] = {
    BASELINE: keep,
    "convolutions as torch chooses them": use_torch_convolutions,
    SMALL_PAGES: keep,
    "labels of passes by torch's argmax": use_torch_argmax,
    "resampling by nnunetv2": use_nnunet_resampling,
    OPENVINO: keep,
}
RUN_VARIANTS: dict[str, Callable[[], None]] = {
    BASELINE: keep,
    "passes one after the other, on all threads": run_passes_in_turn,
}


def time_head(name: str, image: Path, labels: Path) -> tuple[float, float]:
    """Segment an image several times with the open model, from voxels to labels.

    Parameters
    ----------
    name : str
        Of `HEAD_VARIANTS`.
    image : Path
    labels : Path
        The label map is written here, as ``.npy``.

    Returns
    -------
    wall, cpu : float
        Seconds of the repeat with the least CPU time.
    """
    HEAD_VARIANTS[name]()
    import numpy as np

    from bids_app.io.images import read_volume
    from bids_app.models import store
    from bids_app.segmentation.segmenter import load_segmenter
    from bids_app.segmentation.types import InferenceOptions

    device = "openvino" if name == OPENVINO else "cpu"
    segmenter = load_segmenter(
        store.find("open"), InferenceOptions(device=device, threads=HEAD_THREADS)
    )
    volume = read_volume(image)
    np.save(labels, segmenter(volume).labels)
    rounds = []
    for _ in range(REPEATS):
        start = time.perf_counter(), time.process_time()
        segmenter(volume)
        rounds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(rounds, key=itemgetter(1))


def time_run(name: str, dataset: Path) -> tuple[float, float]:
    """Run the participant level on a dataset, imports included.

    Parameters
    ----------
    name : str
        Of `RUN_VARIANTS`.
    dataset : Path

    Returns
    -------
    wall, cpu : float
        Seconds.
    """
    RUN_VARIANTS[name]()
    from bids_app.cli import main as cli

    with TemporaryDirectory() as output:
        words = [str(dataset), output, "participant", "--skip-bids-validation", "--device", "cpu"]
        start = time.perf_counter()
        status = cli.main([*words, "--nprocs", str(RUN_THREADS)])
        if status:
            raise SystemExit(status)
        return time.perf_counter() - start, time.process_time()


def main(what: str, *words: str) -> int:
    """Do one run in this process; the last line of a timed one is JSON, wall and CPU seconds."""
    if what == "stages":
        return run_stages(Path(words[0]), float(words[1]), words[2:])
    if what == "head":
        seconds = time_head(words[0], Path(words[1]), Path(words[2]))
    else:
        seconds = time_run(words[0], Path(words[1]))
    print(json.dumps(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
