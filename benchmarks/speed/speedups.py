"""Time what each optimization saves: the app as it is, and without one of them.

First the first head of a BIDS dataset is segmented by the open model, from voxels to labels, on one
thread. Then the participant level runs on all heads, on two threads. Each variant runs in a process
of its own. Variants take turns; the median over turns is reported, and its ratio to the app as it
is: of CPU seconds for the single head, of wall seconds for all heads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import (
    REPOSITORY,
    Cost,
    Output,
    alternate,
    header,
    load,
    median_cost,
    model_version,
    t1w_images,
)
from benchmarks.speed.instrumented import (
    BASELINE,
    HEAD_THREADS,
    HEAD_VARIANTS,
    OPENVINO,
    RUN_THREADS,
    RUN_VARIANTS,
    SMALL_PAGES,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

THREADS = {"head": HEAD_THREADS, "run": RUN_THREADS}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("heads", type=Path, help="BIDS dataset of whole heads")
    parser.add_argument("--turns", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--tables", nargs="+", choices=list(THREADS), default=list(THREADS))
    parser.add_argument(
        "--only", nargs="+", metavar="VARIANT", choices=[*HEAD_VARIANTS, *RUN_VARIANTS],
        help="limit both tables to these variants, and to the app as it is",
    )  # fmt: skip


def main(options: argparse.Namespace) -> None:
    """Print the tables that were asked for."""
    heads = options.heads.resolve()

    def chosen(variants: Sequence[str]) -> list[str]:
        wanted = {BASELINE, *(options.only or variants)}
        return [n for n in variants if n in wanted and (n != OPENVINO or find_spec("openvino"))]

    with Output(options.out) as out:
        out(*header(model_version()), load("start"))
        out(f"median of {options.turns} turns")
        if "head" in options.tables:
            out("", f"{'one head, voxels to labels':<46}{'wall s':>8}{'CPU s':>8}{'ratio':>7}"
                "  labels that differ")  # fmt: skip
            compare_on_head(out, t1w_images(heads)[0], chosen(list(HEAD_VARIANTS)), options.turns)
        if "run" in options.tables:
            title = f"participant level, {len(t1w_images(heads))} heads"
            out("", f"{title:<46}{'wall s':>8}{'CPU s':>8}{'ratio':>7}  wall s by turn")
            compare_on_run(out, heads, chosen(list(RUN_VARIANTS)), options.turns)
        out("", load("end"))


def compare_on_head(out: Output, image: Path, names: Sequence[str], turns: int) -> None:
    """Print a row for each variant on a single head."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"{number}.npy") for number, name in enumerate(names)}
        variants = {name: partial(measure, "head", name, image, files[name]) for name in names}
        costs = {n: median_cost(found) for n, found in alternate(variants, turns).items()}
        expected = np.load(files[BASELINE])
        for name, cost in costs.items():
            differing = int((np.load(files[name]) != expected).sum())
            ratio = cost.cpu / costs[BASELINE].cpu
            out(f"{name:<46}{cost.wall:>8.2f}{cost.cpu:>8.2f}{ratio:>7.2f}{differing:>20}")


def compare_on_run(out: Output, heads: Path, names: Sequence[str], turns: int) -> None:
    """Print a row for each variant of the participant level."""
    found = alternate({name: partial(measure, "run", name, heads) for name in names}, turns)
    costs = {name: median_cost(own) for name, own in found.items()}
    for name, cost in costs.items():
        ratio = cost.wall / costs[BASELINE].wall
        by_turn = " ".join(f"{one.wall:.1f}" for one in found[name])
        out(f"{name:<46}{cost.wall:>8.2f}{cost.cpu:>8.2f}{ratio:>7.2f}  {by_turn}")


def measure(what: str, name: str, *paths: Path) -> Cost:
    """Run a variant in a new process; memory is not measured."""
    environment = {
        "OMP_NUM_THREADS": str(THREADS[what]),
        "THP_MEM_ALLOC_ENABLE": "0" if name == SMALL_PAGES else "1",
    }
    module = [sys.executable, "-m", "benchmarks.speed.instrumented"]
    done = subprocess.run(
        [*module, what, name, *map(str, paths)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return Cost(wall, cpu, 0)
