"""Make the labels that the open model learns from; see ``docs/labels.md`` for what they mean.

``python -m training.labels --data DIR --out DIR [--heads NAME ...]`` registers every
head to the template in a few settings, builds the atlas, and writes for each head

- ``NAME_probseg.nii.gz``: shares of the seven regions of `training.atlas.NAMES` and, as
  an eighth volume, the voxels to leave out of the loss (1 or 0), on a crop of the head's grid;
- ``NAME.json``: volumes, lower limit and checks; ``labels.tsv`` has them all in one table.

What is there already is kept, so that a broken run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from bids_app.cli.options import guarded
from bids_app.errors import UsageError, few
from bids_app.io.files import replacing
from training.atlas import (
    NAMES,
    TEMPLATE_BOTTOM_Z,
    Atlas,
    box_z,
    build_atlas,
    map_brainstem,
)
from training.carry import carry_labels
from training.checks import check_labels
from training.heads import (
    CLASS_FILES,
    STRIPPED,
    TEMPLATE,
    Head,
    draw_in_box,
    find_heads,
    read_image,
    read_template,
    whole_head_affine,
)
from training.registration import (
    SETTINGS,
    affine_field,
    draw,
    invert,
    register,
    voxel_grid,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# The maps that the outer border is averaged from; all are in the training part of the split.
BORDER_MAPS = tuple(f"synthseg_{number:02d}" for number in range(2, 10))
SOURCES = (
    f"{TEMPLATE}.nii.gz",
    f"{TEMPLATE}_mask.nii.gz",
    "allen/AllenAtlas.nii.gz",
    "allen/AllenAtlas.json",
    *(f"synthseg_labels/{name}.npy" for name in CLASS_FILES),
)
SHARE_UNIT = 1 / 15  # shares are stored in fifteenths: fine enough, and small in gzip


@dataclass(frozen=True)
class Source:
    """What heads are registered to.

    Attributes
    ----------
    data : Path
        Folder of the source data.
    plain : Atlas
        The atlas with the Allen atlas's own outer border.
    """

    data: Path
    plain: Atlas


@dataclass(frozen=True)
class Registered:
    """A head's way to the template.

    Attributes
    ----------
    to_template : ndarray of float64, shape (4, 4)
        From RAS mm of the head to those of the template.
    fields : list of ndarray of float32, shape (3, x, y, z)
        Displacements on the box, one a setting of `training.registration.SETTINGS`.
    """

    to_template: NDArray[np.float64]
    fields: list[NDArray[np.float32]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the labels that the open model learns from.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the source data")
    parser.add_argument("--out", type=Path, required=True, help="folder for labels")
    parser.add_argument("--heads", nargs="+", help="e.g. ds011_sub-01 synthseg_02; default: all")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)  # says of each header what it mends
    torch.set_num_threads(1)
    make_labels(options.data, options.out, options.heads)
    return 0


def make_labels(data: Path, out: Path, names: Iterable[str] | None = None) -> None:
    """Make the labels of heads that have none yet.

    Parameters
    ----------
    data : Path
        Folder of the source data (``allen``, ``template``, ``synthseg_labels``, BIDS datasets).
    out : Path
        Folder for labels; registrations are kept in its ``registrations``.
    names : iterable of str, optional
        Heads to label, as `find_heads` names them; all when left out.

    Raises
    ------
    UsageError
        When there is no such head, when sources are missing, or antspyx.
    """
    heads = {head.name: head for head in find_heads(data)}
    if missing := [file for file in SOURCES if not (data / file).exists()]:
        raise UsageError(f"{data} lacks {few(missing)}. docs/training.md tells what it must hold.")
    if unknown := {*(names or heads), *BORDER_MAPS} - heads.keys():
        raise UsageError(f"{data} holds no head or map {few(unknown)}.")
    if find_spec("ants") is None:
        raise UsageError("Registration needs antspyx: install the extra `train`.")
    source = Source(data, build_atlas(data, []))
    atlas = build_atlas(data, read_borders([heads[name] for name in BORDER_MAPS], source, out))
    for name in names or heads:
        if not (out / f"{name}.json").exists():
            label_head(heads[name], register_head(heads[name], source, out), atlas, out)
            write_table(out)


def register_head(head: Head, source: Source, out: Path) -> Registered:
    """Register a head to the template in all settings, or read it from an earlier run."""
    stored = out / "registrations" / f"{head.name}.npz"
    if not stored.exists():
        image = read_image(head)
        stripped = head.source in STRIPPED
        to_template = whole_head_affine(image, read_template(source.data, stripped=stripped))
        fields = _fields(image, to_template, source.plain, stripped=stripped)
        stored.parent.mkdir(parents=True, exist_ok=True)
        with replacing(stored) as place, place.open("wb") as file:
            np.savez_compressed(file, to_template=to_template, fields=fields.astype(np.float16))
        log.info("%s registered", head.name)
    with np.load(stored) as arrays:
        return Registered(arrays["to_template"], list(arrays["fields"].astype(np.float32)))


def read_borders(maps: Iterable[Head], source: Source, out: Path) -> list[NDArray[np.float32]]:
    """Carry the brainstems of label maps to the box; one array of shares a map."""
    borders = []
    for head in maps:
        registered = register_head(head, source, out)
        image = nib.load(head.path)
        codes = draw_in_box(
            np.asarray(image.dataobj), image.affine, registered.to_template, order=0
        ).astype(int)
        mean = np.mean(registered.fields, axis=0)
        places = voxel_grid(codes.shape)
        midbrain = draw(source.plain.midbrain[None], places + mean)[0]
        own = map_brainstem(codes, midbrain).astype(np.float32)
        borders.append(draw(own[None], places + invert(mean))[0])
    return borders


def label_head(head: Head, registered: Registered, atlas: Atlas, out: Path) -> None:
    """Make, check and write the labels of one head."""
    image = nib.load(head.path)
    codes = None if head.real else np.asarray(image.dataobj).astype(int)
    drawn = read_image(head) if head.real else None
    seen = drawn.get_fdata() > 0 if drawn and head.source in STRIPPED else None
    labels = carry_labels(
        atlas, registered.fields, registered.to_template, image.shape, image.affine, codes, seen
    )
    checks = check_labels(labels, drawn)
    shares = np.round(labels.shares / SHARE_UNIT)
    volumes = np.concatenate([shares, labels.ignore[None]]).astype(np.uint8)
    file = nib.Nifti1Image(np.moveaxis(volumes, 0, -1), labels.affine)
    file.header.set_xyzt_units("mm")
    out.mkdir(parents=True, exist_ok=True)
    nib.save(file, out / f"{head.name}_probseg.nii.gz")
    row = {
        "head": head.name,
        "limit_point": [round(float(x), 2) for x in labels.plane.point],
        "limit_normal": [round(float(x), 4) for x in labels.plane.normal],
        **checks,
    }
    (out / f"{head.name}.json").write_text(json.dumps(row, indent=1) + "\n")
    log.info("%s labelled: %s", head.name, ", ".join(checks["faults"]) or "no fault")


def read_labels(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Read the labels of a head.

    Parameters
    ----------
    path : Path
        A file ``NAME_probseg.nii.gz``.

    Returns
    -------
    shares : ndarray of float32, shape (7, i, j, k)
        Of the regions in `training.atlas.NAMES`.
    ignore : ndarray of bool, shape (i, j, k)
        Voxels to leave out of the loss.
    affine : ndarray of float64, shape (4, 4)
        From voxels to RAS mm of the head.
    """
    image = nib.load(path)
    volumes = np.moveaxis(np.asarray(image.dataobj), -1, 0)
    shares = volumes[: len(NAMES)].astype(np.float32) * np.float32(SHARE_UNIT)
    return shares, volumes[len(NAMES)] > 0, image.affine


def write_table(out: Path) -> None:
    """Write ``labels.tsv`` from the heads' JSON files."""
    rows: list[dict[str, Any]] = [json.loads(p.read_text()) for p in sorted(out.glob("*_*.json"))]
    with (out / "labels.tsv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], delimiter="\t", lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value: Any) -> str:
    """Write a value as BIDS tables have it: lists by spaces, what is missing as n/a."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return "n/a" if value in (None, "") else str(value)


def _fields(
    image: nib.Nifti1Image, to_template: NDArray[np.float64], atlas: Atlas, *, stripped: bool
) -> NDArray[np.float32]:
    """Displacement fields of a head in the box, shape (settings, 3, x, y, z)."""
    data = image.get_fdata(dtype=np.float32)
    fixed = draw_in_box(data, image.affine, to_template)
    seen = np.asarray(data > 0 if stripped else np.ones(data.shape), np.float32)
    fixed_weight = draw_in_box(seen, image.affine, to_template) > 0.99
    brain = atlas.brain > 0.5
    if stripped:  # the two skull strips differ: leave their edges out
        fixed_weight = ndimage.binary_erosion(fixed_weight)
    moving_weight = ndimage.binary_dilation(brain, iterations=1 if stripped else 3)
    moving_weight &= box_z() >= TEMPLATE_BOTTOM_Z
    pair = (
        _scaled(fixed, brain & fixed_weight),
        _scaled(atlas.t1, brain),
        moving_weight.astype(np.float32),
        fixed_weight.astype(np.float32),
    )
    start = affine_field(*pair)
    return np.stack([register(*pair, setting, start) for setting in SETTINGS.values()])


def _scaled(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale intensities so that the 2nd to 98th percentile of a region runs from 0 to 1."""
    low, high = np.percentile(image[inside], [2, 98])
    scaled: NDArray[np.float32] = np.clip((image - low) / (high - low), -0.3, 1.5)
    return scaled.astype(np.float32)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
