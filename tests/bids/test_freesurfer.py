"""Images of heads are found in the folders of FreeSurfer and FastSurfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bids_app.bids.freesurfer import find_image, find_subjects
from bids_app.bids.outputs import Outputs
from bids_app.errors import NoScanError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def subjects(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["orig", "T1", "norm", "brain"], "orig"),
        (["T1", "norm"], "T1"),
        (["norm", "orig_nu"], "norm"),
        (["brain"], None),
    ],
)
def test_the_least_processed_image_of_a_subject_is_taken(
    tmp_path: Path, there: list[str], expected: str | None
) -> None:
    subjects(tmp_path, *(f"bert/mri/{name}.mgz" for name in there))
    found = find_image(tmp_path / "bert")
    assert found == (tmp_path / f"bert/mri/{expected}.mgz" if expected else None)


def test_subjects_are_participants_and_sessions(tmp_path: Path) -> None:
    root = subjects(
        tmp_path,
        "sub-01/mri/orig.mgz",
        "sub-02_ses-a+b/mri/T1.mgz",
        "bert/mri/orig.mgz",
        "fsaverage/mri/orig.mgz",
        "fsaverage5/mri/orig.mgz",
        "qdec/table.dat",
        "sub-03/mri/brain.mgz",
        "sub-04_ses-1.long.sub-04/mri/orig.mgz",
        "sub-04/mri/norm.mgz",
        "sub-04/base-tps",
        "some_one/mri/orig.mgz",
    )
    found = find_subjects(root)
    assert [scan.relative for scan in found.scans] == [
        "bert/mri/orig.mgz", "sub-01/mri/orig.mgz", "sub-02_ses-a+b/mri/T1.mgz",
    ]  # fmt: skip
    assert [(scan.participant, scan.session, scan.suffix) for scan in found.scans] == [
        ("sub-bert", None, "T1w"), ("sub-01", None, "T1w"), ("sub-02", "ses-a+b", "T1w"),
    ]  # fmt: skip
    reasons = dict(found.left_out)
    assert sorted(reasons) == ["some_one", "sub-03", "sub-04", "sub-04_ses-1.long.sub-04"]
    assert "no orig, T1 or norm.mgz" in reasons["sub-03"]
    assert "sub-<label>" in reasons["some_one"]


def test_results_are_named_apart_from_those_of_raw_images(tmp_path: Path) -> None:
    (scan,) = find_subjects(subjects(tmp_path, "sub-01_ses-1/mri/T1.mgz")).scans
    outputs = Outputs.of(tmp_path / "out", scan, "open1")
    assert outputs.dseg == (
        tmp_path / "out/sub-01/ses-1/anat/sub-01_ses-1_seg-open1_desc-T1_dseg.nii.gz"
    )


def test_labels_select_subjects(tmp_path: Path) -> None:
    names = ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1")
    root = subjects(tmp_path, *(f"{name}/mri/orig.mgz" for name in names))
    found = find_subjects(root, participants=["01"], sessions=["ses-2"])
    assert [scan.relative for scan in found.scans] == ["sub-01_ses-2/mri/orig.mgz"]
    with pytest.raises(NoScanError, match=r"has no sub-9\. It has participants 01, 02\."):
        find_subjects(root, participants=["9"])
    with pytest.raises(NoScanError, match=r"--session-label 3\. They have sessions 1, 2\."):
        find_subjects(root, sessions=["3"])


def test_a_folder_without_subjects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_subjects(tmp_path / "gone")
    with pytest.raises(NoScanError, match=r"No subject of FreeSurfer in .*\.$"):
        find_subjects(subjects(tmp_path, "fsaverage/mri/orig.mgz"))
    with pytest.raises(NoScanError, match="sub-01: its folder mri has no orig"):
        find_subjects(subjects(tmp_path, "sub-01/mri/aseg.mgz"))
