"""Time MD-GRU of the published size on one window of 100 voxels, computed in several ways.

Weights are random. The original (TensorFlow 2.15.1 on one thread) took 227 CPU seconds and 4.3 GB
for such a window. Each way runs in a process of its own, so that its peak memory can be measured.
"bfloat16" is direct convolutions in that precision. CPU seconds are summed over all threads; on a
machine with other work they say more than wall seconds. ``benchmarks gpu`` times a GPU.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.common import REPOSITORY, Output, header, load
from benchmarks.engines import CONVOLUTIONS, MDGRU, PUBLISHED, head, random_weights, whiten

if TYPE_CHECKING:
    import argparse

EDGE = 100  # voxels
WAYS = ("tiled", "direct", "bfloat16")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("ways", nargs="*", metavar="WAY", default=list(WAYS),
                        help=f"default: {' '.join(WAYS)}")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")


def main(options: argparse.Namespace) -> None:
    """Print a line for each way, and how much their labels differ."""
    with Output(options.out) as out, tempfile.TemporaryDirectory() as folder:
        out(*header("random weights"))
        out(f"{'convolution':<12}{'threads':>8}{'CPU s':>8}{'wall s':>8}{'GiB':>6}")
        found = {}
        for way in options.ways:
            file = Path(folder, f"{way}.npy")
            command = [sys.executable, "-m", __name__, way, str(options.threads), str(file)]
            done = subprocess.run(
                command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
            )
            out(done.stdout.rstrip())
            found[way] = np.load(file)
        first, *others = options.ways
        for other in others:
            away = np.abs(found[first] - found[other]).max()
            differ = np.count_nonzero(found[first].argmax(-1) != found[other].argmax(-1))
            out(f"{first} and {other}: {differ} of {EDGE**3:,} labels differ; "
                f"probabilities differ by {away:.1e} at most")  # fmt: skip
        out(load("end"))


def time_window(way: str, threads: int, output: Path) -> str:
    """Segment one window in this process, and write its probabilities.

    Parameters
    ----------
    way : str
        A way to convolve, or a precision.
    threads : int
        CPU threads.
    output : Path
        Probabilities of shape (X, Y, Z, classes), as ``.npy``.

    Returns
    -------
    str
        A row of the table.
    """
    torch.set_num_threads(1)
    image = np.asarray(head(voxel_size=(1, 1, 1)).dataobj, dtype=np.float32)
    starts = [(n - EDGE) // 2 for n in image.shape]
    window = whiten(image, (1, 1, 1)).data[*(slice(start, start + EDGE) for start in starts)]
    weights = {name: torch.tensor(w) for name, w in random_weights(PUBLISHED).items()}
    how = {"convolution": way} if way in CONVOLUTIONS else {"precision": way}
    network = MDGRU(weights, device=torch.device("cpu"), threads=threads, **how)
    start = time.perf_counter(), time.process_time()
    probabilities = network(torch.from_numpy(window.copy())[None])[0]
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.save(output, probabilities.numpy())
    return f"{way:<12}{threads:>8}{cpu:>8.1f}{wall:>8.1f}{memory:>6.2f}"


if __name__ == "__main__":
    print(time_window(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
