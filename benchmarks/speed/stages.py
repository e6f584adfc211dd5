"""Time the participant level by stage, one image and many, beside other programs; and draw it.

HEADS is a BIDS dataset of whole heads. V1_MODEL is an nnU-Net v1 model, which segments ten crops of
80 mm (``benchmarks speed nnunet-v1`` compares it with nnunet 1.7.1). nnunetv2's own predictor
segments the same crops with the same weights, in its own way of averaging. PYTHON is an interpreter
that has deepbet, which finds the brain and ships its weights: another task, on the same heads.

The seconds of a stage are wall seconds of one function, summed over images. Reading and writing
overlap with the network, so that stages may add up to more than the run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

from benchmarks.common import (
    REPOSITORY,
    Cost,
    Output,
    header,
    load,
    model_version,
    run,
    t1w_images,
)
from benchmarks.speed.instrumented import STAGES
from benchmarks.speed.nnunet_v1 import Crops

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

PICTURE = REPOSITORY / "docs" / "images" / "speed.png"
CROPS = 10
DEEPBET = """
import sys
from deepbet import run_bet
heads, folder = sys.argv[3:], sys.argv[1]
masks = [f"{folder}/{number}.nii.gz" for number in range(len(heads))]
run_bet(heads, mask_paths=masks, no_gpu=True)
"""
NNUNETV2 = """
import sys
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
torch.set_num_threads(int(sys.argv[3]))
if __name__ == "__main__":
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(sys.argv[2], None)
    predictor.predict_from_files_sequential([[i] for i in sys.argv[4:]], sys.argv[1])
"""


class Row(NamedTuple):
    """A run: title, number of images, wall seconds, and seconds by stage where known."""

    title: str
    images: int
    wall: float
    stages: Mapping[str, float]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("heads", type=Path)
    parser.add_argument("v1_model", type=Path)
    parser.add_argument("--deepbet", type=Path, metavar="PYTHON")
    parser.add_argument("--region", action="store_true", help="run the v1 model on a whole head")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="default: %(default)s")


def main(options: argparse.Namespace) -> None:
    """Print the table and draw the picture."""
    heads = t1w_images(options.heads)
    dataset = options.heads.resolve()
    labels = [path.name.split("_")[0] for path in heads]
    with Output(options.out) as out, tempfile.TemporaryDirectory() as name:
        out(*header(f"{model_version()}; v1 model: {options.v1_model.resolve().name}"))
        out(f"threads: {options.threads}", load("start"), "")
        folder = Path(name)
        crops = Crops(folder, options.v1_model, CROPS, options.threads)
        v1 = ["--model", str(crops.model)]
        table = Table(out, folder, options.threads)
        for few in (labels[:1], labels):
            table.run_app("open", dataset, few, [])
        for names in (crops.names[:1], crops.names):
            table.run_app("v1 model, crops", crops.dataset, names, v1)
        if options.region:
            table.run_app("v1 model, --region", dataset, labels[:1], [*v1, "--region"])
        images = [crops.image(label) for label in crops.names]
        for paths in (images[:1], images):
            title = "nnunetv2's predictor, crops"
            table.run_other(title, NNUNETV2, paths, sys.executable, str(crops.model))
        if options.deepbet:
            for paths in (heads[:1], heads):
                python = str(options.deepbet.absolute())
                table.run_other("deepbet (brain)", DEEPBET, paths, python, "none")
        draw(table.rows, options.picture)
        out("", load("end"))


class Table:
    """Runs, each printed when it is done.

    Parameters
    ----------
    out : Output
    folder : Path
        For what the runs write.
    threads : int

    Attributes
    ----------
    rows : list of Row
    """

    def __init__(self, out: Output, folder: Path, threads: int) -> None:
        self._out, self._folder, self._threads = out, folder, str(threads)
        self.rows: list[Row] = []
        stages = "".join(f"{stage:>17}" for stage in STAGES)
        out(f"{'run':<28}{'images':>7}{'wall s':>8}{'CPU s':>8}{'GiB':>6}{stages}")

    def run_app(
        self, title: str, dataset: Path, labels: Sequence[str], options: Sequence[str]
    ) -> None:
        """Run the participant level on some participants, with its stages."""
        output, stages = self._folder / f"output_{dataset.name}", self._folder / "stages.json"
        words = [dataset, output, "participant", "--skip-bids-validation", "--force", *options]
        words += ["--nprocs", self._threads, "--device", "cpu", "--participant-label", *labels]
        module = [sys.executable, "-m", "benchmarks.speed.instrumented", "stages"]
        cost = self._run([*module, stages, repr(time.time()), *words])
        self._add(title, len(labels), cost, json.loads(stages.read_text()))

    def run_other(
        self, title: str, code: str, images: Sequence[Path], python: str, model: str
    ) -> None:
        """Run another program on some images."""
        output = self._folder / "other"
        output.mkdir(exist_ok=True)
        script = self._folder / "other.py"
        script.write_text(code)
        threads = [self._threads] if code is NNUNETV2 else []
        cost = self._run([python, script, output, model, *threads, *images])
        self._add(title, len(images), cost, {})

    def _run(self, command: Sequence[object]) -> Cost:
        return run(command, {"OMP_NUM_THREADS": self._threads})

    def _add(self, title: str, images: int, cost: Cost, stages: Mapping[str, float]) -> None:
        total = sum(stages.values())
        cells = "".join(
            f"{stages[s]:>10.2f} ({stages[s] / total:>4.0%})" if stages else f"{'-':>17}"
            for s in STAGES
        )
        numbers = f"{cost.wall:>8.1f}{cost.cpu:>8.1f}{cost.gib:>6.2f}"
        self._out(f"{title:<28}{images:>7}{numbers}{cells}")
        self.rows.append(Row(title, images, cost.wall, stages))


def draw(rows: Sequence[Row], picture: Path) -> None:
    """Draw the seconds per image of all runs of several images, by stage where known."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    several = [row for row in reversed(rows) if row.images > 1]
    if not several:
        return
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(several) + 1.2), layout="constrained")
    colors = dict(zip(STAGES, mpl.color_sequences["tab10"], strict=False))
    for place, row in enumerate(several):
        left = 0.0
        for stage, seconds in row.stages.items():
            axes.barh(place, seconds / row.images, left=left, color=colors[stage])
            left += seconds / row.images
        if not row.stages:
            axes.barh(place, row.wall / row.images, color="0.6")
    for stage, color in colors.items():
        axes.barh(0, 0, color=color, label=stage)
    axes.barh(0, 0, color="0.6", label="all")
    axes.set_yticks(range(len(several)), [f"{row.title} ({row.images})" for row in several])
    axes.set_xlabel("seconds per image")
    axes.legend(fontsize=8)
    figure.savefig(picture, dpi=100, metadata={"Software": None})
