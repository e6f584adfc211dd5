"""The validator on the participants asked for: its words, what stops a run and what does not."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_app.bids.dataset import APP_NAME
from bids_app.bids.validation import Report, validate
from bids_app.errors import DatasetError, OutputError

CLEAN = Report(errors=(), image_errors={})
ANNEX = Path(".git/annex/objects/Qx/7k/MD5E-s9--0.nii.gz/MD5E-s9--0.nii.gz")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A valid dataset of two participants with images of a few voxels."""
    root = tmp_path / "data"
    for label in ("01", "02"):
        path = root / f"sub-{label}/anat/sub-{label}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
    describe(root)
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    return root


def describe(root: Path, **fields: object) -> None:
    description = {"Name": "Pair", "BIDSVersion": "1.10.0", **fields}
    (root / "dataset_description.json").write_text(json.dumps(description))


def test_the_bundled_datasets_are_what_they_say(
    valid_dataset: Path, flat_dataset: Path, broken_dataset: Path
) -> None:
    assert validate(valid_dataset) == CLEAN
    assert validate(flat_dataset) == CLEAN
    report = validate(broken_dataset)
    assert report.image_errors == {}
    assert report.errors == (
        "[ERROR] JSON_SCHEMA_VALIDATION_ERROR Invalid JSON sidecar file. The sidecar is not "
        "formatted according the schema.\n"
        "\tAuthors\n"
        "\t/dataset_description.json\n"
        "\tmust be array\n"
        "\tField description: List of individuals who contributed to the creation/curation of "
        "the dataset.",
    )


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("ds011", ("JSON_SCHEMA_VALIDATION_ERROR", "\tReferencesAndLinks\n", "must be array")),
        ("ds002748", ("TSV_VALUE_INCORRECT_TYPE", "\tgender\n", "/participants.tsv:2\n\t'm'")),
        ("pumi", ("JSON_SCHEMA_VALIDATION_ERROR", "\tSourceDatasets\n", "must be array")),
    ],
)
def test_the_shared_datasets_have_one_error_each(
    shared_data: Path, name: str, lines: tuple[str, ...]
) -> None:
    (error,) = validate(shared_data / name).errors
    assert all(line in error for line in lines)


def test_errors_in_one_image_mark_that_image_and_stop_nothing(mixed_dataset: Path) -> None:
    report = validate(mixed_dataset)
    assert report.errors == ()
    codes = {
        path.split("/")[0]: text.split()[1] for path, text in sorted(report.image_errors.items())
    }
    assert codes == {
        "sub-dangling": "SYMLINK_BROKEN",
        "sub-empty": "EMPTY_FILE",
        "sub-fourdimensional": "T1W_FILE_WITH_TOO_MANY_DIMENSIONS",
        "sub-text": "NIFTI_HEADER_UNREADABLE",
    }


@pytest.mark.parametrize("label", ["01", "sub-01"])
def test_an_error_of_another_participant_is_not_looked_at(pair: Path, label: str) -> None:
    (pair / "sub-02/anat/sub-02_notes.txt").write_text("x")
    assert validate(pair, [label]) == CLEAN
    (error,) = validate(pair, ["02"]).errors
    assert "/sub-02/anat/sub-02_notes.txt" in error


def test_the_rest_of_the_dataset_is_not_missed(pair: Path) -> None:
    # A sidecar for others alone has no data file here, and their rows stay in the table.
    (pair / "acq-fast_T1w.json").write_text("{}")
    path = pair / "sub-02/anat/sub-02_T1w.nii.gz"
    path.rename(path.with_name("sub-02_acq-fast_T1w.nii.gz"))
    assert validate(pair) == CLEAN
    assert validate(pair, ["01"]) == CLEAN


def test_one_text_tells_of_all_files_with_the_same_error(pair: Path) -> None:
    for number in range(4):
        (pair / f"sub-01/anat/sub-01_notes{number}.txt").write_text("x")
    (error,) = validate(pair).errors
    assert error.splitlines()[1:] == [
        "\t/sub-01/anat/sub-01_notes0.txt",
        "\t/sub-01/anat/sub-01_notes1.txt",
        "\t2 more files with the same issue",
    ]


def test_content_in_git_annex_is_read_where_it_is(pair: Path) -> None:
    path = pair / "sub-01/anat/sub-01_T1w.nii.gz"
    content = pair / ANNEX
    content.parent.mkdir(parents=True)
    path.rename(content)
    path.symlink_to(os.path.relpath(content, path.parent))
    assert validate(pair) == CLEAN


def test_content_not_yet_fetched_marks_images_alone(pair: Path) -> None:
    missing = "sub-01/anat/sub-01_run-2_T1w.nii.gz"
    (pair / missing).symlink_to(Path("../..") / ANNEX)
    (pair / missing.replace(".nii.gz", ".json")).symlink_to(Path("../..") / ANNEX)
    report = validate(pair)
    assert report.errors == ()
    assert list(report.image_errors) == [missing]


def test_files_that_describe_content_not_yet_fetched_are_no_error(pair: Path) -> None:
    anat = pair / "sub-01/anat"
    (anat / "sub-01_run-2_T1w.nii.gz").symlink_to(Path("../..") / ANNEX)
    (anat / "sub-01_run-2_T1w.json").write_text("{}")
    (pair / "run-2_T1w.json").write_text("{}")
    scans = "filename\nanat/sub-01_T1w.nii.gz\nanat/sub-01_run-2_T1w.nii.gz\n"
    (pair / "sub-01/sub-01_scans.tsv").write_text(scans)
    assert validate(pair).errors == ()


def test_a_sidecar_of_no_file_is_an_error_also_beside_content_not_yet_fetched(pair: Path) -> None:
    anat = pair / "sub-01/anat"
    (anat / "sub-01_run-2_T1w.nii.gz").symlink_to(Path("../..") / ANNEX)
    (anat / "sub-01_run-3_T1w.json").write_text("{}")
    (error,) = validate(pair).errors
    assert "SIDECAR_WITHOUT_DATAFILE" in error


def test_linked_folders_are_followed_and_cycles_end(pair: Path, tmp_path: Path) -> None:
    (pair / "sub-02").rename(tmp_path / "elsewhere")
    (pair / "sub-02").symlink_to(tmp_path / "elsewhere")
    assert validate(pair) == CLEAN
    (pair / "sub-01/anat/up").symlink_to("..")
    (error,) = validate(pair).errors
    assert "SYMLINK_CYCLE" in error


def test_folders_that_link_to_each_other_end(pair: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (pair / "stimuli" / name).mkdir(parents=True)
        (pair / "stimuli" / name / "link").symlink_to(pair / "stimuli" / other)
    assert validate(pair) == CLEAN


def test_a_fifo_in_place_of_an_image_or_sidecar_is_not_waited_for(pair: Path) -> None:
    image = next(pair.glob("sub-01/**/*_T1w.nii.gz"))
    image.unlink()
    os.mkfifo(image)
    report = validate(pair)
    assert report.errors == ()
    assert list(report.image_errors) == [image.relative_to(pair).as_posix()]
    sidecar = image.with_name(image.name.replace(".nii.gz", ".json"))
    sidecar.unlink(missing_ok=True)
    os.mkfifo(sidecar)
    assert any(sidecar.name in error for error in validate(pair).errors)


def test_no_network_is_asked_for(pair: Path) -> None:
    # This schema would have to be fetched; without it the tags just go unchecked.
    describe(pair, HEDVersion="9.9.9")
    (pair / "sub-01/beh").mkdir()
    events = pair / "sub-01/beh/sub-01_task-x_events.tsv"
    events.write_text("onset\tduration\tHED\n1\t1\tRed\n")
    events.with_suffix(".json").write_text('{"TaskName": "x"}')
    assert validate(pair) == CLEAN


def test_nothing_is_left_behind(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DENO_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = sorted(pair.rglob("*"))
    validate(pair)
    assert not [*home.iterdir(), *temporary.iterdir()]
    assert sorted(pair.rglob("*")) == before


def test_the_work_folder_may_be_relative_and_lie_in_the_dataset(
    pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair / "work").mkdir()
    monkeypatch.chdir(pair)
    assert validate(Path(), work_dir=Path("work")) == CLEAN
    assert not list((pair / "work").iterdir())


@pytest.mark.parametrize("place", ["out", "results/of mine/brainstem", "phenotype/out"])
def test_the_output_folder_may_lie_anywhere_in_the_dataset(
    pair: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pair / place / "logs/run.log"
    log.parent.mkdir(parents=True)
    log.touch()
    assert validate(pair).errors
    assert validate(pair, written=[pair / place]) == CLEAN
    monkeypatch.chdir(pair)
    assert validate(Path(), ["01"], written=[Path(place)]) == CLEAN


@pytest.mark.parametrize("place", ["out", "results/brainstem", "a/b/c"])
def test_results_of_earlier_runs_are_no_part_of_the_dataset(pair: Path, place: str) -> None:
    folder = pair / place
    (folder / "logs").mkdir(parents=True)
    (folder / "logs/run.log").touch()
    (folder / "group.html").touch()
    described = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": APP_NAME}]}
    (folder / "dataset_description.json").write_text(json.dumps(described))
    assert validate(pair) == CLEAN
    (folder.parent / "notes.xyz").touch()
    assert validate(pair).errors, "a file beside them is"


@pytest.mark.parametrize("generators", ["Tool", [{"Name": "Tool"}], ["Tool"], None])
def test_results_of_other_tools_are_part_of_the_dataset(pair: Path, generators: object) -> None:
    (pair / "other").mkdir()
    described = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": generators}
    (pair / "other/dataset_description.json").write_text(json.dumps(described))
    assert validate(pair).errors


def test_without_a_place_to_work_it_says_so(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--work-dir"):
        validate(pair, work_dir=tmp_path / "file" / "work")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        validate(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["absent", "not executable", "a folder"])
def test_a_validator_that_cannot_start_is_one_line(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    deno = tmp_path / "deno"
    if kind == "not executable":
        deno.touch(mode=0o644)
    elif kind == "a folder":
        deno.mkdir()
    monkeypatch.setattr("bids_app.bids.validation._validator_command", lambda: [str(deno)])
    with pytest.raises(DatasetError, match=r"cannot start \(.*--skip-bids-validation") as raised:
        validate(pair)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", "signal 9"),
        ("echo '{}'", "status 0"),
        ("printf '\\377' >&2; exit 3", "failed"),
    ],
)
def test_a_validator_that_is_killed_or_babbles_is_one_line(
    pair: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    command = ["sh", "-c", script]
    monkeypatch.setattr("bids_app.bids.validation._validator_command", lambda: command)
    with pytest.raises(DatasetError, match=said) as raised:
        validate(pair)
    assert "\n" not in str(raised.value)


def test_a_validator_that_fails_is_an_error(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bids_app.bids.validation._validator_command", lambda: ["false"])
    with pytest.raises(DatasetError, match="--skip-bids-validation"):
        validate(pair)
