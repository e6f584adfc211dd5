"""Make what `accuracy.py` compares with by plain registration; needs the extra `train`.

    python benchmarks/accuracy_registered.py --data DATA --out FOLDER [--heads NAME ...]

For each test head one training head of the same source is registered to it and its labels are
carried over; the n-th test head gets the n-th training head. Both images are cut to the box of
their non-zero voxels, whole heads stay whole, nothing is stripped or masked:
``antsRegistrationSyNQuick[s]`` of antspyx (affine, then SyN with mutual information), labels by
``genericLabel``. This is what a user without a model would do, and the recipe with which the data
came. For whole heads the brain mask of the template is carried over the same way and widened by
2 mm, to strip their skulls. What is there already is kept. Two to three minutes a registration on
one core. The scores of all carried labels are written to ``accuracy_registered.tsv`` beside this
file, where `accuracy.py` reads them.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import ants  # noqa: E402
import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from accuracy_agreement import MEASURES  # noqa: E402
from scipy import ndimage  # noqa: E402

from training.cases import MEDULLA, read_split  # noqa: E402
from training.evaluate import VALUES, HeldOut, read_held_out, score  # noqa: E402
from training.heads import TEMPLATE  # noqa: E402

LABELS = REPOSITORY / "training" / "labels_v1"
STRIP_MARGIN_MM = 2.0


def main() -> None:
    """Make the maps that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", nargs="+", help="default: all of the test part")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ants.config.set_ants_deterministic(on=True, seed_value=1)
    for target, source in pairs().items():
        if target not in (options.heads or pairs()):
            continue
        begun = time.perf_counter()
        plain, mask = options.out / f"{target}_plain.nii.gz", options.out / f"{target}_brain.nii.gz"
        if not plain.exists():
            heads = [read_held_out(name, options.data, LABELS) for name in (target, source)]
            assert heads[0] is not None
            assert heads[1] is not None
            save(carry_labels(*heads), heads[0], plain)
        if target.startswith("ds011") and not mask.exists():
            head = read_held_out(target, options.data, LABELS)
            assert head is not None
            save(carry_mask(head, options.data), head, mask)
        print(f"{target} from {source}: {time.perf_counter() - begun:.0f} s", flush=True)
    write_scores(options.data, options.out)


def write_scores(data: Path, carried: Path) -> None:
    """Score the labels that were carried to test heads, in the order of the split."""
    with Path(__file__).with_name("accuracy_registered.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["head", "region", *(key for key, _ in MEASURES.values())])
        for target in pairs():
            if (path := carried / f"{target}_plain.nii.gz").exists():
                head = read_held_out(target, data, LABELS)
                assert head is not None
                labels = np.asarray(nib.load(path).dataobj).astype(np.uint8)
                rows = score(labels, head.truth, head.loose, head.volume.voxel_size)
                for region, row in zip(VALUES, rows, strict=True):
                    cells = [f"{row[key]:.{digits}f}" for key, digits in MEASURES.values()]
                    writer.writerow([target, region, *cells])


def pairs() -> dict[str, str]:
    """Name the training head of the same source that is carried over to each test head."""
    split = read_split()
    found = {}
    for source in dict.fromkeys(name.split("_")[0] for name in split["test"]):
        tests, trained = (
            [name for name in split[part] if name.startswith(f"{source}_")]
            for part in ("test", "train")
        )
        found.update(zip(tests, trained, strict=False))
    return found


def carry_labels(target: HeldOut, source: HeldOut) -> np.ndarray:
    """Carry the labels of one head to another."""
    labels = np.where(source.truth <= MEDULLA, source.truth, 0).astype(np.float32)
    volume = target.volume
    return carry(
        (volume.data, volume.affine),
        (source.volume.data, source.volume.affine),
        labels,
        "genericLabel",
    )


def carry_mask(target: HeldOut, data: Path) -> np.ndarray:
    """Carry the template's brain mask to a whole head, and widen it."""
    template = nib.load(data / f"{TEMPLATE}.nii.gz")
    mask = nib.load(data / f"{TEMPLATE}_mask.nii.gz")
    volume = target.volume
    brain = carry(
        (volume.data, volume.affine),
        (template.get_fdata(dtype=np.float32), template.affine),
        mask.get_fdata(dtype=np.float32),
        "nearestNeighbor",
    )
    away = ndimage.distance_transform_edt(brain == 0, sampling=volume.voxel_size)
    return (away <= STRIP_MARGIN_MM).astype(np.uint8)


def carry(
    fixed: tuple[np.ndarray, np.ndarray],
    moving: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    interpolator: str,
) -> np.ndarray:
    """Register one image (voxels, affine) to another and carry labels over; on the fixed grid."""
    window = box(fixed[0])
    still, moved = image(*cut(*fixed, window)), image(*cut(*moving, box(moving[0])))
    with tempfile.TemporaryDirectory() as folder:
        found = ants.registration(
            still, moved, "antsRegistrationSyNQuick[s]", outprefix=f"{folder}/", random_seed=1
        )
        carried = ants.apply_transforms(
            still, image(labels, moving[1]), found["fwdtransforms"], interpolator=interpolator
        )
    whole = np.zeros(fixed[0].shape, np.uint8)
    whole[window] = np.round(carried.numpy())
    return whole


def box(data: np.ndarray) -> tuple[slice, ...]:
    """Return the box of the non-zero voxels."""
    filled = np.argwhere(data > 0)
    return tuple(
        slice(int(a), int(b) + 1) for a, b in zip(filled.min(0), filled.max(0), strict=True)
    )


def cut(
    data: np.ndarray, affine: np.ndarray, window: tuple[slice, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut an image to a box; its voxels and its affine."""
    origin = affine.copy()
    origin[:3, 3] += affine[:3, :3] @ [axis.start for axis in window]
    return data[window], origin


def image(data: np.ndarray, affine: np.ndarray) -> Any:
    """Make an image of ANTs."""
    return ants.from_nibabel_nifti(nib.Nifti1Image(data, affine))


def save(labels: np.ndarray, head: HeldOut, path: Path) -> None:
    """Write a map on the RAS grid of a head; a broken run leaves no half file."""
    part = path.with_name(f"part_{path.name}")
    nib.save(nib.Nifti1Image(labels, head.volume.affine), part)
    part.rename(path)


if __name__ == "__main__":
    main()
