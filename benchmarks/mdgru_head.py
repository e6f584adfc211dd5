"""Time MD-GRU of the published size on whole heads through the command, exact and with --region.

    python benchmarks/mdgru_head.py BIDS_DIR [options of bids_app ...] > benchmarks/mdgru_head.txt

Weights are random, with a bias for the background: what is timed does not hang on their values, and
no measure is taken of labels that mean nothing. Each run is a new process in a folder of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "test_data"), str(REPOSITORY)]

import cost  # noqa: E402
import torch  # noqa: E402
from end_to_end import machine  # noqa: E402
from make_mdgru_model import random_weights, with_slots, write_checkpoint  # noqa: E402

from bids_app.engines.mdgru.layout import PUBLISHED  # noqa: E402

NAME = "mdgrurandom"
FOR_BACKGROUND = (100.0, 0.0, 0.0, 0.0)
WAYS = (["--region"], [])


def main(bids_dir: str, options: list[str]) -> None:
    """Install the model in a temporary folder, and print a line for each way."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, torch {torch.__version__}")
    print("bids_app", Path(bids_dir).name, "OUT participant --model", NAME, *options)
    print(f"{'':<10}{'wall s':>8}{'CPU s':>8}{'GiB':>6}{'load before':>13}", flush=True)
    settings = {"PYTHONPATH": str(REPOSITORY)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = with_slots(random_weights(PUBLISHED, last_offset=FOR_BACKGROUND))
        write_checkpoint(folder / "checkpoint", weights)
        models = ["--models-dir", folder / "models"]
        command = "import sys; from bids_app.cli.models import main; sys.exit(main())"
        words = ["import", "mars-mdgru", folder / "checkpoint", "--name", NAME, "--accept-licence"]
        cost.run([sys.executable, "-c", command, *words, *models], settings, folder)
        for way in WAYS:
            load = os.getloadavg()[0]
            output = folder / f"output{''.join(way)}"
            run = [sys.executable, "-m", "bids_app", Path(bids_dir).resolve(), output]
            run += ["participant", "--model", NAME, *models, *way, *options]
            took = cost.run(run, settings, folder)
            cells = f"{took.wall:>8.0f}{took.cpu:>8.0f}{took.memory / 2**30:>6.2f}{load:>13.1f}"
            print(f"{' '.join(way) or 'exact':<10}{cells}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
