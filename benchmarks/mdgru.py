"""Time MD-GRU of the published size on one window of 100 voxels, and compare ways to compute it.

    OMP_NUM_THREADS=2 python benchmarks/mdgru.py tiled direct bfloat16 > benchmarks/mdgru.txt

``bfloat16`` is direct convolutions of that precision. `benchmarks/gpu.py` times a GPU.

Weights are random. The original (TensorFlow 2.15.1 on one thread) took 227 CPU seconds and 4.3 GB
for such a window. Each way of computing runs in a process of its own, for its peak memory. CPU
seconds are those of all threads; they say more than the wall's on a machine that has other work.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "test_data"), str(REPOSITORY)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from end_to_end import machine  # noqa: E402
from make_datasets import head  # noqa: E402
from make_mdgru_model import random_weights  # noqa: E402

from bids_app.engines.mdgru.inference import whiten  # noqa: E402
from bids_app.engines.mdgru.layout import PUBLISHED  # noqa: E402
from bids_app.engines.mdgru.network import MDGRU  # noqa: E402
from bids_app.engines.mdgru.options import CONVOLUTIONS  # noqa: E402

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


def main(ways: list[str]) -> None:
    """Print the machine and a line for each way that was asked for."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, torch {torch.__version__}")
    print(f"{'convolution':<12}{'threads':>8}{'CPU s':>8}{'wall s':>8}{'GiB':>6}", flush=True)
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            place = Path(folder) / f"{way}.npy"
            subprocess.run([sys.executable, __file__, "--one", way, place], check=True)
            found[way] = np.load(place)
    for other in ways[1:]:
        away = np.abs(found[ways[0]] - found[other]).max()
        differ = np.count_nonzero(found[ways[0]].argmax(-1) != found[other].argmax(-1))
        print(f"{ways[0]} and {other}: {differ} of 1,000,000 labels differ, within {away:.1e}")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


def one(way: str, place: str) -> None:
    """Run one window, print its line, and keep the probabilities."""
    torch.set_num_threads(1)
    image = np.asarray(head(voxel_size=(1, 1, 1)).dataobj, dtype=np.float32)
    middle = [n // 2 - 50 for n in image.shape]
    window = whiten(image, (1, 1, 1)).data[*(slice(start, start + 100) for start in middle)]
    weights = {name: torch.tensor(w) for name, w in random_weights(PUBLISHED).items()}
    how = {"convolution": way} if way in CONVOLUTIONS else {"precision": way}
    network = MDGRU(weights, device=torch.device("cpu"), threads=THREADS, **how)
    start = time.perf_counter(), time.process_time()
    probabilities = network(torch.from_numpy(window.copy())[None])[0]
    wall, seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{way:<12}{THREADS:>8}{seconds:>8.1f}{wall:>8.1f}{memory:>6.2f}", flush=True)
    np.save(place, probabilities.numpy())


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--one"]:
        one(*words[1:])
    else:
        main(words)
