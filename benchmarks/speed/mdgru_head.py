"""Time MD-GRU of the published size on whole heads by the command, with and without --region.

Weights are random, with a bias towards the background: the time does not depend on their values,
and labels that mean nothing are not measured. Each run is a new process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.common import BIDS_APP, BRAINSTEM_MODELS, Output, header, run
from benchmarks.engines import PUBLISHED, random_weights, with_slots, write_checkpoint

NAME = "mdgrurandom"
BACKGROUND_BIAS = (100.0, 0.0, 0.0, 0.0)
WAYS = ("--region", "")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("bids_dir", type=Path, help="BIDS dataset of whole heads")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="more options of bids_app")


def main(options: argparse.Namespace) -> None:
    """Install the model in a temporary folder, and print a line for each way."""
    bids_dir = options.bids_dir.resolve()
    with Output(options.out) as out, tempfile.TemporaryDirectory() as name:
        out(*header("random weights"))
        out(" ".join(["bids_app", bids_dir.name, "OUT participant --model", NAME,
                      *options.options]))  # fmt: skip
        out(f"{'':<10}{'wall s':>8}{'CPU s':>8}{'GiB':>6}{'load before':>13}")
        folder = Path(name)
        weights = with_slots(random_weights(PUBLISHED, last_offset=BACKGROUND_BIAS))
        write_checkpoint(folder / "checkpoint", weights)
        models = ["--models-dir", folder / "models"]
        words = ["import", "mars-mdgru", folder / "checkpoint", "--name", NAME, "--accept-licence"]
        run([*BRAINSTEM_MODELS, *words, *models])
        for way in WAYS:
            before = os.getloadavg()[0]
            output = folder / f"output{way}"
            command = [*BIDS_APP, bids_dir, output, "participant", "--model", NAME, *models]
            cost = run([*command, *filter(None, [way]), *options.options])
            cells = f"{cost.wall:>8.0f}{cost.cpu:>8.0f}{cost.gib:>6.2f}{before:>13.1f}"
            out(f"{way or 'exact':<10}{cells}")
