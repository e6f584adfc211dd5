"""Read one image of a head, check it, and put results back onto its own voxel grid.

Contract: `read_volume` gives the voxels in RAS order, or raises `ImageError` with the reason why
the image cannot be used; `label_image` and `probability_image` give images on the grid that
the file had, with its shape, affine, codes and units, and without its free text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from bids_app.errors import ImageError
from bids_app.io.nifti import (
    MGH,
    file_sha256,
    nifti_bytes,
    read_mgh,
    read_nifti,
    stored_image,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from nibabel.spatialimages import SpatialImage
    from numpy.typing import NDArray

    from bids_app.io.nifti import StoredImage

__all__ = [
    "Grid",
    "Volume",
    "file_sha256",
    "label_image",
    "nifti_bytes",
    "probability_image",
    "read_label_map",
    "read_volume",
    "volume_of",
]

MIN_EXTENT_MM = 80.0
MIN_EDGE_MM, MAX_EDGE_MM = 0.3, 6.5
FORMS_AGREE_MM = 0.1

_BLOCK_SLICES = 16
_RAS = np.array([[0, 1], [1, 1], [2, 1]])
_INTENT_NONE, _INTENT_LABEL = 0, 1002
_FREE_TEXT = ("descrip", "aux_file", "intent_name", "db_name", "data_type", "unused_str")


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxel grid of an image as stored, onto which results are put back.

    Attributes
    ----------
    header : nibabel.Nifti1Header or nibabel.Nifti2Header
        The header as on disk, but without free text and extensions.
    shape : tuple of int
        As stored: three axes and perhaps trailing axes of length 1.
    affine : ndarray, shape (4, 4)
        Voxel indices of the stored order to RAS+ millimetres.
    orientation : ndarray, shape (3, 2)
        nibabel's orientation of the stored axes towards RAS.
    """

    header: Any
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]

    def to_ras(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Turn voxels from the order of the file, shape (I, J, K), to RAS, shape (X, Y, Z)."""
        turned: NDArray[Any] = np.ascontiguousarray(apply_orientation(stored, self.orientation))
        return turned


@dataclass(frozen=True, eq=False)
class Volume:
    """One checked image, in RAS voxel order.

    Attributes
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        C-contiguous; x runs to the right, y to the front, z up (nearest axes, not resampled).
    affine : ndarray, shape (4, 4)
        Voxel indices of `data` to RAS+ millimetres.
    grid : Grid
        The grid of the file.
    sha256 : str or None
        Digest of the file's bytes on disk; None for an image in memory.
    warnings : tuple of str
        Remarks for the user; the image is usable nevertheless.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    grid: Grid
    sha256: str | None
    warnings: tuple[str, ...]

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edges of a voxel in mm along x, y and z of `data`."""
        x, y, z = _edges(self.affine)
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm3, which on a sheared grid is not the product of its edges."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def read_volume(path: Path, *, assume_ras: bool = False) -> Volume:
    """Read and check one image of a head.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file, or an ``.mgz`` or ``.mgh`` file of FreeSurfer.
    assume_ras : bool
        If neither form is coded, take the axes as right, front, up instead of refusing the image.

    Raises
    ------
    ImageError
        The image cannot be used; the message is the reason.
    """
    if path.name.lower().endswith(MGH):
        return _check(read_mgh(path), assume_ras=assume_ras)

    def check(header: Any, shape: tuple[int, ...]) -> None:
        _check_grid(header, shape, assume_ras=assume_ras)

    return _check(read_nifti(path, check), assume_ras=assume_ras)


def volume_of(image: SpatialImage, *, assume_ras: bool = False) -> Volume:
    """Check one image that nibabel holds; the result is that of `read_volume` for its file.

    Parameters
    ----------
    image : nibabel.spatialimages.SpatialImage
        In memory, or loaded from a file of any format.
    assume_ras : bool
        As for `read_volume`.

    Raises
    ------
    ImageError
        The image cannot be used; the message is the reason.
    TypeError
        It is no nibabel image with an affine.
    """
    return _check(stored_image(image), assume_ras=assume_ras)


def _check_grid(
    header: Any, shape: tuple[int, ...], *, assume_ras: bool
) -> tuple[NDArray[np.float64], list[str]]:
    """Check the grid that a header states; give what `_choose_affine` gives."""
    affine, warnings = _choose_affine(header, shape, assume_ras=assume_ras)
    # Rounded, so that what is written as 0.3 in single precision is 0.3
    edges = [round(edge, 3) for edge in _edges(affine)]
    if not all(MIN_EDGE_MM <= edge <= MAX_EDGE_MM for edge in edges):
        limits = f"{MIN_EDGE_MM} to {MAX_EDGE_MM} mm"
        raise ImageError(f"its voxel edges are {_by(edges)} mm; each must be {limits}")
    extent = [round(edge * n, 3) for edge, n in zip(edges, shape, strict=True)]
    if min(extent) < MIN_EXTENT_MM:
        least = f"{MIN_EXTENT_MM:.0f} mm along each axis"
        raise ImageError(f"it covers {_by(extent)} mm; a head needs at least {least}")
    return affine, warnings


def _check(stored: StoredImage, *, assume_ras: bool) -> Volume:
    affine, warnings = _check_grid(stored.header, stored.voxels.shape, assume_ras=assume_ras)
    orientation = io_orientation(affine)
    data, invalid = _to_float32(stored, apply_orientation(stored.voxels, orientation))
    if invalid:
        warnings.append(f"{invalid} of its voxels are NaN or infinite and count as 0")
    if data.min() == data.max():
        raise ImageError("it is constant: all voxels have one value")
    return Volume(
        data=data,
        affine=affine @ inv_ornt_aff(orientation, stored.voxels.shape),
        grid=Grid(_without_text(stored.header), stored.shape, affine, orientation),
        sha256=stored.sha256,
        warnings=(*stored.warnings, *warnings),
    )


def read_label_map(path: Path) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Read a label map of any extent, made by any tool.

    Returns
    -------
    labels : ndarray of int32, shape (I, J, K)
        In the order stored.
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS+ millimetres; with neither form coded, the voxel sizes, centred.

    Raises
    ------
    ImageError
        The file cannot be read, or holds values that are no integers.
    """
    stored = read_nifti(path)
    affine, _ = _choose_affine(stored.header, stored.voxels.shape, assume_ras=True)
    labels = np.empty(stored.voxels.shape, np.int32)
    for block in _blocks(labels):
        values = stored.scaled(stored.voxels[block])
        if not (np.isfinite(values).all() and np.array_equal(values, np.rint(values))):
            raise ImageError("it is no label map: not all of its values are integers")
        if values.min() < -(2**31) or values.max() >= 2**31:
            raise ImageError("it is no label map: its values do not fit 32 bits")
        labels[block] = values
    return labels, affine


def label_image(labels: NDArray[np.uint8], grid: Grid) -> Any:
    """Put a label map back onto the grid of its image.

    Parameters
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        In the RAS order of `Volume.data`.
    grid : Grid
        Where it belongs.

    Returns
    -------
    nibabel.Nifti1Image or nibabel.Nifti2Image
        With the shape of the input, trailing axes of length 1 included; to be written with
        `nifti_bytes`.
    """
    stored = apply_orientation(labels, ornt_transform(_RAS, grid.orientation))
    return _image(stored.reshape(grid.shape, order="F"), grid, _INTENT_LABEL)


def probability_image(probabilities: NDArray[np.float32], grid: Grid) -> Any:
    """Put probability maps back onto the grid of their image.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (K, X, Y, Z)
        A map for each of K labels, in the RAS order of `Volume.data`.
    grid : Grid
        Where they belong.

    Returns
    -------
    nibabel.Nifti1Image or nibabel.Nifti2Image
        Four axes: the three of the input, then the K labels; to be written with `nifti_bytes`.
    """
    maps_last = np.moveaxis(probabilities, 0, -1)
    stored = apply_orientation(maps_last, ornt_transform(_RAS, grid.orientation))
    return _image(stored, grid, _INTENT_NONE)


def _choose_affine(
    header: Any, axes: tuple[int, ...], *, assume_ras: bool
) -> tuple[NDArray[np.float64], list[str]]:
    """Voxel indices to RAS+ mm by the form that counts, and warnings for the user."""
    shape = np.array(axes)
    sform = header.get_sform() if header["sform_code"] > 0 else None
    qform = _qform(header) if header["qform_code"] > 0 else None
    warnings = []
    affine: NDArray[np.float64]
    if sform is not None:
        affine = sform
        if qform is not None and not _agree(sform, qform, shape):
            warnings.append("its sform and qform differ; the sform is used")
    elif qform is not None:
        affine = qform
    elif assume_ras:
        affine = np.diag([*np.abs(header["pixdim"][1:4]).astype(float), 1.0])
        affine[:3, 3] = -affine[:3, :3] @ (shape - 1) / 2
        warnings.append("neither sform nor qform is coded; its axes count as right, front, up")
    else:
        raise ImageError(
            "neither sform nor qform is coded, so left and right are unknown;"
            " --assume-ras takes its axes as right, front, up"
        )
    if not np.isfinite(affine).all():
        raise ImageError("its affine holds values that are NaN or infinite")
    edges = _edges(affine)
    if min(edges) == 0 or abs(np.linalg.det(affine[:3, :3])) < 1e-3 * math.prod(edges):
        raise ImageError("its affine is singular: its axes span no volume")
    return affine, warnings


def _qform(header: Any) -> NDArray[np.float64]:
    """Affine of the qform; NaN where its quaternion is impossible."""
    fixed = header.copy()
    pixdim = fixed["pixdim"]
    # As the NIfTI C library reads them: a qfac of 0, found in files of old writers, stands for 1
    pixdim[0] = -1 if pixdim[0] < 0 else 1
    pixdim[1:4] = np.abs(pixdim[1:4])
    try:
        with np.errstate(invalid="ignore"):
            qform: NDArray[np.float64] = fixed.get_qform()
    except ValueError:
        return np.full((4, 4), np.nan)
    return qform


def _agree(
    first: NDArray[np.float64], second: NDArray[np.float64], shape: NDArray[np.int_]
) -> bool:
    """Whether both affines map all corners of the grid to the same places."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * shape - 0.5
    with np.errstate(invalid="ignore"):  # what is not finite agrees with nothing
        apart = apply_affine(first, corners) - apply_affine(second, corners)
    return bool((np.linalg.norm(apart, axis=1) <= FORMS_AGREE_MM).all())


def _edges(affine: NDArray[np.float64]) -> list[float]:
    return [float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0)]


def _by(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def _blocks(array: NDArray[Any]) -> Iterator[slice]:
    """Slabs along the first axis, so that no further copy of a whole image is held."""
    for start in range(0, len(array), _BLOCK_SLICES):
        yield slice(start, start + _BLOCK_SLICES)


def _to_float32(stored: StoredImage, voxels: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
    """Scaled voxels in C order, and how many were not finite and became 0."""
    data = np.empty(voxels.shape, np.float32)
    invalid = 0
    for block in _blocks(data):
        with np.errstate(over="ignore", invalid="ignore"):
            data[block] = stored.scaled(voxels[block])
        finite = np.isfinite(data[block])
        invalid += finite.size - int(np.count_nonzero(finite))
        data[block][~finite] = 0
    return data, invalid


def _without_text(header: Any) -> Any:
    """Copy a header without what a person may have written into it."""
    cleaned = header.copy()
    for field in set(_FREE_TEXT) & set(cleaned.keys()):
        cleaned[field] = b""
    return cleaned


def _image(data: NDArray[Any], grid: Grid, intent: int) -> Any:
    """Make an image of `data` (stored order); its header differs from the grid's only as needed."""
    header = grid.header.copy()
    header["dim"][: data.ndim + 1] = [data.ndim, *data.shape]
    if data.shape[3:] != grid.shape[3:]:
        header["pixdim"][4] = 1  # the labels' axis has no step, and some readers refuse 0
    header.set_data_dtype(data.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0
    header["intent_code"] = intent
    header["intent_p1"] = header["intent_p2"] = header["intent_p3"] = 0
    header["vox_offset"] = header.single_vox_offset
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, grid.affine)
    # Filled in afterwards (in this machine's byte order): the constructor would alter the header
    image.header.structarr[...] = header.structarr
    return image
