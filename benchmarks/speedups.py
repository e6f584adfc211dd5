"""Time what each change for speed pays: the app as it is beside the app without the one change.

    python benchmarks/speedups.py HEADS > benchmarks/speedups.txt

HEADS is a BIDS dataset of whole heads. The first head is segmented by the open model, from voxels
to labels, on one thread; then all heads are run from start to end, on two. Each variant runs in a
process of its own, all in turns, and the run of least seconds counts: of the CPU for the one head,
of the wall for all heads. Ratios are to the app as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY)]

import numpy as np  # noqa: E402
from end_to_end import machine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS, REPEATS = 2, 7
THREADS = {"head": 1, "run": 2}
COUNTED = {"head": 1, "run": 0}  # CPU or wall
AS_IT_IS = "as it is"
SMALL_PAGES = "pages of 4 KB for large tensors"
OPENVINO = "by OpenVINO (--device openvino)"


class Here(Executor):
    """Does what it is given at once, in the thread that gives it."""

    def __init__(self, _workers: int) -> None:
        super().__init__()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it and give the result as of a future."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def one_after_the_other() -> None:
    """Make passes one after the other, each with all threads."""
    from bids_app.engines.nnunet import inference

    inference.passes_at_once = lambda *_: 1


def own_choice_of_convolutions() -> None:
    """Leave the choice of convolutions to torch."""
    from bids_app.engines.nnunet import inference

    inference.use_onednn = lambda _: None


def argmax() -> None:
    """Find the votes of passes with torch's argmax."""
    import torch

    from bids_app.engines.nnunet import sliding

    sliding.winners = lambda classes: classes.argmax(0).to(torch.uint8)


def stock_resampling() -> None:
    """Resample with nnunetv2's function."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    from bids_app.engines.nnunet import plans

    plans.resample = resample_data_or_seg_to_shape


def nothing_beside() -> None:
    """Read and write in turn with the network."""
    from bids_app.workflow import pipeline

    pipeline.ThreadPoolExecutor = Here


UNDO: dict[str, Callable[[], object]] = {
    AS_IT_IS: lambda: None,
    "torch's own choice of convolutions": own_choice_of_convolutions,
    SMALL_PAGES: lambda: None,
    "votes by torch's argmax": argmax,
    "resampling by nnunetv2": stock_resampling,
    OPENVINO: lambda: None,
}
UNDO_RUN: dict[str, Callable[[], object]] = {
    AS_IT_IS: lambda: None,
    "passes one after the other, on all threads": one_after_the_other,
    "reading and writing in turn with the network": nothing_beside,
}


def main() -> None:
    """Print the machine and the two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("heads", type=Path)
    heads = parser.parse_args().heads
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, model open")
    print(f"load at the start: {os.getloadavg()[0]:.1f}")
    names = [name for name in UNDO if name != OPENVINO or find_spec("openvino")]
    print(
        f"\n{'one head, voxels to labels':<46}{'wall s':>8}{'CPU s':>8}{'ratio':>7}  other labels"
    )
    tell(heads, names, "head")
    print(f"\n{'all heads, start to end':<46}{'wall s':>8}{'CPU s':>8}{'ratio':>7}")
    tell(heads, list(UNDO_RUN), "run")
    print(f"\nload at the end: {os.getloadavg()[0]:.1f}")


def tell(heads: Path, names: list[str], what: str) -> None:
    """Measure variants in turns and print their rows."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for _ in range(TURNS):
            for name in names:
                kept = Path(folder) / f"{names.index(name)}.npy"
                pages = {"THP_MEM_ALLOC_ENABLE": "0" if name == SMALL_PAGES else "1"}
                settings = {"OMP_NUM_THREADS": str(THREADS[what]), **pages}
                words = [sys.executable, __file__, what, name, str(heads), str(kept)]
                output = subprocess.run(
                    words, env=os.environ | settings, check=True, capture_output=True, text=True
                ).stdout
                found[name].append(tuple(json.loads(output.splitlines()[-1])))
        counted = itemgetter(COUNTED[what])
        best = {name: min(times, key=counted) for name, times in found.items()}
        for name, seconds in best.items():
            row = f"{name:<46}{seconds[0]:>8.2f}{seconds[1]:>8.2f}"
            row += f"{counted(seconds) / counted(best[AS_IT_IS]):>7.2f}"
            if what == "head":
                first, own = np.load(Path(folder) / "0.npy"), f"{names.index(name)}.npy"
                row += f"{int((np.load(Path(folder) / own) != first).sum()):>14}"
            print(row, flush=True)


def time_head(name: str, heads: Path, kept: Path) -> tuple[float, float]:
    """Segment the first head several times; the least wall and CPU seconds."""
    UNDO[name]()
    from bids_app.io.images import read_volume
    from bids_app.models import store
    from bids_app.segmentation.segmenter import load_segmenter
    from bids_app.segmentation.types import InferenceOptions

    device = "openvino" if name == OPENVINO else "cpu"
    segmenter = load_segmenter(
        store.find("open"), InferenceOptions(device=device, threads=THREADS["head"])
    )
    volume = read_volume(min(heads.glob("sub-*/anat/*_T1w.nii.gz")))
    np.save(kept, segmenter(volume).labels)
    rounds = []
    for _ in range(REPEATS):
        start = time.perf_counter(), time.process_time()
        segmenter(volume)
        rounds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(rounds, key=itemgetter(COUNTED["head"]))


def time_run(name: str, heads: Path) -> tuple[float, float]:
    """Run the participant level on all heads, from the start of Python on."""
    UNDO_RUN[name]()
    from bids_app.cli import main as cli

    with tempfile.TemporaryDirectory() as output:
        words = [str(heads), output, "participant", "--skip-bids-validation", "--device", "cpu"]
        start = time.perf_counter()
        status = cli.main([*words, "--nprocs", str(THREADS["run"])])
        if status:
            raise SystemExit(status)
        return time.perf_counter() - start, time.process_time()


if __name__ == "__main__":
    if sys.argv[1] == "head":
        print(json.dumps(time_head(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
    elif sys.argv[1] == "run":
        print(json.dumps(time_run(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
