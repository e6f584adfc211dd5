"""Output datasets are read back by schemas; a damaged file stops nothing."""

from __future__ import annotations

import json
import os

import pytest

from bids_app.bids.columns import FAILURES, VOLUMES
from bids_app.bids.outputs import Outputs
from bids_app.bids.results import (
    FileRecord,
    RegionVolume,
    Sidecar,
    fails_since,
    find_changed,
    find_differences,
    keep_newest,
    read_failures,
    read_results,
)
from bids_app.io.tables import dump_rows

SIDECAR = {
    "Sources": ["bids:raw:sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"],
    "Model": {"Name": "open", "Version": "1.6.0", "Regions": ["pons"], "SHA256": "ab"},
    "InputSHA256": "cd",
    "Settings": {"Folds": "all", "Mirroring": True},
    "Quality": {"voxel_size_mm": [1.0, 1.0, 1.2], "etiv_mm3": 1500000.0},
    "Flags": ["wrong_order"],
    "Seconds": 3,
    "Later": "key of a later version",
}
ROWS = (
    RegionVolume(2, "pons", "PO", 10, 12.5, None, 1, 0.5, -1.0, 2.0),
    RegionVolume(None, "brainstem", "BS", 10, 12.5),
)


def add(folder, stem="sub-01/ses-1/anat/sub-01_ses-1_acq-hi_seg-open1", sidecar=SIDECAR):
    path = folder / f"{stem}_dseg.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sidecar if isinstance(sidecar, str) else json.dumps(sidecar))
    volumes = folder / f"{stem}_volumes.tsv"
    volumes.write_bytes(dump_rows([row.row() for row in ROWS], VOLUMES))
    return path, volumes


def test_a_result_is_read_with_its_types(tmp_path):
    sidecar, volumes = add(tmp_path)
    (result,) = read_results(tmp_path)
    assert (result.participant, result.session, result.label) == ("sub-01", "ses-1", "open1")
    assert result.entities == {"acq": "hi"}
    assert result.source == "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    assert result.model == ("open", "1.6.0")
    assert result.volumes == ROWS
    assert (result.outputs.sidecar, result.outputs.volumes) == (sidecar, volumes)
    assert result.outputs.figures == tmp_path / "sub-01/figures"
    assert result.sidecar.quality == {"etiv_mm3": 1500000.0}
    assert result.sidecar.voxel_size_mm == (1.0, 1.0, 1.2)
    assert result.sidecar.flags == ("wrong_order",)


def test_a_map_of_another_suffix_is_a_result_of_its_own(tmp_path):
    stem = "sub-01/anat/sub-01_run-1_seg-open1"
    for described, suffix in (("", "T1w"), ("_desc-T2w", "T2w")):
        sources = [f"bids:raw:sub-01/anat/sub-01_run-1_{suffix}.nii.gz"]
        add(tmp_path, f"{stem}{described}", SIDECAR | {"Sources": sources})
    first, second = read_results(tmp_path)
    assert first.label == second.label == "open1"
    assert second.entities == {"run": "1"}
    assert second.outputs.stem == "sub-01_run-1_seg-open1_desc-T2w"
    names = [result.outputs.comparison.name for result in (first, second)]
    assert names == ["sub-01_run-1_comparison.tsv", "sub-01_run-1_desc-T2w_comparison.tsv"]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("sub-01+A/anat/sub-01+A_seg-open1", ("sub-01+A", None, {})),
        ("sub-1/ses-a+b/anat/sub-1_ses-a+b_seg-open1", ("sub-1", "ses-a+b", {})),
        (
            "sub-+/ses-+/anat/sub-+_ses-+_acq-hi+res_run-1_seg-open1",
            ("sub-+", "ses-+", {"acq": "hi+res", "run": "1"}),
        ),
    ],
)
def test_labels_may_hold_a_plus_sign(tmp_path, stem, expected):
    add(tmp_path, stem)
    (result,) = read_results(tmp_path)
    assert (result.participant, result.session or None, result.entities) == expected
    (of_one,) = read_results(tmp_path, expected[0])
    assert of_one == result


def test_keys_that_an_earlier_version_lacks_have_defaults(tmp_path):
    add(tmp_path, sidecar={"Sources": []})
    (result,) = read_results(tmp_path)
    assert result.source == ""
    assert result.model == ("open1", "n/a")
    assert result.sidecar.seconds is None
    assert Sidecar.model_validate({"Locator": {"Name": "open"}}).localizer.name == "open"


@pytest.mark.parametrize(
    "sidecar",
    [
        "", "{", "[]", "{}", "[" * 5000, '{"a":' * 5000,
        '{"Model": null}', '{"Model": {}, "Flags": [1]}',
        '{"Model": {}, "Quality": {"etiv_mm3": "much"}}', '{"Model": {}, "Seconds": []}',
    ],
)  # fmt: skip
def test_a_damaged_sidecar_is_not_complete_and_the_rest_goes_on(tmp_path, caplog, sidecar):
    add(tmp_path, sidecar=sidecar)
    add(tmp_path, "sub-02/anat/sub-02_seg-open1")
    assert [result.participant for result in read_results(tmp_path)] == ["sub-02"]
    (record,) = caplog.records
    assert record.getMessage().startswith("sub-01/ses-1/anat/sub-01_ses-1_acq-hi_seg-open1_dseg.js")
    assert "counts as not complete" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("table", [b"", b"index\tname\n1\n", b"name\tvolume_mm3\npons\tn/a\n",
                                   b"name\tvolume_mm3\npons\tmuch\n", b"\xff\xfe",
                                   b"name\tvolume_mm3\tvoxels\npons\t1\tinf\n"])  # fmt: skip
def test_a_damaged_table_of_volumes_is_not_complete(tmp_path, caplog, table):
    _, volumes = add(tmp_path)
    volumes.write_bytes(table)
    assert not list(read_results(tmp_path))
    assert "damaged" in caplog.text


def test_what_another_run_has_just_removed_is_skipped_silently(tmp_path, caplog):
    _, volumes = add(tmp_path)
    volumes.unlink()
    assert not list(read_results(tmp_path))
    assert not caplog.records


def test_results_of_one_participant_alone(tmp_path):
    for person in ("sub-02", "sub-01"):
        add(tmp_path, f"{person}/anat/{person}_seg-open1")
    assert [r.participant for r in read_results(tmp_path)] == ["sub-01", "sub-02"]
    assert [r.participant for r in read_results(tmp_path, "sub-02")] == ["sub-02"]


def test_figures_are_those_held_or_else_those_on_disk(tmp_path):
    add(tmp_path)
    (result,) = read_results(tmp_path)
    assert result.picture() is None
    result.outputs.picture.parent.mkdir()
    result.outputs.picture.write_bytes(b"picture")
    assert result.picture() == b"picture"


def test_numbers_of_a_new_row_are_those_that_are_read_back():
    row = RegionVolume.rounded(
        index=1, name="pons", abbreviation="PO", voxels=3, volume_mm3=1.23456, clusters=1,
        volume_sd_mm3=float("nan"), surface_mm2=2.0004,
    )  # fmt: skip
    assert (row.volume_mm3, row.volume_sd_mm3, row.surface_mm2) == (1.235, None, 2.0)


def fail(folder, run, **values):
    path = folder / "logs" / run / "failures.tsv"
    path.parent.mkdir(parents=True)
    values = {"participant_id": "sub-01", "source": "a", "label": "open1"} | values
    path.write_bytes(dump_rows([values], FAILURES))
    return path


def test_the_latest_failure_of_an_image_counts(tmp_path):
    fail(tmp_path, "1", reason="no room", acq="hi")
    fail(tmp_path, "2", reason="constant", acq="hi")
    fail(tmp_path, "3", reason="constant", label="mars")
    first, second = read_failures(tmp_path)
    assert (first.reason, first.entities, first.session) == ("constant", {"acq": "hi"}, "")
    assert second.label == "mars"


def test_a_damaged_table_of_failures_is_skipped(tmp_path, caplog):
    fail(tmp_path, "1").write_bytes(b"\xff\n\xff")
    fail(tmp_path, "2", source=None)
    fail(tmp_path, "3")
    assert len(read_failures(tmp_path)) == 1
    assert len(caplog.records) == 2


@pytest.fixture
def complete(tmp_path):
    """Files of a complete image whose sidecar records them; what a run compares with them."""
    outputs = Outputs(tmp_path / "anat", "sub-01_seg-open1", tmp_path / "figures")
    for path in outputs.expected(probabilities=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode())
    outputs.volumes.write_bytes(dump_rows([row.row() for row in ROWS], VOLUMES))
    recorded = (outputs.dseg, outputs.probseg, outputs.volumes)
    files = {
        path.name: FileRecord.of(path, path.read_bytes()).model_dump(by_alias=True)
        for path in recorded
    }
    outputs.sidecar.write_text(json.dumps(SIDECAR | {"Files": files}))
    return outputs


def differences(outputs, *, probabilities=False):
    settings = SIDECAR["Settings"]
    models = {"Model": SIDECAR["Model"]}
    return find_differences(outputs, "cd", models, settings, probabilities=probabilities)


def test_files_as_they_were_written_are_complete(complete):
    assert differences(complete) == {}
    complete.probseg.unlink()  # not wanted by this run
    assert differences(complete) == {}
    assert differences(complete, probabilities=True) is None


def test_another_time_alone_is_no_change(complete):
    for path in complete.expected(probabilities=True):
        os.utime(path, (1, 1))
    assert differences(complete) == {}
    assert find_changed(complete) == []


@pytest.mark.parametrize("content", [b"", b"cut", b"SUB-01_seg-open1_dseg.nii.gz"])
@pytest.mark.parametrize("name", ["dseg", "probseg", "volumes"])
def test_a_file_that_was_changed_is_not_complete(complete, name, content):
    path = getattr(complete, name)
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert differences(complete) is None
    assert find_changed(complete) == [path]


def test_a_folder_in_place_of_a_file_is_not_complete(complete):
    complete.probseg.unlink()
    complete.probseg.mkdir()
    assert find_changed(complete) == [complete.probseg]


def test_results_without_a_record_stay_complete_if_they_can_be_read(complete):
    complete.sidecar.write_text(json.dumps(SIDECAR))
    complete.dseg.write_bytes(b"changed")
    assert differences(complete) == {}
    complete.volumes.write_bytes(b"")
    assert differences(complete) is None


@pytest.mark.parametrize(
    "part",
    [
        {"Files": 5}, {"Files": {"a": {}}}, {"Files": {"a": {"Size": "x"}}}, {"Quality": [1]},
        {"Flags": 5},
    ],
)  # fmt: skip
def test_a_sidecar_that_the_group_level_refuses_is_not_complete(complete, part):
    complete.sidecar.write_text(json.dumps(SIDECAR | part))
    assert differences(complete) is None


def test_a_record_of_a_file_elsewhere_is_ignored(complete):
    other = {"../figures/x": {"Size": 1, "Modified": 1, "SHA256": ""}}
    complete.sidecar.write_text(json.dumps(SIDECAR | {"Files": other}))
    assert differences(complete) == {}


EARLY, LATE = "2026-01-01T00:00:00.000000Z", "2027-01-01T00:00:00.000000Z"
SOURCE = SIDECAR["Sources"][0].removeprefix("bids:raw:")


@pytest.mark.parametrize(
    ("verified", "run", "failed", "failure_counts"),
    [
        (EARLY, "x", LATE, True),
        (LATE, "x", EARLY, False),
        (EARLY, "20270101-000000_0123abcd", None, True),  # a table without times
        (LATE, "20260101-000000_0123abcd", None, False),
        (EARLY, "x", None, False),  # unknown
    ],
)
def test_what_happened_last_counts(tmp_path, verified, run, failed, failure_counts):
    add(tmp_path, sidecar=SIDECAR | {"Verified": verified})
    fail(tmp_path, run, source=SOURCE, time=failed)
    (failure,) = read_failures(tmp_path)
    (result,) = read_results(tmp_path)
    newest = keep_newest([result], [failure])
    assert newest == (([], [failure]) if failure_counts else ([result], []))
    assert fails_since(result.outputs, failure) == failure_counts


def test_a_result_without_a_time_is_as_old_as_its_sidecar(tmp_path):
    sidecar, _ = add(tmp_path)
    os.utime(sidecar, (0, 0))
    fail(tmp_path, "x", source=SOURCE, time=EARLY)
    assert keep_newest(read_results(tmp_path), read_failures(tmp_path))[0] == []
    os.utime(sidecar)
    assert keep_newest(read_results(tmp_path), read_failures(tmp_path))[1] == []


def test_failures_of_other_images_and_models_stay(tmp_path):
    add(tmp_path, sidecar=SIDECAR | {"Verified": EARLY})
    fail(tmp_path, "1", source="other", time=LATE)
    fail(tmp_path, "2", source=SOURCE, label="mars", time=LATE)
    results, failures = keep_newest(read_results(tmp_path), read_failures(tmp_path))
    assert (len(results), len(failures)) == (1, 2)
