"""Time the participant level as a user starts it: start-up, each image, peak memory.

Two runs, each into a new output folder: the first participant alone, then the whole dataset.
Start-up is the time from the command to the line that names the device, when the dataset is indexed
and the models are loaded.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

from benchmarks.common import (
    BIDS_APP,
    Output,
    header,
    load,
    model_version,
    run,
    t1w_images,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("bids_dir", type=Path, help="BIDS dataset of whole heads")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="more options of bids_app, for both runs"
    )


def main(options: argparse.Namespace) -> None:
    """Print both runs."""
    bids_dir = options.bids_dir.resolve()
    first = t1w_images(bids_dir)[0].name.split("_")[0].removeprefix("sub-")
    model = "open"
    if "--model" in options.options:
        model = options.options[options.options.index("--model") + 1]
    with Output(options.out) as out:
        out(*header(model_version(model)))
        for words in (["--participant-label", first], []):
            out("")
            time_run(out, bids_dir, [*options.options, *words])


def time_run(out: Output, bids_dir: Path, options: list[str]) -> None:
    """Run the participant level once and print what it took."""
    out(f"bids_app {bids_dir.name} OUT participant {' '.join(options)}")
    startup = math.nan

    def report(line: str) -> None:
        nonlocal startup
        seconds = time.perf_counter() - begun
        if line.startswith("Device:"):
            startup = seconds
        if line.startswith(("Device:", "[")):
            out(f"{seconds:7.1f} s  {line}")

    with tempfile.TemporaryDirectory() as output:
        command = [*BIDS_APP, bids_dir, output, "participant", *options]
        begun = time.perf_counter()
        cost = run(command, {"PYTHONUNBUFFERED": "1"}, on_line=report)
    out(f"start-up {startup:.1f} s, after it {cost.wall - startup:.1f} s, total {cost.wall:.1f} s")
    out(f"CPU {cost.cpu:.1f} s, peak memory {cost.gib:.2f} GiB", load("end"))
