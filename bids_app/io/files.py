"""Writing files so that they are never half written, and runs do not interfere.

A file is written under a temporary name in the same folder, flushed to disk and renamed. The
temporary name contains the host, process and run that own it; a later run removes files whose
owners are gone. The kernel holds a lock on an output for the process, so that the lock ends with
the process, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import stat
import tomllib
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.errors import OutputError, PlaceError, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader, BufferedWriter

# A lock that is a link or a FIFO is not one of ours: neither followed nor waited for.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_REGULAR = "it is not a regular file"
# What keeps one path from being written, and says nothing of the others.
_OF_ONE_PLACE = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EPERM,
    }
)
_TEMPORARY = re.compile(r"^\..+\.(?P<host>[A-Za-z0-9-]+)_(?P<pid>\d+)_[0-9a-f]{8}\.tmp$")


@cache
def run_token() -> str:
    """Eight hexadecimal digits, drawn once for this process."""
    return secrets.token_hex(4)


@cache
def _host() -> str:
    # A process number means something only within its namespace: two containers on one
    # machine may share the host name and number their processes alike.
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{socket.gethostname()}-{namespace}").strip("-")


def owned_name(name: str) -> str:
    """Temporary name for a file or folder, which contains its owner."""
    return f".{name}.{_host()}_{os.getpid()}_{run_token()}.tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path for a file, which replaces `path` at the end of the block.

    If the block fails, `path` stays as it was and no temporary file is left.
    """
    temporary = path.with_name(owned_name(path.name))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely or not at all, even after a power cut.

    Parameters
    ----------
    path : Path
        Path of the file; missing folders are created.
    data : bytes
        Its whole content.

    Raises
    ------
    PlaceError
        It cannot be written, though other files may be.
    OutputError
        Nothing can be written, such as on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _sync_folder(path.parent)
    except OSError as error:
        raise _not_written(
            error,
            f"{path}: cannot be written ({reason(error)}). Check the space and the permissions "
            "of the output folder, then run the same command again.",
        ) from None


def _not_written(error: OSError, message: str) -> OutputError:
    return (PlaceError if error.errno in _OF_ONE_PLACE else OutputError)(message)


def write_if_changed(path: Path, data: bytes) -> None:
    """Write a file that runs share, unless it already has this content."""
    try:
        if read_bytes(path) == data:
            return
    except OSError:
        pass
    write_atomic(path, data)


def check_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse paths that links lead out of the folder in which they are to be written.

    A file that is a link itself is no concern: `write_atomic` replaces the link and leaves its
    target as it is, so outputs that git-annex keeps elsewhere can be written again.

    Parameters
    ----------
    folder : Path
        The output folder; it may be reached through links itself.
    paths : iterable of Path
        Folders below it; they need not exist.

    Raises
    ------
    OutputError
        One leads elsewhere.
    """
    root = Path(os.path.realpath(folder))
    for path in dict.fromkeys(paths):
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(root):
            raise OutputError(
                f"{path} is reached through a link that leads out of the output folder, to {real}. "
                "Replace the link with a folder, or choose another OUTPUT_DIR."
            )


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading if it is a regular one.

    Opening a FIFO would wait for a writer, and reading some devices has no end.

    Raises
    ------
    OSError
        It cannot be opened, or is a folder, FIFO, socket or device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(errno.EINVAL, _NOT_REGULAR, str(path)) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))


def read_bytes(path: Path) -> bytes:
    """Read a regular file.

    Raises
    ------
    OSError
        As for `open_regular`.
    """
    with open_regular(path) as stream:
        return stream.read()


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read a regular file as text.

    Raises
    ------
    OSError
        As for `open_regular`.
    UnicodeDecodeError
        It is not of this encoding, and `errors` does not allow for this.
    """
    return read_bytes(path).decode(encoding, errors)


def read_packaged(package: str, *names: str) -> bytes:
    """Read a file that comes with a package of the app."""
    return resources.files(package).joinpath(*names).read_bytes()


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Write a file of a folder that this process is making, where nothing else reads it yet.

    Raises
    ------
    OSError
        It cannot be written.
    """
    path.write_bytes(data)


def open_new(path: Path) -> BufferedWriter:
    """Open a file for writing that is not there yet; its folder is made.

    Raises
    ------
    OSError
        It is there, or cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def open_part(path: Path, *, append: bool) -> BufferedWriter:
    """Open a file that is written bit by bit, such as a download; appended to, or begun again.

    Raises
    ------
    OSError
        It cannot be written.
    """
    return path.open("ab" if append else "wb")


def status(path: Path) -> os.stat_result:
    """Give size, kind and times of what a path leads to.

    Raises
    ------
    OSError
        There is nothing, or it cannot be reached.
    """
    return path.stat()


def is_file(path: Path) -> bool:
    """Whether a path leads to a regular file that can be reached."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return False


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder that can be reached."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List the entries of a folder, sorted by name.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk through a folder as `os.walk` does: links to folders are not followed.

    Yields
    ------
    folder : Path
    subfolders : list of str
        Those that the caller removes from the list are not entered.
    files : list of str
        All other names, whatever they are.
    """
    for path, subfolders, names in os.walk(folder):
        yield Path(path), subfolders, names


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is not TOML; the message says where.
    """
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not TOML ({error})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def remove(paths: Iterable[Path]) -> None:
    """Remove files that may be there."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _not_written(error, f"{path}: cannot be removed ({reason(error)}).") from None


def clean(folders: Iterable[Path], *, locks: bool = True) -> None:
    """Remove temporary files and folders, and locks, whose owners are gone.

    What cannot be removed, such as files of another user, stays.

    Parameters
    ----------
    folders : iterable of Path
        Searched without their subfolders; those that cannot be read are skipped.
    locks : bool
        Remove locks, too. Not in folders that other programs share.
    """
    for folder in folders:
        try:
            names = [entry.name for entry in list_folder(folder)]
        except OSError:
            continue
        for path in (folder / name for name in names):
            if (owner := _TEMPORARY.match(path.name)) and _gone(owner["host"], int(owner["pid"])):
                with suppress(OSError):
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)
            elif locks and path.name.startswith(".") and path.suffix == ".lock":
                # Taking and releasing a lock that nobody holds removes its file.
                with suppress(OutputError), lock(path):
                    pass


@contextmanager
def temporary_folder(name: str, parent: Path) -> Iterator[Path]:
    """Make a temporary folder for a ``with`` block; one that a killed run left is removed.

    Parameters
    ----------
    name : str
        Part of its name, which also contains its owner.
    parent : Path
        Created if needed.

    Raises
    ------
    OSError
        It cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    clean([parent], locks=False)
    folder = parent / owned_name(name)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _gone(host: str, pid: int) -> bool:
    if host != _host():
        return False  # another machine's processes cannot be seen from here
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Hold a lock for a ``with`` block, without waiting for it.

    Parameters
    ----------
    path : Path
        Lock file; created if needed and removed at the end.

    Yields
    ------
    bool
        Whether the lock was acquired; False if another process holds it. On a file system
        without locks it always is, and two runs at once may do the same work twice.
    """
    stream = _acquire(path)
    try:
        yield stream is not None
    finally:
        if stream is not None:
            with suppress(OSError):  # in a folder of another user; it holds nothing then
                path.unlink(missing_ok=True)
            os.close(stream)


def _acquire(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            stream = _open_lock(path)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(stream)
                    return None
                # ENOSYS, ENOTSUP, ENOLCK: a file system without locks
            # The owner before may have removed the file between our opening and locking it.
            try:
                if os.path.samestat(os.fstat(stream), path.stat()):
                    return stream
            except FileNotFoundError:
                pass
            os.close(stream)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PlaceError(f"{path} is a link, not a lock of this app. Remove it.") from None
        raise _not_written(error, f"{path.parent}: cannot be written ({reason(error)}).") from None


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, _LOCK_FLAGS, 0o666)
    except PermissionError:  # a file of another user can be locked if it can be read
        with suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        raise


def is_web_page(path: Path) -> bool:
    """Whether a file starts like HTML, such as a login page instead of the requested file."""
    with open_regular(path) as stream:
        return stream.read(1000).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems do not sync folders
    finally:
        os.close(descriptor)
