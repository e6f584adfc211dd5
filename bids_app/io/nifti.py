"""NIfTI files as bytes: read once and checked to the end, always written the same way.

Contract: a file is read from its first byte to its last in one pass, which also computes its
SHA-256 and lets gzip check its CRC and length. Any fault becomes one `ImageError`, whose message
does not contain the path (the caller knows it), except in a `datalad get` line. Headers are passed
on unchanged; images of FreeSurfer get a NIfTI header. Nothing here depends on heads, label maps or
orientations.

Format: NIfTI-1 and NIfTI-2, https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError, SpatialImage

from bids_app.errors import ImageError, reason
from bids_app.io.files import open_regular, status

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader
    from pathlib import Path

    from numpy.typing import NDArray

_Parsed = TypeVar("_Parsed")

# On the label map of a head of 288 x 288 x 181 voxels: 20 kB in 0.07 s; level 1 gives 76 kB in
# 0.02 s, level 9 gives 20 kB in 0.10 s. Probability maps: 0.6 MB, level 1 gives 1.2 MB.
_COMPRESSION_LEVEL = 6
_CHUNK_BYTES = 1 << 22
# Three times the voxels of a whole head at 0.3 mm, the finest that is taken (in io/images.py)
MOST_VOXELS = 1 << 30
# No stream of deflate gives more bytes for one of its own
# (https://www.zlib.net/zlib_tech.html, "Maximum Compression Factor")
_MOST_INFLATED = 1032
MGH = (".mgz", ".mgh")  # ends of names of FreeSurfer's images


@dataclass(frozen=True, eq=False)
class StoredImage:
    """A NIfTI file as read.

    Attributes
    ----------
    header : nibabel.Nifti1Header or nibabel.Nifti2Header
        As it lies on disk, without extensions.
    shape : tuple of int
        As stored: three axes and perhaps trailing axes of length 1.
    voxels : ndarray, shape (I, J, K)
        In the order and type stored, before scaling.
    sha256 : str or None
        Digest of the file's bytes on disk; None for an image in memory.
    warnings : tuple of str
        Remarks about the file for the user.
    """

    header: Any
    shape: tuple[int, ...]
    voxels: NDArray[Any]
    sha256: str | None
    warnings: tuple[str, ...]

    def scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        """Apply the slope and intercept to some voxels; as float64 where these change anything."""
        try:
            slope, intercept = self.header.get_slope_inter()
        except HeaderDataError:
            raise ImageError("its scaling has an intercept that is NaN or infinite") from None
        # A slope of 0 or NaN means no scaling, for which nibabel returns None
        if slope is None or (slope, intercept) == (1.0, 0.0):
            return values
        scaled: NDArray[np.float64] = values.astype(np.float64) * slope + intercept
        return scaled


def read_nifti(
    path: Path, check: Callable[[Any, tuple[int, ...]], object] | None = None
) -> StoredImage:
    """Read a single-file NIfTI image of three axes, compressed or not.

    Parameters
    ----------
    path : Path
    check : callable, optional
        Called with the header and the three axes' lengths before any voxel is read; it may refuse
        the image by an `ImageError`.

    Raises
    ------
    ImageError
        The file cannot be read, is damaged, or holds no three-dimensional image of real numbers.
    """

    def parse(stream: Any, most_bytes: int) -> tuple[Any, tuple[int, ...], NDArray[Any]]:
        header = _read_header(stream)
        shape = _shape(header)
        if check is not None:
            check(header, shape[:3])
        voxels = _read_voxels(stream, header, shape, most_bytes)
        while stream.read(_CHUNK_BYTES):
            pass
        return header, shape, voxels

    (header, shape, voxels), digest, zipped = _read(path, parse)
    odd_name = "it is gzip-compressed though its name does not end with .gz"
    warnings = (odd_name,) if zipped and path.suffix.lower() != ".gz" else ()
    return StoredImage(header, shape, voxels, digest, warnings)


def _read(path: Path, parse: Callable[[Any, int], _Parsed]) -> tuple[_Parsed, str, bool]:
    """Read a file, compressed or not, to its end.

    Returns
    -------
    object
        What `parse` makes of the stream of its content and of the most bytes that it can give.
    str
        Digest of its bytes on disk.
    bool
        Whether it is compressed.
    """
    with _open(path) as file:
        start = file.read(15)
        file.seek(0)
        if not start:
            raise ImageError("it is empty")
        if start == b"/annex/objects/":  # an unlocked file of git-annex without its content
            raise _content_missing(path)
        zipped, suffix = start.startswith(b"\x1f\x8b"), path.suffix.lower()
        if suffix in (".gz", ".mgz") and not zipped:
            raise ImageError(f"it is named {suffix} but is not gzip-compressed")
        hashed = _HashedFile(file)
        stream: Any = gzip.GzipFile(fileobj=hashed, mode="rb") if zipped else hashed  # type: ignore[call-overload]
        try:
            size = status(path).st_size
            parsed = parse(stream, size * _MOST_INFLATED if zipped else size)
        except EOFError:
            raise ImageError("it is truncated: its gzip stream ends too early") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ImageError(f"its gzip stream is corrupt: {error}") from None
        except OSError as error:
            raise ImageError(f"it cannot be read: {error.strerror}") from None
    return parsed, hashed.digest.hexdigest(), zipped


def read_mgh(path: Path) -> StoredImage:
    """Read an image in the format of FreeSurfer as `read_nifti` reads NIfTI files.

    Format: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat

    Raises
    ------
    ImageError
        The file cannot be read, is damaged, or holds no three-dimensional image of real numbers.
    """
    content, digest, _ = _read(path, lambda stream, _most: stream.read(-1))
    if int.from_bytes(content[:4]) != 1:
        raise ImageError("it is no image of FreeSurfer")
    try:
        stored = stored_image(nib.MGHImage.from_bytes(content))
    except ImageError:
        raise
    except Exception:  # nibabel has an exception of its own for each fault of a header
        raise ImageError("its header or its voxels are damaged or truncated") from None
    if not any(content[28:30]):  # goodRASFlag; nibabel then supposes an affine
        stored.header["sform_code"] = 0
    return replace(stored, sha256=digest)


def stored_image(image: Any) -> StoredImage:
    """Take a nibabel image as `read_nifti` would read its file, without writing one.

    Parameters
    ----------
    image : nibabel.spatialimages.SpatialImage
        An image in memory, or one that nibabel has loaded. Formats other than NIfTI are taken
        by their affine.

    Raises
    ------
    ImageError
        Its voxels cannot be read, or it is no three-dimensional image of real numbers.
    TypeError
        It is no nibabel image with an affine.
    """
    if not isinstance(image, SpatialImage):
        raise TypeError(f"a path or a nibabel image is needed, not {type(image).__name__}")
    shape = _check_shape(tuple(int(n) for n in image.shape))
    data = image.dataobj
    try:
        # A proxy scales by its own numbers: nibabel clears those of the header
        proxy = hasattr(data, "get_unscaled")
        voxels = np.asanyarray(data.get_unscaled() if proxy else data).reshape(shape[:3], order="F")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ImageError(f"it cannot be read: {' '.join(reason(error).split())}") from None
    _check_kind(voxels.dtype)
    if isinstance(image, nib.Nifti1Pair):
        second = isinstance(image, nib.Nifti2Image | nib.Nifti2Pair)
        kind: Any = nib.Nifti2Header if second else nib.Nifti1Header
        header = kind(image.header.binaryblock, image.header.endianness, check=False)
        header["magic"] = header.single_magic  # that of a pair of files differs
    else:
        header = nib.Nifti1Image(np.empty(shape[:3], np.uint8), image.affine).header
        header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = (data.slope, data.inter) if proxy else (1, 0)
    return StoredImage(header, shape, voxels, None, ())


def load_image(path: Path) -> Any:
    """Load an image that the app wrote, by nibabel.

    Returns
    -------
    nibabel.Nifti1Image or nibabel.Nifti2Image

    Raises
    ------
    OSError, nibabel.filebasedimages.ImageFileError
        It cannot be read.
    """
    with open_regular(path):  # nibabel would wait for a FIFO
        pass
    return nib.load(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes on disk, in hexadecimal.

    Raises
    ------
    ImageError
        The file is not there or cannot be read.
    """
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal, as `file_sha256` gives it for a file."""
    return hashlib.sha256(data).hexdigest()


def nifti_bytes(image: Any, *, compress: bool) -> bytes:
    """Serialise an image, always to the same bytes.

    Parameters
    ----------
    image : nibabel.Nifti1Image or nibabel.Nifti2Image
        Its header is written unchanged (nibabel's own writer would alter codes and scaling), so
        it must state the data's shape and the type in which the data are written, unscaled.
    compress : bool
        As a gzip stream, without time or file name in it.
    """
    header, data = image.header, np.asanyarray(image.dataobj)
    dtype = header.get_data_dtype()
    start = header.binaryblock + bytes(header.single_vox_offset - header.sizeof_hdr)
    # A slice at a time: second copies of four-dimensional maps do not fit small machines
    blocks = (
        data[..., i].astype(dtype, copy=False).tobytes(order="F") for i in range(data.shape[-1])
    )
    if not compress:
        return b"".join([start, *blocks])
    stream = zlib.compressobj(_COMPRESSION_LEVEL, wbits=31)
    parts = [stream.compress(start), *(stream.compress(block) for block in blocks)]
    return b"".join([*parts, stream.flush()])


class _HashedFile:
    """Passes on the bytes of an open file and computes their digest."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _open(path: Path) -> BufferedReader:
    try:
        return open_regular(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise _content_missing(path) from None
        raise ImageError("there is no such file") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ImageError(str(error.strerror)) from None
        raise ImageError(f"it cannot be read: {error.strerror}") from None


def _content_missing(path: Path) -> ImageError:
    return ImageError(f"its content is not on this machine; fetch it with `datalad get {path}`")


def _read_header(stream: Any) -> Any:
    start = stream.read(348)
    kind: Any
    if len(start) < nib.Nifti1Header.sizeof_hdr:
        raise ImageError("it is no NIfTI image: it is shorter than a header")
    if start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and start[344:347] in (b"n+1", b"ni1"):
        kind, magic = nib.Nifti1Header, start[344:347]
    elif start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") and start[4:7] in (b"n+2", b"ni2"):
        kind, magic = nib.Nifti2Header, start[4:7]
        start += stream.read(kind.sizeof_hdr - len(start))
        if len(start) < kind.sizeof_hdr:
            raise ImageError("it is truncated: its header is not whole")
    else:
        raise ImageError("it is no NIfTI image")
    if magic.startswith(b"ni"):
        raise ImageError("its voxels are in a separate .img file; convert it to one .nii file")
    return kind(start, "<" if start[0] else ">", check=False)


def _shape(header: Any) -> tuple[int, ...]:
    axes = int(header["dim"][0])
    return _check_shape(
        tuple(int(n) for n in header["dim"][1 : axes + 1]) if 1 <= axes <= 7 else ()
    )


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3 or min(shape) < 1 or any(n != 1 for n in shape[3:]):
        text = " x ".join(map(str, shape)) or "none"
        raise ImageError(f"its shape is {text}; one three-dimensional image is needed")
    if math.prod(shape) > MOST_VOXELS:
        text = " x ".join(map(str, shape))
        raise ImageError(f"its shape is {text}; no more than {MOST_VOXELS} voxels are taken")
    return shape


def _check_kind(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iuf":
        raise ImageError("its voxels are colours or complex numbers; real numbers are needed")


def _read_voxels(stream: Any, header: Any, shape: tuple[int, ...], most_bytes: int) -> NDArray[Any]:
    """Read the voxels, if the file can hold them; at most so many bytes are in it."""
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (KeyError, HeaderDataError):
        raise ImageError("the type of its voxels is unknown") from None
    _check_kind(dtype)
    needed = math.prod(shape) * dtype.itemsize
    if needed > most_bytes:
        raise ImageError(f"it is truncated: the file cannot hold {needed} bytes of voxels")
    offset = float(header["vox_offset"])
    # Anything below the smallest possible offset stands for it, as in files of old writers
    skip = max(int(offset) if math.isfinite(offset) else 0, header.single_vox_offset)
    skip -= header.sizeof_hdr
    while skip > 0 and (skipped := len(stream.read(min(skip, _CHUNK_BYTES)))):
        skip -= skipped
    try:
        voxels = np.empty(shape[:3], dtype, order="F")
    except (MemoryError, ValueError):
        raise ImageError("it is too large for the memory of this machine") from None
    room = voxels.reshape(-1, order="F").view(np.uint8).data
    filled = 0
    while filled < len(room) and (part := stream.read(min(len(room) - filled, _CHUNK_BYTES))):
        room[filled : filled + len(part)] = part
        filled += len(part)
    if filled < len(room):
        raise ImageError(f"it is truncated: {filled} of {len(room)} bytes of voxels are there")
    return voxels
