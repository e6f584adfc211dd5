"""Make the labels that the open model learns from; see ``docs/labels.md`` for what they mean.

``python -m training.labels --data DIR --out DIR [--keep DIR] [--heads NAME ...]`` registers every
head to the template in a few settings, builds the atlas, and writes for each head

- ``NAME_probseg.nii.gz``: shares of the seven regions of `training.atlas.NAMES`, then the share of
  the tectum, which is part of that of the midbrain, and last the voxels to leave out of the loss
  (1 or 0), on a crop of the head's `label_grid`;
- ``NAME.json``: volumes, lower limit and checks; ``labels.tsv`` has them all in one table.

``--keep`` names a folder of earlier labels, which stay as they are: only the midbrain is split.
Heads that are labelled already are skipped, so the same command resumes a run.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from dataclasses import dataclass, replace
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
from training.carry import carry_labels, carry_tectum
from training.checks import check_labels
from training.heads import (
    BY_WAY_OF,
    CLASS_FILES,
    SAME_HEAD,
    SAME_SPACE,
    TEMPLATE,
    Head,
    affine_between,
    draw_in_box,
    find_heads,
    on_label_grid,
    read_image,
    read_template,
    rigid_between,
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
    from collections.abc import Iterable, Mapping, Sequence

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
    parser.add_argument("--keep", type=Path, help="folder of earlier labels to split further")
    parser.add_argument("--heads", nargs="+", help="e.g. ds011_sub-01 synthseg_02; default: all")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)  # says of each header what it mends
    torch.set_num_threads(1)
    make_labels(options.data, options.out, options.heads, options.keep)
    return 0


def make_labels(
    data: Path, out: Path, names: Iterable[str] | None = None, keep: Path | None = None
) -> None:
    """Make the labels of heads that have none yet.

    Parameters
    ----------
    data : Path
        Folder of the source data (``allen``, ``template``, ``synthseg_labels``, BIDS datasets).
    out : Path
        Folder for labels; registrations are kept in its ``registrations``.
    names : iterable of str, optional
        Heads to label, as `find_heads` names them; all when left out.
    keep : Path, optional
        Folder of earlier labels, whose shares are kept; only the tectum is added to them.

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
            registered = register_head(heads, name, source, out)
            if keep and (keep / f"{name}_probseg.nii.gz").exists():
                split_midbrain(heads[name], registered, atlas, keep, out)
            else:
                label_head(heads[name], registered, atlas, out)
            write_table(out)


def register_head(heads: Mapping[str, Head], name: str, source: Source, out: Path) -> Registered:
    """Register a head to the template; another image of it is aligned with its T1w image."""
    if name in BY_WAY_OF:
        other = heads[BY_WAY_OF[name]]
        start = _register(other, source, out).to_template @ affine_between(
            read_image(heads[name]), read_image(other)
        )
        return _register(heads[name], source, out, start)
    if name not in SAME_HEAD:
        return _register(heads[name], source, out)
    reference = heads[SAME_HEAD[name]]
    registered = _register(reference, source, out)
    if name.startswith(SAME_SPACE):
        return registered
    moved = rigid_between(read_image(heads[name]), read_image(reference))
    return replace(registered, to_template=registered.to_template @ moved)


def _register(
    head: Head, source: Source, out: Path, start: NDArray[np.float64] | None = None
) -> Registered:
    """Register a head to the template in all settings, or read it from an earlier run.

    `start` takes the place of an affine registration of the whole head.
    """
    stored = out / "registrations" / f"{head.name}.npz"
    if not stored.exists():
        image = read_image(head)
        if start is None:
            template = read_template(source.data, stripped=head.stripped)
            start = whole_head_affine(image, template)
        to_template = start
        fields = _fields(image, to_template, source.plain, stripped=head.stripped)
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
        registered = _register(head, source, out)
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
    codes = None if head.real else np.asarray(nib.load(head.path).dataobj).astype(int)
    image = on_label_grid(read_image(head))
    seen = image.get_fdata() > 0 if head.stripped else None
    labels = carry_labels(
        atlas, registered.fields, registered.to_template, image.shape, image.affine, codes, seen
    )
    checks = check_labels(labels, image if head.t1w else None)
    _write_labels(labels.shares, labels.tectum, labels.ignore, labels.affine, head.name, out)
    _write_row(
        head.name,
        {
            "limit_point": [round(float(x), 2) for x in labels.plane.point],
            "limit_normal": [round(float(x), 4) for x in labels.plane.normal],
            **{k: v for k, v in checks.items() if k != "faults"},
            **_parts_ml(labels.shares, labels.tectum, labels.affine),
            "faults": checks["faults"],
        },
        out,
    )


def split_midbrain(head: Head, registered: Registered, atlas: Atlas, keep: Path, out: Path) -> None:
    """Keep the labels that a head has in an earlier folder, and split its midbrain."""
    shares, _, ignore, affine = read_labels(keep / f"{head.name}_probseg.nii.gz")
    tectum = shares[0] * carry_tectum(
        atlas, registered.fields, registered.to_template, shares.shape[1:], affine
    )
    _write_labels(shares, tectum, ignore, affine, head.name, out)
    with (keep / "labels.tsv").open(newline="") as file:
        (row,) = (r for r in csv.DictReader(file, delimiter="\t") if r["head"] == head.name)
    faults = row.pop("faults").replace("n/a", "")
    _write_row(head.name, {**row, **_parts_ml(shares, tectum, affine), "faults": faults}, out)


def _write_labels(
    shares: NDArray[np.float32],
    tectum: NDArray[np.float32],
    ignore: NDArray[np.bool_],
    affine: NDArray[np.float64],
    name: str,
    out: Path,
) -> None:
    """Write the file of a head."""
    units = np.round(np.concatenate([shares, tectum[None]]) / SHARE_UNIT)
    volumes = np.concatenate([units, ignore[None]]).astype(np.uint8)
    file = nib.Nifti1Image(np.moveaxis(volumes, 0, -1), affine)
    file.header.set_xyzt_units("mm")
    out.mkdir(parents=True, exist_ok=True)
    nib.save(file, out / f"{name}_probseg.nii.gz")


def _write_row(name: str, measures: dict[str, Any], out: Path) -> None:
    """Write a head's row of the table to a file of its own."""
    row = {"head": name, **measures}
    (out / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    log.info("%s labelled: %s", name, measures["faults"] or "no fault")


def _parts_ml(
    shares: NDArray[np.float32], tectum: NDArray[np.float32], affine: NDArray[np.float64]
) -> dict[str, float]:
    """Return the volumes in ml of tectum and peduncles: sums of shares."""
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    parts = dict(zip(NAMES[3:6], shares[3:6], strict=True))
    return {
        f"{k}_ml": round(float(v.sum() * ml), 3) for k, v in {"tectum": tectum, **parts}.items()
    }


def read_labels(
    path: Path,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Read the labels of a head, of version 1 or 2.

    Parameters
    ----------
    path : Path
        A file ``NAME_probseg.nii.gz``.

    Returns
    -------
    shares : ndarray of float32, shape (7, i, j, k)
        Of the regions in `training.atlas.NAMES`.
    tectum : ndarray of float32, shape (i, j, k)
        Share of the tectum, part of that of the midbrain; all 0 in labels of version 1.
    ignore : ndarray of bool, shape (i, j, k)
        Voxels to leave out of the loss.
    affine : ndarray of float64, shape (4, 4)
        From voxels to RAS mm of the head.
    """
    image = nib.load(path)
    volumes = np.moveaxis(np.asarray(image.dataobj), -1, 0)
    *shares, last = volumes * np.float32(SHARE_UNIT)
    tectum = shares[len(NAMES)] if len(shares) > len(NAMES) else np.zeros_like(last)
    return np.stack(shares[: len(NAMES)]), tectum, last > 0, image.affine


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
