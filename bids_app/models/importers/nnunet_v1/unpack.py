"""Safe unpacking of archives from untrusted sources."""

from __future__ import annotations

import errno
import shutil
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bids_app.errors import ModelError
from bids_app.io.files import is_web_page, open_new, open_regular, status

if TYPE_CHECKING:
    import re
    from pathlib import Path

LARGEST = 4 * 2**30  # bytes; checkpoints of the published size have less than one tenth
# Weights hardly shrink.
MOST_TIMES, ALWAYS = 20, 64 * 2**20  # of the archive's size; bytes that any archive may hold
CHUNK = 2**20  # bytes


# Names that no folder can have, or has already: the archive is to blame, not the disk.
_OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTDIR)


class _TooLargeError(ModelError):
    """An archive unpacks to far more than its size; it is not read to its end."""


def unpack(archive: Path, folder: Path, wanted: re.Pattern[str]) -> None:
    """Unpack the wanted files of a tar archive, compressed or not.

    Every member is checked, wanted or not. An archive is refused if a member would leave the
    folder, or is neither a regular file nor a folder, and before a member makes it more than
    `MOST_TIMES` times as large. It is read to the end, so that the checksum
    of a compressed archive is verified.

    Parameters
    ----------
    archive : Path
    folder : Path
        Destination. After an error, the caller removes it.
    wanted : re.Pattern
        Matches full member names. Names of folders, which are created even without wanted files,
        end in a slash.

    Raises
    ------
    ModelError
        The archive is damaged, or has a suspicious member.
    OSError
        A file cannot be read or written.
    """
    tar = None
    try:
        with open_regular(archive) as stream, tarfile.open(fileobj=stream) as tar:
            try:
                left = ALWAYS + MOST_TIMES * status(archive).st_size
                for member in tar:
                    path = _checked(archive, member)
                    left -= member.size
                    if left < 0:
                        raise _TooLargeError(  # noqa: TRY301
                            f"{archive.name}: refused, it unpacks to more than {MOST_TIMES} times "
                            "its size, which weights of a network do not."
                        )
                    _extract(tar, member, path, folder, wanted)
            except _TooLargeError:
                raise
            except ModelError:
                _ends(tar)  # a suspicious member may be damage, which is then reported
                raise
            # tarfile ends the loop without an error at a header that it cannot read.
            if not _ends(tar):
                raise tarfile.ReadError("not whole")  # noqa: TRY301
    except ModelError:
        raise
    except Exception as error:  # a damaged archive raises almost anything
        if isinstance(error, OSError) and error.errno not in (None, *_OF_NAMES):
            raise
        wrong = _what_is_wrong(archive, error) if tar is None else "damaged. Get it again."
        raise ModelError(f"{archive.name}: {wrong}") from error


def _extract(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    path: PurePosixPath,
    folder: Path,
    wanted: re.Pattern[str],
) -> None:
    for inside in (*path.parents, path) if member.isdir() else path.parents:
        if wanted.fullmatch(f"{inside}/"):
            (folder / inside).mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member) if wanted.fullmatch(str(path)) else None
    if content is not None:
        place = folder / path
        with open_new(place) as stream:
            shutil.copyfileobj(content, stream)


def _ends(tar: tarfile.TarFile) -> bool:
    """Read the rest of an archive; return whether it is a proper end, at least a block of zeros."""
    stream = tar.fileobj
    stream.seek(tar.offset)
    size = others = 0
    while chunk := stream.read(CHUNK):
        size += len(chunk)
        others += len(chunk) - chunk.count(0)
    return size >= tarfile.BLOCKSIZE and not others


def _what_is_wrong(archive: Path, error: Exception) -> str:
    """Describe what a file that is not a tar archive seems to be."""
    if is_web_page(archive):
        return "a web page, not a tar archive. Is it a login page, or the portal of a network?"
    if archive.suffix in (".model", ".pth", ".pkl"):
        return "one file of a model. Give the folder of the model, with plans and fold_*."
    with open_regular(archive) as stream:
        if stream.read(4) == b"PK\3\4":
            return "a zip archive. Unpack it, and import the folder."
    reason = str(error).partition("\n")[0].rstrip(":")
    return f"damaged, or not a tar archive ({reason}). Get it again."


def _checked(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise ModelError(f"{archive.name}: refused, its member {member.name!r} lies outside it.")
    if not (member.isreg() or member.isdir()):
        raise ModelError(
            f"{archive.name}: refused, its member {member.name!r} is not a regular file."
        )
    if member.size > LARGEST:
        raise ModelError(f"{archive.name}: refused, its member {member.name!r} is too large.")
    return path
