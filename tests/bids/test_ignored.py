"""Patterns of .bidsignore mean what they mean in .gitignore."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from bids_app.bids.ignored import Ignored

if TYPE_CHECKING:
    from pathlib import Path

PATHS = (
    "a.nii",
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_run-2_T1w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
    "sub-02/extra data/x.txt",
    "extra/sub-02/anat/a.nii",
)


@pytest.mark.parametrize(
    "lines",
    [
        ["sub-01"],
        ["sub-01/"],
        ["/sub-02/"],
        ["*_run-*"],
        ["**/anat/*_T1w.nii.gz"],
        ["sub-01/**"],
        ["sub-0?/anat"],
        ["sub-0[!1]/"],
        ["sub-0[1-3]/anat/*"],
        ["*.nii.gz", "!*_run-2_*"],
        ["sub-01/", "!sub-01/anat/sub-01_T1w.nii.gz"],
        ["extra*", "# a comment", "", "  "],
        ["sub-*/**/*.gz"],
        ["anat/*"],
        ["sub-*/anat/*", "!*_run-2*"],
        ["extra data/"],
        ["*.nii   "],
        ["\\*.nii", "a.nii/"],
        ["/a.nii"],
        ["sub-02/**/anat"],
        ["**"],
        ["[z-a]", "sub-01/a*t/"],
    ],
)
def test_the_same_files_are_listed_as_by_git(tmp_path: Path, lines: list[str]) -> None:
    for name in PATHS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("\n".join(lines) + "\n")
    git = ["git", "-C", str(tmp_path), "-c", "core.excludesFile=/dev/null"]
    subprocess.run([*git, "init", "-q"], check=True)
    checked = subprocess.run(
        [*git, "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(PATHS) + "\0",
        capture_output=True,
        text=True,
        check=False,
    )
    expected = set(filter(None, checked.stdout.split("\0")))
    ignored = Ignored(lines)
    assert {path for path in PATHS if path in ignored} == expected


def test_a_dataset_without_the_file_ignores_nothing(tmp_path: Path) -> None:
    assert not any(path in Ignored.of(tmp_path) for path in PATHS)


@pytest.mark.parametrize("text", [b"\xef\xbb\xbfsub-01\r\n", b"# \xe4\nsub-01", b"sub-01/anat/\n"])
def test_the_file_may_be_written_by_any_editor(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".bidsignore").write_bytes(text)
    assert {path for path in PATHS if path in Ignored.of(tmp_path)} == set(PATHS[1:3])
