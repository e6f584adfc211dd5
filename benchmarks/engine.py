"""Time the nnU-Net engine: its start, and the steps on a box of the open model's size.

    python benchmarks/engine.py > benchmarks/engine.txt

Networks have random weights, which costs the same as trained ones. The box is 96 mm of a whole head
at 1 x 1.33 x 1.33 mm, so that it is resampled both ways; mirroring is left-right. CPU seconds are
those of all threads together; they say more than the wall's on a machine that has other work.
"""

from __future__ import annotations

import os
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
from make_fixture_model import write_random_model  # noqa: E402

from bids_app.engines.nnunet.inference import NnUNet  # noqa: E402

FEATURES = ((8, 16, 32, 64, 128), (16, 32, 64, 128, 160))
LABELS = ("background", "midbrain", "pons", "medulla", "cord")
SPACING = (1.33, 1.33, 1.0)  # along z, y, x
BOX = (slice(20, 92), slice(50, 122), slice(40, 136))
START = """
import sys, time
from pathlib import Path
import torch
torch_done = time.process_time()
from bids_app.engines.nnunet.inference import NnUNet
imports_done = time.process_time()
NnUNet(Path(sys.argv[1]), device=torch.device("cpu"))
print(torch_done, imports_done, time.process_time())
"""


def main() -> None:
    """Print the machine, the start and the table."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folders = {}
        for features in FEATURES:
            folders[features] = write_random_model(
                Path(name) / str(features[0]),
                folds=1,
                labels=LABELS,
                patch_size=(96, 96, 96),
                features=features,
                mirror_axes=(2,),
            )
        start(folders[FEATURES[0]])
        z, y, x = SPACING
        image = np.asarray(head(voxel_size=(x, y, z)).dataobj, dtype=np.float32).T[BOX]
        print(f"{'features':<22}{'threads':>8}{'step':>9}{'wall s':>8}{'CPU s':>8}")
        for features, folder in folders.items():
            for threads in (1, 2):
                steps("-".join(map(str, features)), folder, image, threads)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


def start(folder: Path) -> None:
    """Print what it takes until a model can be used, in a process of its own."""
    begun = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", START, str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - begun
    torch_done, imports_done, loaded = map(float, run.stdout.split())
    print(
        f"start: {loaded:.1f} CPU s (torch {torch_done:.1f}, other imports "
        f"{imports_done - torch_done:.1f}, model {loaded - imports_done:.1f}), {wall:.1f} s wall"
    )


def steps(title: str, folder: Path, image: np.ndarray, threads: int) -> None:
    """Print the fastest of three rounds of each step, by CPU time."""
    torch.set_num_threads(threads)
    engine = NnUNet(folder, device=torch.device("cpu"), averaging="softmax")
    rounds = []
    for _ in range(3):
        clock = [now()]
        prepared = engine.prepare(image, SPACING)
        clock.append(now())
        output = engine.infer(prepared).mean
        clock.append(now())
        engine.restore(output, prepared)
        clock.append(now())
        rounds.append(np.diff(clock, axis=0))
    for i, step in enumerate(("prepare", "infer", "restore")):
        wall, cpu = min((r[i] for r in rounds), key=lambda pair: float(pair[1]))
        print(f"{title:<22}{threads:>8}{step:>9}{wall:>8.2f}{cpu:>8.2f}")


def now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
