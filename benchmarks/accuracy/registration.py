"""Propagate labels and brain masks by plain registration; needs the extra ``train``.

``accuracy evaluate`` compares the model with these labels. For each test head one training head of
the same source is registered to it, and its labels are propagated; the n-th test head gets the n-th
training head. Both images are cropped to their nonzero voxels; nothing is stripped or masked. The
method is ``antsRegistrationSyNQuick[s]`` of antspyx (affine, then SyN with mutual information),
with ``genericLabel`` for labels: what a user without a model would do.

For whole heads the brain mask of the template is propagated the same way and dilated by 2 mm.
Existing files are kept. A registration takes two to three minutes on one core. The scores of all
propagated labels are written to ``accuracy_registered.tsv``.
"""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks.accuracy.agreement import MEASURES
from benchmarks.accuracy.runs import read_head
from benchmarks.common import OUTPUTS
from training.cases import MEDULLA, read_split
from training.evaluate import VALUES, HeldOut, score
from training.heads import TEMPLATE

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

STRIP_MARGIN_MM = 2.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.set_defaults(out=OUTPUTS / "accuracy_registered.tsv")
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data")
    parser.add_argument("--maps", type=Path, required=True, help="folder for label maps and masks")
    parser.add_argument("--heads", nargs="+", help="default: all of the test part")


def main(options: argparse.Namespace) -> None:
    """Make the maps that are not there yet, and score all of them."""
    import ants

    options.maps.mkdir(parents=True, exist_ok=True)
    ants.config.set_ants_deterministic(on=True, seed_value=1)
    for target, source in pairs().items():
        if target not in (options.heads or pairs()):
            continue
        begun = time.perf_counter()
        plain, mask = (
            options.maps / f"{target}_plain.nii.gz",
            options.maps / f"{target}_brain.nii.gz",
        )
        if not plain.exists():
            head, other = (read_head(name, options.data) for name in (target, source))
            save(propagate_labels(head, other), head, plain)
        if target.startswith("ds011") and not mask.exists():
            head = read_head(target, options.data)
            save(propagate_mask(head, options.data), head, mask)
        print(f"{target} from {source}: {time.perf_counter() - begun:.0f} s", flush=True)
    write_scores(options.data, options.maps, options.out)


def write_scores(data: Path, maps: Path, table: Path) -> None:
    """Score the labels that were propagated to test heads, in the order of the split."""
    with table.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["head", "region", *(key for key, _ in MEASURES.values())])
        for target in pairs():
            if (path := maps / f"{target}_plain.nii.gz").exists():
                head = read_head(target, data)
                labels = np.asarray(nib.load(path).dataobj).astype(np.uint8)
                rows = score(labels, head.truth, head.loose, head.volume.voxel_size)
                for region, row in zip(VALUES, rows, strict=True):
                    cells = [f"{row[key]:.{digits}f}" for key, digits in MEASURES.values()]
                    writer.writerow([target, region, *cells])


def pairs() -> dict[str, str]:
    """Return the training head whose labels are propagated to each test head."""
    split = read_split()
    found: dict[str, str] = {}
    for source in dict.fromkeys(name.split("_")[0] for name in split["test"]):
        tests, trained = (
            [name for name in split[part] if name.startswith(f"{source}_")]
            for part in ("test", "train")
        )
        found.update(zip(tests, trained, strict=False))
    return found


def propagate_labels(target: HeldOut, source: HeldOut) -> NDArray[Any]:
    """Propagate the labels of one head to another."""
    labels = np.where(source.truth <= MEDULLA, source.truth, 0).astype(np.float32)
    volume = target.volume
    return propagate(
        (volume.data, volume.affine),
        (source.volume.data, source.volume.affine),
        labels,
        "genericLabel",
    )


def propagate_mask(target: HeldOut, data: Path) -> NDArray[Any]:
    """Propagate the template's brain mask to a whole head, and dilate it."""
    template = nib.load(data / f"{TEMPLATE}.nii.gz")
    mask = nib.load(data / f"{TEMPLATE}_mask.nii.gz")
    volume = target.volume
    brain = propagate(
        (volume.data, volume.affine),
        (template.get_fdata(dtype=np.float32), template.affine),
        mask.get_fdata(dtype=np.float32),
        "nearestNeighbor",
    )
    away = ndimage.distance_transform_edt(brain == 0, sampling=volume.voxel_size)
    return (away <= STRIP_MARGIN_MM).astype(np.uint8)


def propagate(
    fixed: tuple[NDArray[Any], NDArray[Any]],
    moving: tuple[NDArray[Any], NDArray[Any]],
    labels: NDArray[Any],
    interpolator: str,
) -> NDArray[Any]:
    """Register an image (voxels, affine) to another, and return its labels on the fixed grid."""
    window = box(fixed[0])
    still, moved = ants_image(*crop(*fixed, window)), ants_image(*crop(*moving, box(moving[0])))
    import ants

    with tempfile.TemporaryDirectory() as folder:
        found = ants.registration(
            still, moved, "antsRegistrationSyNQuick[s]", outprefix=f"{folder}/", random_seed=1
        )
        propagated = ants.apply_transforms(
            still, ants_image(labels, moving[1]), found["fwdtransforms"], interpolator=interpolator
        )
    whole = np.zeros(fixed[0].shape, np.uint8)
    whole[window] = np.round(propagated.numpy())
    return whole


def box(data: NDArray[Any]) -> tuple[slice, ...]:
    """Return the bounding box of the nonzero voxels."""
    filled = np.argwhere(data > 0)
    return tuple(
        slice(int(a), int(b) + 1) for a, b in zip(filled.min(0), filled.max(0), strict=True)
    )


def crop(
    data: NDArray[Any], affine: NDArray[Any], window: tuple[slice, ...]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Crop an image to a box; return its voxels and its affine."""
    origin = affine.copy()
    origin[:3, 3] += affine[:3, :3] @ [axis.start for axis in window]
    return data[window], origin


def ants_image(data: NDArray[Any], affine: NDArray[Any]) -> Any:
    """Convert to an ANTs image."""
    import ants

    return ants.from_nibabel_nifti(nib.Nifti1Image(data, affine))


def save(labels: NDArray[Any], head: HeldOut, path: Path) -> None:
    """Write a map on the RAS grid of a head; an interrupted run leaves no partial file."""
    part = path.with_name(f"part_{path.name}")
    nib.save(nib.Nifti1Image(labels, head.volume.affine), part)
    part.rename(path)
