"""Time the nnU-Net engine: its start, and the steps on a box of the open model's size.

Networks have random weights, which cost the same as trained ones. The box is 96 mm of a whole head
at 1 x 1.33 x 1.33 mm, so that it is resampled both ways; mirroring is left-right. CPU seconds are
summed over all threads; on a machine with other work they say more than wall seconds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.common import REPOSITORY, Output, header, load
from benchmarks.engines import NnUNet, head, write_random_model

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEATURES = ((8, 16, 32, 64, 128), (16, 32, 64, 128, 160))
LABELS = ("background", "midbrain", "pons", "medulla", "cord")
SPACING = (1.33, 1.33, 1.0)  # along z, y, x
BOX = (slice(20, 92), slice(50, 122), slice(40, 136))
ROUNDS = 3
START = f"""
import sys, time
from pathlib import Path
import torch
torch_done = time.process_time()
from {NnUNet.__module__} import NnUNet
imports_done = time.process_time()
NnUNet(Path(sys.argv[1]), device=torch.device("cpu"))
print(torch_done, imports_done, time.process_time())
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark: there are none."""


def main(options: argparse.Namespace) -> None:
    """Print the start and the table of steps."""
    with Output(options.out) as out, tempfile.TemporaryDirectory() as name:
        out(*header("random weights"))
        folders = {
            features: write_random_model(
                Path(name) / str(features[0]),
                folds=1,
                labels=LABELS,
                patch_size=(96, 96, 96),
                features=features,
                mirror_axes=(2,),
            )
            for features in FEATURES
        }
        time_start(out, folders[FEATURES[0]])
        z, y, x = SPACING
        image = np.asarray(head(voxel_size=(x, y, z)).dataobj, dtype=np.float32).T[BOX]
        out(f"{'features':<22}{'threads':>8}{'step':>9}{'wall s':>8}{'CPU s':>8}")
        for features, folder in folders.items():
            for threads in (1, 2):
                time_steps(out, features, folder, image, threads)
        out(load("end"))


def time_start(out: Output, folder: Path) -> None:
    """Print how long a new process takes until the model can be used."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", START, str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - begun
    torch_done, imports_done, loaded = map(float, done.stdout.split())
    out(
        f"start: {loaded:.1f} CPU s (torch {torch_done:.1f}, other imports "
        f"{imports_done - torch_done:.1f}, model {loaded - imports_done:.1f}), {wall:.1f} s wall"
    )


def time_steps(
    out: Output,
    features: Sequence[int],
    folder: Path,
    image: NDArray[np.float32],
    threads: int,
) -> None:
    """Print the fastest of some rounds of each step, by CPU time; `image` has axes (z, y, x)."""
    torch.set_num_threads(threads)
    engine = NnUNet(folder, device=torch.device("cpu"), averaging="softmax")
    rounds = []
    for _ in range(ROUNDS):
        clock = [now()]
        prepared = engine.prepare(image, SPACING)
        clock.append(now())
        output = engine.infer(prepared.data).mean
        clock.append(now())
        engine.restore(output, prepared)
        clock.append(now())
        rounds.append(np.diff(clock, axis=0))
    title = "-".join(map(str, features))
    for i, step in enumerate(("prepare", "infer", "restore")):
        wall, cpu = min((r[i] for r in rounds), key=lambda pair: float(pair[1]))
        out(f"{title:<22}{threads:>8}{step:>9}{wall:>8.2f}{cpu:>8.2f}")


def now() -> tuple[float, float]:
    """Return wall and CPU seconds."""
    return time.perf_counter(), time.process_time()
