"""Time and memory of the participant level against the number of heads and their size.

Runs of 1, 10 and 100 heads repeat those of the dataset. Sizes are its first head, resampled to
voxels of 2, 1 and 0.5 mm; 448 x 512 x 512 is the size of an image at 7 T.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

from benchmarks.common import (
    BIDS_APP,
    Output,
    describe_dataset,
    header,
    image_path,
    load,
    model_version,
    run,
    t1w_images,
)

if TYPE_CHECKING:
    import argparse

NUMBERS = (1, 10, 100)
SHAPES = {2.0: (112, 128, 128), 1.0: (224, 256, 256), 0.5: (448, 512, 512)}
THREADS = "2"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("heads", type=Path, help="BIDS dataset of whole heads")
    parser.add_argument("--numbers", type=int, nargs="*", default=NUMBERS, help="of heads")
    parser.add_argument("--edges", type=float, nargs="*", choices=SHAPES, default=list(SHAPES),
                        help="of voxels, mm")  # fmt: skip


def main(options: argparse.Namespace) -> None:
    """Print the two tables."""
    heads = t1w_images(options.heads)
    with Output(options.out) as out:
        out(*header(model_version()), f"threads: {THREADS}", load("start"))
        out(f"{'run':<24}{'wall s':>8}{'per head':>10}{'CPU s':>8}{'GiB':>6}")
        for number in options.numbers:
            with tempfile.TemporaryDirectory() as name:
                describe_dataset(Path(name), "Heads")
                for i in range(number):
                    path = image_path(Path(name), f"{i + 1:03}")
                    path.symlink_to(heads[i % len(heads)])
                time_run(out, f"{number} heads", Path(name), number)
        image = nib.load(heads[0])
        for edge in options.edges:
            shape = SHAPES[edge]
            with tempfile.TemporaryDirectory() as name:
                describe_dataset(Path(name), "Heads")
                affine = np.diag([edge, edge, edge, 1.0])
                middle = image.affine @ [*((n - 1) / 2 for n in image.shape), 1]
                affine[:3, 3] = middle[:3] - edge * (np.array(shape) - 1) / 2
                resampled = resample_from_to(image, (shape, affine), order=1)
                nib.save(resampled, image_path(Path(name), "001"))
                time_run(out, f"{edge} mm, {' x '.join(map(str, shape))}", Path(name), 1)
        out(load("end"))


def time_run(out: Output, title: str, dataset: Path, number: int) -> None:
    """Run the app on a dataset and print what it took."""
    with tempfile.TemporaryDirectory() as output:
        words = [dataset, output, "participant", "--skip-bids-validation", "--nprocs", THREADS]
        cost = run([*BIDS_APP, *words, "--device", "cpu"])
    cells = f"{cost.wall:>8.1f}{cost.wall / number:>10.2f}{cost.cpu:>8.1f}{cost.gib:>6.2f}"
    out(f"{title:<24}{cells}")
