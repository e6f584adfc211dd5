"""Time an nnU-Net v1 model in nnunet 1.7.1 and in this app, side by side.

MODEL is an nnU-Net v1 model: a folder named ``<trainer>__<plans>``, or one above it. NNUNET_PREDICT
is the command of an environment of its own::

    python3 -m venv v1 && v1/bin/pip install torch==2.13.0 numpy==1.26.4 nnunet==1.7.1

Images are crops of a whole head, 80 mm along each axis at 1 mm. The app segments one of them with
``brainstem-segment`` and all with ``bids_app``, with everything that it writes beside label maps.
nnunet segments all in one call, and in a call each, as the published command of MARS-brainstem
does, which takes one image. Both sides use the same number of threads for the network. Runs take
turns. Ratios are between the runs with the least CPU time, as wall time means less on a machine
with other work.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from benchmarks.common import (
    BIDS_APP,
    BRAINSTEM_MODELS,
    BRAINSTEM_SEGMENT,
    Cost,
    Output,
    describe_dataset,
    header,
    image_path,
    load,
    run,
)
from benchmarks.engines import head

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIZE = 80  # voxels, one tile of the reference model
CORNERS = (
    *((60, 60, 10), (50, 70, 20), (70, 50, 30), (40, 80, 40), (65, 90, 60)),
    *((50, 60, 50), (75, 75, 15), (45, 85, 25), (55, 95, 35), (80, 65, 5)),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("model", type=Path)
    parser.add_argument("nnunet_predict", type=Path)
    parser.add_argument("--images", type=int, choices=range(2, len(CORNERS) + 1), default=10)
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=2, help="default: %(default)s")


def main(options: argparse.Namespace) -> None:
    """Print the runs, the ratios and the number of voxels that differ."""
    number = options.images
    with Output(options.out) as out, tempfile.TemporaryDirectory() as name:
        out(*header(f"nnU-Net v1, {options.model.resolve().name}"))
        out(f"threads for the network: {options.threads}", load("start"))
        crops = Crops(Path(name), options.model, number, options.threads)
        original = Original(crops, options.nnunet_predict.absolute())
        runs = {
            ("nnunet 1.7.1", 1): lambda: original.predict(crops.names[:1]),
            ("brainstem-segment", 1): crops.segment_first,
            ("nnunet 1.7.1, one call", number): lambda: original.predict(crops.names),
            ("nnunet 1.7.1, a call each", number): original.predict_each,
            ("bids_app", number): crops.segment_all,
        }
        costs: dict[tuple[str, int], list[Cost]] = {title: [] for title in runs}
        out(f"{'run':<26}{'images':>7}{'wall s':>8}{'CPU s':>8}{'peak GiB':>10}")
        for _ in range(options.turns):
            for title, work in runs.items():
                cost = work()
                costs[title].append(cost)
                cells = f"{cost.wall:>8.1f}{cost.cpu:>8.1f}{cost.gib:>10.2f}"
                out(f"{title[0]:<26}{title[1]:>7}{cells}")
        best = {title: min(found, key=lambda cost: cost.cpu) for title, found in costs.items()}
        for ours, theirs in (
            (("brainstem-segment", 1), ("nnunet 1.7.1", 1)),
            (("bids_app", number), ("nnunet 1.7.1, one call", number)),
            (("bids_app", number), ("nnunet 1.7.1, a call each", number)),
        ):
            a, b = best[ours], best[theirs]
            out(
                f"{ours[0]} / {theirs[0]}: wall {a.wall / b.wall:.2f}, CPU {a.cpu / b.cpu:.2f}, "
                f"memory {a.memory / b.memory:.2f}"
            )
        differing = original.count_differing(crops.output)
        out(f"voxels with another label, of {number * SIZE**3}: {differing}", load("end"))


class Crops:
    """Crops of a head as a BIDS dataset, and an nnU-Net v1 model imported into the app.

    Parameters
    ----------
    folder : Path
        Where all of it is written.
    model : Path
        The nnU-Net v1 model, or a folder above it.
    images : int
        Number of crops.
    threads : int
        For the network.

    Attributes
    ----------
    names : list of str
        Participants.
    dataset, output, model : Path
        The dataset, what `segment_all` writes, and the imported model.
    original : Path
        The folder of the nnU-Net v1 model.
    """

    def __init__(self, folder: Path, model: Path, images: int, threads: int) -> None:
        (plans,) = model.resolve().rglob("plans.pkl")
        self.folder, self.threads, self.original = folder, threads, plans.parent
        self.dataset, self.output = folder / "bids", folder / "ours"
        self.model = folder / "models/v1reference"
        words = ["import", "v1reference", self.original, "--models-dir", folder / "models"]
        run([*BRAINSTEM_MODELS, *words])
        whole = head(voxel_size=1)
        self.names = [f"{number:02}" for number in range(1, images + 1)]
        describe_dataset(self.dataset, "Crops")
        for name, corner in zip(self.names, CORNERS, strict=False):
            box = tuple(slice(start, start + SIZE) for start in corner)
            nib.save(whole.slicer[box], image_path(self.dataset, name))

    def image(self, name: str) -> Path:
        """Return the path of a crop."""
        return self.dataset / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz"

    def segment_first(self) -> Cost:
        """Segment the first crop, without BIDS."""
        words = [self.image("01"), "-x", "-d", self.folder / "single"]
        words += ["--threads", str(self.threads), "--device", "cpu", "--model", self.model]
        return run([*BRAINSTEM_SEGMENT, *words], self._environment())

    def segment_all(self) -> Cost:
        """Run the participant level on all crops; validation is off, as nnunet has none."""
        words = [self.dataset, self.output, "participant", "--nprocs", str(self.threads)]
        words += ["--force", "--skip-bids-validation", "--device", "cpu", "--model", self.model]
        return run([*BIDS_APP, *words], self._environment())

    def _environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(self.threads)}


class Original:
    """The same crops and model in nnunet 1.7.1.

    Parameters
    ----------
    crops : Crops
    command : Path
        ``nnUNet_predict``.
    """

    def __init__(self, crops: Crops, command: Path) -> None:
        self._crops, self._command = crops, command
        folder = crops.folder
        self._trainer, self._plans = crops.original.name.split("__")
        place = folder / "results/nnUNet/3d_fullres/Task600_Brainstem"
        place.mkdir(parents=True)
        (place / crops.original.name).symlink_to(crops.original)
        self._output = folder / "theirs"
        self._environment = {
            "OMP_NUM_THREADS": str(crops.threads),
            # nnunet 1.7.1 loads its checkpoints as torch did before version 2.6.
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
            "RESULTS_FOLDER": str(folder / "results"),
            "nnUNet_raw_data_base": str(folder / "raw"),
            "nnUNet_preprocessed": str(folder / "preprocessed"),
        }

    def predict(self, names: Sequence[str]) -> Cost:
        """Run nnunet once on some crops."""
        images = self._crops.folder / "images"
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir()
        for name in names:
            (images / f"sub-{name}_0000.nii.gz").symlink_to(self._crops.image(name))
        words = ["-i", images, "-o", self._output, "-t", "Task600_Brainstem", "-m", "3d_fullres"]
        words += ["-tr", self._trainer, "-p", self._plans, "--overwrite_existing"]
        return run([self._command, *words], self._environment)

    def predict_each(self) -> Cost:
        """Run nnunet once for each crop."""
        first, *others = [self.predict([name]) for name in self._crops.names]
        return sum(others, first)

    def count_differing(self, output: Path) -> int:
        """Count voxels that have another label in the app's output folder."""
        number = 0
        for name in self._crops.names:
            theirs = read_labels(self._output / f"sub-{name}.nii.gz")
            (ours,) = output.rglob(f"sub-{name}_*_dseg.nii.gz")
            number += int((read_labels(ours) != theirs).sum())
        return number


def read_labels(path: Path) -> NDArray[np.generic]:
    """Read a label map."""
    return np.asarray(nib.load(path).dataobj)
