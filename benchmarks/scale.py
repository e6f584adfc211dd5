"""Time and memory of the participant level against the number of heads and their size.

    python benchmarks/scale.py HEADS > benchmarks/scale.txt

HEADS is a BIDS dataset of whole heads: runs of 1, 10 and 100 take them in turn. Sizes are one head,
resampled to voxels of 2, 1 and 0.5 mm; the last, of 448 x 512 x 512, is what 7 T gives. Memory is
the highest sum over all processes of a run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from cost import run  # noqa: E402
from end_to_end import machine  # noqa: E402
from nibabel.processing import resample_from_to  # noqa: E402

NUMBERS = (1, 10, 100)
SIZES = {2.0: (112, 128, 128), 1.0: (224, 256, 256), 0.5: (448, 512, 512)}
THREADS = "2"


def main() -> None:
    """Print the machine and the two tables."""
    heads = sorted(Path(sys.argv[1]).glob("sub-*/anat/*_T1w.nii.gz"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, threads: {THREADS}, model open")
    print(f"load at the start: {os.getloadavg()[0]:.1f}")
    print(f"{'run':<24}{'wall s':>8}{'a head':>8}{'CPU s':>8}{'GiB':>6}")
    for number in NUMBERS:
        with tempfile.TemporaryDirectory() as name:
            for i in range(number):
                put(Path(name), i).symlink_to(heads[i % len(heads)].resolve())
            tell(f"{number} heads", Path(name), number)
    image = nib.load(heads[0])
    for edge, shape in SIZES.items():
        with tempfile.TemporaryDirectory() as name:
            affine = np.diag([edge, edge, edge, 1.0])
            middle = image.affine @ [*((n - 1) / 2 for n in image.shape), 1]
            affine[:3, 3] = middle[:3] - edge * (np.array(shape) - 1) / 2
            nib.save(resample_from_to(image, (shape, affine), order=1), put(Path(name), 0))
            tell(f"{edge} mm, {' x '.join(map(str, shape))}", Path(name), 1)
    print(f"load at the end: {os.getloadavg()[0]:.1f}")


def put(folder: Path, number: int) -> Path:
    """Make room in a dataset for a participant's image and name it."""
    (folder / "dataset_description.json").write_text(
        json.dumps({"Name": "Heads", "BIDSVersion": "1.10.0", "License": "CC0"})
    )
    label = f"sub-{number + 1:03}"
    place = folder / label / "anat"
    place.mkdir(parents=True)
    return place / f"{label}_T1w.nii.gz"


def tell(title: str, dataset: Path, number: int) -> None:
    """Run the app on a dataset and print what it took."""
    with tempfile.TemporaryDirectory() as output:
        words = [dataset, output, "participant", "--skip-bids-validation", "--nprocs", THREADS]
        command = [sys.executable, "-m", "bids_app", *words, "--device", "cpu"]
        cost = run(command, {}, REPOSITORY)
    numbers = f"{cost.wall:>8.1f}{cost.wall / number:>8.2f}{cost.cpu:>8.1f}"
    print(f"{title:<24}{numbers}{cost.memory / 2**30:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
