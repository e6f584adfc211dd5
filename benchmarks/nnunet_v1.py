"""Run an nnU-Net v1 model with the real nnunet 1.7.1 and with this app, side by side.

    python benchmarks/nnunet_v1.py MODEL NNUNET_PREDICT > benchmarks/nnunet_v1.txt
    python benchmarks/nnunet_v1.py MODEL NNUNET_PREDICT --images 10 --threads 2 --turns 1

MODEL is an nnU-Net v1 model (a folder named ``<trainer>__<plans>``, or one above it),
NNUNET_PREDICT the command of an environment of its own, which today takes::

    python3 -m venv v1 && v1/bin/pip install torch==2.13.0 numpy==1.26.4 nnunet==1.7.1

Images are crops of a whole head, 80 mm along each axis at 1 mm: one, and several. The app segments
the one with ``brainstem-segment`` and the several with ``bids_app``, with all that it writes beside
label maps. nnunet segments them in one call, and in a call each, as the published command of
MARS-brainstem does, which takes one image. Both sides have the same threads for the network. Runs
are made in turns; the ratios are of those with less CPU time, as the wall's means less on a machine
with other work. Memory is the highest sum over all processes of a run, shared pages counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "test_data"), str(REPOSITORY)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from cost import Cost, run  # noqa: E402
from end_to_end import machine  # noqa: E402
from make_datasets import head  # noqa: E402

SIZE = 80  # voxels, one tile of the reference model
CORNERS = (
    *((60, 60, 10), (50, 70, 20), (70, 50, 30), (40, 80, 40), (65, 90, 60)),
    *((50, 60, 50), (75, 75, 15), (45, 85, 25), (55, 95, 35), (80, 65, 5)),
)


def main() -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("nnunet_predict", type=Path)
    parser.add_argument("--images", type=int, choices=range(2, len(CORNERS) + 1), default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    chosen = parser.parse_args()
    number = chosen.images
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, threads for the network: {chosen.threads}")
    print(f"load of the machine at the start: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), chosen)
        runs = {
            ("nnunet 1.7.1", 1): lambda: bench.original(bench.names[:1]),
            ("brainstem-segment", 1): bench.segment,
            ("nnunet 1.7.1, one call", number): lambda: bench.original(bench.names),
            ("nnunet 1.7.1, a call each", number): bench.original_each,
            ("bids_app", number): bench.app,
        }
        costs: dict[tuple[str, int], list[Cost]] = {title: [] for title in runs}
        print(f"{'run':<26}{'images':>7}{'wall s':>8}{'CPU s':>8}{'peak GiB':>10}")
        for _ in range(chosen.turns):
            for title, work in runs.items():
                cost = work()
                costs[title].append(cost)
                numbers = f"{cost.wall:>8.1f}{cost.cpu:>8.1f}{cost.memory / 2**30:>10.2f}"
                print(f"{title[0]:<26}{title[1]:>7}{numbers}", flush=True)
        best = {title: min(found, key=lambda cost: cost.cpu) for title, found in costs.items()}
        for ours, theirs in (
            (("brainstem-segment", 1), ("nnunet 1.7.1", 1)),
            (("bids_app", number), ("nnunet 1.7.1, one call", number)),
            (("bids_app", number), ("nnunet 1.7.1, a call each", number)),
        ):
            a, b = best[ours], best[theirs]
            print(
                f"{ours[0]} / {theirs[0]}: wall {a.wall / b.wall:.2f}, CPU {a.cpu / b.cpu:.2f}, "
                f"memory {a.memory / b.memory:.2f}"
            )
        print(f"voxels of other label, of {number * SIZE**3}: {bench.differing()}")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


class Bench:
    """Images, the model as both sides want it, and the runs."""

    def __init__(self, folder: Path, chosen: argparse.Namespace) -> None:
        self._folder, self._predict = folder, chosen.nnunet_predict.absolute()
        self._threads = str(chosen.threads)
        (plans,) = chosen.model.resolve().rglob("plans.pkl")
        self._kind = plans.parent.name
        place = folder / "results/nnUNet/3d_fullres/Task600_Brainstem"
        place.mkdir(parents=True)
        (place / self._kind).symlink_to(plans.parent)
        words = ["import", "v1reference", str(plans.parent), "--models-dir", str(folder / "models")]
        code = "import sys; from bids_app.cli.models import main; sys.exit(main())"
        self._run([sys.executable, "-c", code, *words])
        whole = head(voxel_size=1)
        self.names = [f"{number:02}" for number in range(1, chosen.images + 1)]
        for name, corner in zip(self.names, CORNERS, strict=False):
            box = tuple(slice(start, start + SIZE) for start in corner)
            place = folder / "bids" / f"sub-{name}" / "anat"
            place.mkdir(parents=True)
            nib.save(whole.slicer[box], place / f"sub-{name}_T1w.nii.gz")
        description = {"Name": "Crops", "BIDSVersion": "1.10.0", "License": "CC0"}
        (folder / "bids/dataset_description.json").write_text(json.dumps(description))

    def _image(self, name: str) -> Path:
        return self._folder / "bids" / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz"

    def original(self, names: list[str]) -> Cost:
        """Run nnunet once."""
        images = self._folder / "images"
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir()
        for name in names:
            (images / f"sub-{name}_0000.nii.gz").symlink_to(self._image(name))
        trainer, plans = self._kind.split("__")
        words = ["-i", images, "-o", self._folder / "theirs", "-t", "Task600_Brainstem"]
        words += ["-m", "3d_fullres", "-tr", trainer, "-p", plans, "--overwrite_existing"]
        return self._run([self._predict, *words])

    def original_each(self) -> Cost:
        """Run nnunet once an image."""
        first, *others = [self.original([name]) for name in self.names]
        return sum(others, first)

    def segment(self) -> Cost:
        """Run the app on one image, without BIDS."""
        code = "import sys; from bids_app.cli.segment import main; sys.exit(main())"
        words = [self._image("01"), "-x", "-d", self._folder / "single", "--threads", self._threads]
        return self._run([sys.executable, "-c", code, *words, *self._chosen()])

    def app(self) -> Cost:
        """Run the app on the dataset."""
        words = [
            self._folder / "bids",
            self._folder / "ours",
            "participant",
            "--nprocs",
            self._threads,
        ]
        skipped = ["--skip-bids-validation"]  # nnunet checks no dataset either
        return self._run(
            [sys.executable, "-m", "bids_app", *words, "--force", *skipped, *self._chosen()]
        )

    def _chosen(self) -> list[str]:
        return ["--device", "cpu", "--model", str(self._folder / "models/v1reference")]

    def differing(self) -> int:
        """Count voxels that are labelled otherwise."""
        number = 0
        for name in self.names:
            theirs = labels(self._folder / "theirs" / f"sub-{name}.nii.gz")
            (ours,) = (self._folder / "ours").rglob(f"sub-{name}_*_dseg.nii.gz")
            number += int((labels(ours) != theirs).sum())
        return number

    def _run(self, command: list[str | Path]) -> Cost:
        places = {"RESULTS_FOLDER": "results", "nnUNet_raw_data_base": "raw"}
        places |= {"nnUNet_preprocessed": "preprocessed"}
        # nnunet 1.7.1 loads its checkpoints as torch did before version 2.6.
        settings = {"OMP_NUM_THREADS": self._threads, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        settings |= {key: str(self._folder / name) for key, name in places.items()}
        return run(command, settings, REPOSITORY)


def labels(path: Path) -> np.ndarray:
    """Read a label map."""
    return np.asarray(nib.load(path).dataobj)


if __name__ == "__main__":
    main()
