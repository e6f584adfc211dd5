"""Files are there whole or not at all, and runs do not cross."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bids_app.errors import ImageError, OutputError, PlaceError
from bids_app.io import files
from bids_app.io.nifti import file_sha256, load_image, read_nifti
from bids_app.io.tables import load_json, read_json, read_table, read_user_table

PACKAGE = Path(files.__file__).resolve().parents[1]


# Methods of paths that read, write or look at files: `bids_app.io` has functions for them, which
# wait for no FIFO and say in one line what is wrong.
OF_FILES = {
    "open", "read_text", "read_bytes", "write_text", "write_bytes", "iterdir", "stat", "lstat",
    "walk",
}  # fmt: skip
# What reads the kernel's own files, below the layer of `bids_app.io`; archives that are open.
ALLOWED = {("cpus.py", "read_text"), ("models/importers/nnunet_v1/unpack.py", "open")}


def test_only_io_opens_files_and_looks_at_them():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent == PACKAGE / "io":
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in OF_FILES:
                found.add((path.relative_to(PACKAGE).as_posix(), node.func.attr))
    assert found == ALLOWED


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b.txt"
    files.write_atomic(path, b"one")
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    files.write_atomic(path, b"one")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        files.write_atomic(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_an_unchanged_shared_file_is_left_alone(tmp_path):
    path = tmp_path / "b.txt"
    files.write_if_changed(path, b"one")
    before = path.stat().st_ino
    files.write_if_changed(path, b"one")
    assert path.stat().st_ino == before
    files.write_if_changed(path, b"two")
    assert path.read_bytes() == b"two"


def test_temporary_files_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path):
    dead = subprocess.run(  # a process that is gone has its number free
        [
            sys.executable,
            "-c",
            "from bids_app.io import files; print(files.owned_name('x.nii.gz'))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    elsewhere = ".x.nii.gz.another-machine_1_0123abcd.tmp"
    for name in (dead, elsewhere, files.owned_name("x.nii.gz"), ".x.nii.gz.tmp"):
        (tmp_path / name).touch()
    files.clean([tmp_path, tmp_path / "absent"])
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {elsewhere, files.owned_name("x.nii.gz"), ".x.nii.gz.tmp"}


def test_what_another_user_left_stays_and_stops_nothing(tmp_path, monkeypatch):
    dead = tmp_path / files.owned_name("x").replace(f"_{os.getpid()}_", "_999999999_")
    lock = tmp_path / ".x.lock"
    dead.touch()
    lock.touch()

    def deny(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(ProcessLookupError))
    monkeypatch.setattr(Path, "unlink", deny)
    files.clean([tmp_path])
    with files.lock(lock) as held:
        assert held
    assert dead.exists()
    assert lock.exists()


def test_a_lock_that_can_only_be_read_is_a_lock(tmp_path, monkeypatch):
    path = tmp_path / ".x.lock"
    path.touch()
    open_ = os.open

    def read_only(name, flags, *rest, **more):
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(name))
        return open_(name, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    with files.lock(path) as first, files.lock(path) as second:
        assert first
        assert not second


def test_only_what_concerns_one_place_leaves_the_others(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x", tmp_path / "folder", tmp_path / ("a" * 300)):
        with pytest.raises(PlaceError, match="cannot be written"):
            files.write_atomic(path, b"")
    (tmp_path / "folder" / "x").touch()
    with pytest.raises(PlaceError, match="cannot be removed"):
        files.remove([tmp_path / "folder"])

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left") as raised:
        files.write_atomic(tmp_path / "y", b"")
    assert not isinstance(raised.value, PlaceError)


def test_a_temporary_folder_of_a_killed_process_is_removed_by_the_next(tmp_path):
    killed = (
        "import os, pathlib, sys; from bids_app.io.files import temporary_folder\n"
        "with temporary_folder('work', pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'x').touch()\n"
        "    os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=True)
    (left,) = tmp_path.iterdir()
    other = tmp_path / ".other-program.lock"
    other.touch()
    with files.temporary_folder("work", tmp_path) as folder:
        assert not left.exists()
        assert sorted(tmp_path.iterdir()) == sorted([folder, other])
    assert list(tmp_path.iterdir()) == [other]


def test_what_is_not_there_or_not_a_name_is_no_file_and_no_folder(tmp_path):
    for path in (tmp_path / "x", tmp_path / "a\0b", tmp_path / ("a" * 300)):
        assert not files.is_file(path)
        assert not files.is_folder(path)
    os.mkfifo(tmp_path / "fifo")
    assert not files.is_file(tmp_path / "fifo")
    assert files.is_folder(tmp_path)


def test_a_lock_is_had_once_and_leaves_no_file(tmp_path):
    path = tmp_path / ".x.lock"
    with files.lock(path) as first, files.lock(path) as second:
        assert first
        assert not second
        assert path.exists()
    assert not path.exists()
    with files.lock(path) as again:
        assert again


def test_a_lock_ends_with_its_process_and_its_file_is_cleaned_away(tmp_path):
    path = tmp_path / ".x.lock"
    code = (
        "import os, pathlib, sys; from bids_app.io import files\n"
        "held = files.lock(pathlib.Path(sys.argv[1])); held.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists()
    with files.lock(path) as had:
        assert had
    path.touch()
    files.clean([tmp_path])
    assert not path.exists()


def test_folders_that_links_lead_elsewhere_are_refused(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / "sub-02").mkdir(parents=True)
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(out)
    (out / "sub-01").symlink_to("../elsewhere")
    (out / "sub-03").symlink_to("sub-02")
    (out / "sub-04").symlink_to(tmp_path / "nowhere")
    for folder in (out, tmp_path / "link"):
        files.check_inside(folder, [folder, folder / "sub-02" / "anat", folder / "sub-03"])
        for name in ("sub-01", "sub-01/ses-1/anat", "sub-04", "../out2"):
            with pytest.raises(OutputError, match="out of the output folder"):
                files.check_inside(folder, [folder / name])


def test_a_file_that_is_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "file").symlink_to("target")
    files.write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_lock_that_is_a_link_is_not_followed_and_a_fifo_does_not_hang(tmp_path):
    (tmp_path / ".x.lock").symlink_to(tmp_path / "made")
    with pytest.raises(OutputError, match="is a link"), files.lock(tmp_path / ".x.lock"):
        pass
    assert not (tmp_path / "made").exists()
    os.mkfifo(tmp_path / ".y.lock")
    with files.lock(tmp_path / ".y.lock") as held:
        assert held


@pytest.fixture(params=["fifo", "socket", "device", "link to a device"])
def special(request, tmp_path):
    """A path that opens slowly, never, or without an end."""
    path = tmp_path / "special"
    if request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif request.param == "device":
        return Path("/dev/zero")
    else:
        path.symlink_to("/dev/zero")
    return path


def test_what_is_no_regular_file_is_refused_at_once(special):
    for read in (files.read_bytes, files.read_toml, load_json, read_table, load_image):
        with pytest.raises(OSError, match="not a regular file"):
            read(special)
    with pytest.raises(ValueError, match="not a regular file"):
        read_user_table(special)
    for use in (read_nifti, file_sha256):
        with pytest.raises(ImageError, match=r"^it is not a regular file$"):
            use(special)
    assert read_json(special) == {}


def test_toml_nested_too_deeply_is_a_value_error(tmp_path):
    (tmp_path / "a.toml").write_text("a = " + "[" * 50_000)
    with pytest.raises(ValueError, match=r"nested too deeply|not TOML"):
        files.read_toml(tmp_path / "a.toml")


def test_a_folder_in_place_of_a_file_is_named_as_one(tmp_path):
    with pytest.raises(IsADirectoryError):
        files.read_bytes(tmp_path)


def test_a_special_file_in_place_of_an_output_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "x")
    files.write_if_changed(tmp_path / "x", b"new")
    assert files.read_bytes(tmp_path / "x") == b"new"
