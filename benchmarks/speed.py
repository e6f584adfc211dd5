"""Time the app stage by stage, one image and many, beside other programs; make table and picture.

    python benchmarks/speed.py HEADS V1_MODEL [--deepbet PYTHON] [--region] > benchmarks/speed.txt

HEADS is a BIDS dataset of whole heads, V1_MODEL an nnU-Net v1 model, which segments ten crops of 80
mm (`benchmarks/nnunet_v1.py` sets it beside nnunet 1.7.1). nnunetv2's own predictor segments the
same crops with the same weights, in its own way of averaging. PYTHON is an interpreter that has
deepbet, which finds the brain and ships its weights: another task, on the same heads.

A run's stages are the seconds of the wall that each function took, summed over images. Reading and
writing go on beside the network, so the stages may add up to more than the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "test_data"), str(REPOSITORY)]

if TYPE_CHECKING:
    from collections.abc import Callable

    from cost import Cost

STAGES = ("start-up", "reading", "preparing", "network", "putting back", "writing")
PICTURE = REPOSITORY / "docs" / "images" / "speed.png"
BET = """
import sys
from deepbet import run_bet
heads, folder = sys.argv[3:], sys.argv[1]
masks = [f"{folder}/{number}.nii.gz" for number in range(len(heads))]
run_bet(heads, mask_paths=masks, no_gpu=True)
"""
STOCK = """
import sys
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
torch.set_num_threads(int(sys.argv[3]))
if __name__ == "__main__":
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(sys.argv[2], None)
    predictor.predict_from_files_sequential([[i] for i in sys.argv[4:]], sys.argv[1])
"""


def main() -> None:
    """Print the machine and the tables, and draw the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("heads", type=Path)
    parser.add_argument("v1_model", type=Path)
    parser.add_argument("--deepbet", type=Path)
    parser.add_argument("--region", action="store_true", help="the v1 model on whole heads, too")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    import torch
    from end_to_end import machine
    from nnunet_v1 import Bench

    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, torch {torch.__version__}")
    print(f"threads: {chosen.threads}; load at the start: {os.getloadavg()[0]:.1f}\n")
    heads = sorted(chosen.heads.glob("sub-*/anat/*_T1w.nii.gz"))
    labels = [path.name.split("_")[0] for path in heads]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        crops = Bench(
            folder,
            argparse.Namespace(
                nnunet_predict=Path("none"),
                model=chosen.v1_model,
                threads=chosen.threads,
                images=10,
            ),
        )
        v1 = ["--model", str(folder / "models/v1reference")]
        table = Table(folder, chosen.threads)
        for few in (labels[:1], labels):
            table.app("open", chosen.heads, few, [])
        for names in (crops.names[:1], crops.names):
            table.app("v1 model, crops", folder / "bids", names, v1)
        if chosen.region:
            table.app("v1 model, --region", chosen.heads, labels[:1], [*v1, "--region"])
        images = sorted((folder / "bids").glob("sub-*/anat/*.nii.gz"))
        for paths in (images[:1], images):
            table.other(
                "nnunetv2's predictor, crops",
                STOCK,
                paths,
                sys.executable,
                str(folder / "models/v1reference"),
            )
        if chosen.deepbet:
            for paths in (heads[:1], heads):
                table.other("deepbet (brain)", BET, paths, str(chosen.deepbet.absolute()), "none")
    table.draw()
    print(f"\nload at the end: {os.getloadavg()[0]:.1f}")


class Table:
    """Runs, each printed when it is done."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads, self._rows = folder, str(threads), []
        heads = "".join(f"{stage:>14}" for stage in STAGES)
        print(f"{'run':<28}{'images':>7}{'wall s':>8}{'CPU s':>8}{'GiB':>6}{heads}")

    def app(self, title: str, dataset: Path, labels: list[str], options: list[str]) -> None:
        """Run the participant level on some participants, with its stages."""
        output, stages = self._folder / f"output_{dataset.name}", self._folder / "stages.json"
        words = [dataset, output, "participant", "--skip-bids-validation", "--force", *options]
        words += ["--nprocs", self._threads, "--device", "cpu", "--participant-label", *labels]
        command = [sys.executable, __file__, "stages", stages, repr(time.time()), *words]
        self._add(title, len(labels), self._run(command), stages)

    def other(self, title: str, code: str, images: list[Path], python: str, model: str) -> None:
        """Run another program on some images."""
        output = self._folder / "other"
        output.mkdir(exist_ok=True)
        script = self._folder / "other.py"
        script.write_text(code)
        command = [python, script, output, model]
        command += [self._threads] if code is STOCK else []
        self._add(title, len(images), self._run([*command, *images]), None)

    def _run(self, command: list[str | Path]) -> Cost:
        from cost import run

        return run(command, {"OMP_NUM_THREADS": self._threads}, REPOSITORY)

    def _add(self, title: str, images: int, cost: Cost, stages: Path | None) -> None:
        seconds = json.loads(stages.read_text()) if stages else {}
        whole = sum(seconds.values())
        told = "".join(
            f"{seconds[s]:>7.2f} ({seconds[s] / whole:>3.0%})" if seconds else f"{'-':>14}"
            for s in STAGES
        )
        numbers = f"{cost.wall:>8.1f}{cost.cpu:>8.1f}{cost.memory / 2**30:>6.2f}"
        print(f"{title:<28}{images:>7}{numbers}{told}", flush=True)
        self._rows.append((title, images, cost.wall, seconds))

    def draw(self) -> None:
        """Draw the seconds an image of all runs of several images, by stage where known."""
        import matplotlib

        matplotlib.use("svg" if PICTURE.suffix == ".svg" else "agg")
        from matplotlib import pyplot as plt

        rows = [row for row in self._rows if row[1] > 1]
        figure, axes = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.2), layout="constrained")
        colours = plt.get_cmap("tab10").colors
        for place, (_, images, wall, seconds) in enumerate(reversed(rows)):
            left = 0.0
            for stage, colour in zip(STAGES, colours, strict=False):
                if seconds:
                    axes.barh(place, seconds[stage] / images, left=left, color=colour)
                    left += seconds[stage] / images
            if not seconds:
                axes.barh(place, wall / images, color="0.6")
        for stage, colour in zip(STAGES, colours, strict=False):
            axes.barh(0, 0, color=colour, label=stage)
        axes.barh(0, 0, color="0.6", label="all")
        axes.set_yticks(range(len(rows)), [f"{r[0]} ({r[1]})" for r in reversed(rows)])
        axes.set_xlabel("seconds an image")
        axes.legend(fontsize=8)
        figure.savefig(PICTURE, dpi=100, metadata={"Software": None})


def stages(output: Path, begun: float, words: list[str]) -> int:
    """Run the app in this process and write the seconds of its stages."""
    sys.argv[0] = "bids_app"
    from bids_app.cli import main as cli
    from bids_app.engines.nnunet.inference import NnUNet
    from bids_app.segmentation import segmenter as segment
    from bids_app.workflow import pipeline

    seconds = dict.fromkeys(STAGES, 0.0)
    lock = threading.Lock()

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                with lock:
                    seconds[stage] += time.perf_counter() - start

        return run

    load = segment.load_segmenters

    def loaded(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        finally:
            seconds["start-up"] = time.time() - begun

    changes: list[tuple[Any, str, Any]] = [
        (segment, "load_segmenters", loaded),
        (pipeline, "read_volume", timed("reading", pipeline.read_volume)),
        (NnUNet, "prepare", timed("preparing", NnUNet.prepare)),
        (NnUNet, "infer", timed("network", NnUNet.infer)),
        (NnUNet, "restore", timed("putting back", NnUNet.restore)),
        (pipeline, "write_image", timed("writing", pipeline.write_image)),
    ]
    for place, name, function in changes:
        setattr(place, name, function)
    status = cli.main(words)
    output.write_text(json.dumps(seconds))
    return status


if __name__ == "__main__":
    if sys.argv[1:2] == ["stages"]:
        sys.exit(stages(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
    main()
