"""Where several models have done an image, tables say how far they agree."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_app.bids.columns import COMPARISON, VOLUMES
from bids_app.bids.outputs import Outputs
from bids_app.bids.results import RegionVolume, read_agreement, read_results
from bids_app.io.tables import dump_rows, read_table
from bids_app.measures.volumes import measure_regions
from bids_app.regions import region
from bids_app.workflow.comparison import compare_models

REGIONS = (region(1, "midbrain"), region(2, "pons"), region(3, "medulla"))


def add_result(output_dir, label, maps, *, sha256="a", session="", regions=REGIONS):
    """Write what a run leaves of one image: map, volumes, sidecar."""
    folder = output_dir / "sub-01" / session / "anat"
    stem = "_".join(part for part in ("sub-01", session, f"seg-{label}") if part)
    outputs = Outputs(folder, stem, output_dir / "sub-01" / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(maps, np.diag([2, 1, 1, 1])), outputs.dseg)
    rows = [
        RegionVolume(m.index, m.name, m.abbreviation, m.voxels, m.volume_mm3).row()
        for m in measure_regions(maps, np.diag([2.0, 1, 1, 1]), regions)
    ]
    outputs.volumes.write_bytes(dump_rows(rows, VOLUMES))
    source = f"bids:raw:sub-01/{session}/anat/x_T1w.nii.gz".replace("//", "/")
    model = {"Name": f"my-{label}", "Version": "1.2"}
    content = {"InputSHA256": sha256, "Sources": [source], "Model": model}
    outputs.sidecar.write_text(json.dumps(content))
    return outputs


def compare(output_dir):
    """Compare the models on the images of the participant, and give what was written."""
    return compare_models(read_results(output_dir, "sub-01"))


def blocks(shift=0):
    labels = np.zeros((8, 6, 6), np.uint8)
    labels[1 + shift : 5 + shift, :3, :3] = 1
    labels[1:5, 3:, 3:] = 2
    return labels


@pytest.fixture
def two(tmp_path):
    add_result(tmp_path, "one", blocks())
    return add_result(tmp_path, "two", blocks(shift=1))


def test_two_models_of_an_image_are_compared_region_by_region(two, tmp_path):
    compare(tmp_path)
    rows = read_table(two.comparison)
    assert two.comparison.name == "sub-01_comparison.tsv"
    assert [row["name"] for row in rows] == ["midbrain", "pons", "medulla", "brainstem"]
    assert {(row["model"], row["other_model"]) for row in rows} == {("my-one", "my-two")}
    assert {(row["model_version"], row["other_model_version"]) for row in rows} == {("1.2", "1.2")}
    assert [row["dice"] for row in rows] == ["0.7500", "1.0000", "n/a", "0.8750"]
    assert [row["difference_mm3"] for row in rows] == ["0.000"] * 4
    assert list(json.loads(two.comparison_sidecar.read_text())) == list(COMPARISON)


def test_what_is_no_part_of_the_brainstem_is_not_compared_as_one(two, tmp_path):
    cord = blocks()
    cord[7] = 4
    whole = add_result(tmp_path, "three", cord).volumes.read_text().splitlines()[-1]
    place = add_result(tmp_path, "three", cord, regions=(*REGIONS, region(4, "cord")))
    *lines, _ = place.volumes.read_text().splitlines()
    place.volumes.write_text("\n".join([*lines, whole, ""]))
    add_result(tmp_path, "one", blocks())
    compare(tmp_path)
    rows = {(r["other_model"], r["name"]): r["dice"] for r in read_table(place.comparison)}
    assert rows["my-three", "brainstem"] == "1.0000"


def test_a_difference_of_volume_is_in_mm3_and_percent_of_the_mean(tmp_path):
    smaller = blocks()
    smaller[4, :3, :3] = 0
    add_result(tmp_path, "one", blocks())
    compare(tmp_path)
    place = add_result(tmp_path, "two", smaller)
    assert not place.comparison.exists()
    compare(tmp_path)
    first = read_table(place.comparison)[0]
    assert (first["difference_mm3"], first["difference_percent"]) == ("18.000", "28.57")


def test_three_models_are_compared_in_pairs(two, tmp_path):
    add_result(tmp_path, "three", blocks())
    compare(tmp_path)
    pairs = {(row["model"], row["other_model"]) for row in read_table(two.comparison)}
    assert pairs == {("my-one", "my-three"), ("my-one", "my-two"), ("my-three", "my-two")}


def test_maps_of_two_versions_of_an_image_are_not_compared(two, tmp_path):
    compare(tmp_path)
    add_result(tmp_path, "two", blocks(), sha256="b")
    compare(tmp_path)
    assert not two.comparison.exists()
    assert not two.comparison_sidecar.exists()


def gone(path):
    path.unlink()


def damaged(path):
    content = bytearray(path.read_bytes())
    content[20:] = bytes(len(content) - 20)
    path.write_bytes(content)


def another(path):
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), path)


@pytest.mark.parametrize("change", [gone, damaged, another])
def test_a_map_that_cannot_be_compared_stops_nothing(two, tmp_path, change):
    change(two.dseg)
    compare(tmp_path)
    assert not two.comparison.exists()


def test_what_is_returned_is_what_is_read_back_by_the_group_level(two, tmp_path):
    add_result(tmp_path, "one", blocks(), session="ses-2")
    add_result(tmp_path, "two", blocks(), session="ses-2")
    written = compare(tmp_path)
    assert read_agreement(read_results(tmp_path)) == written
    assert [row.session for row in written] == [""] * 4 + ["ses-2"] * 4
    assert written[-1].source == "sub-01/ses-2/anat/x_T1w.nii.gz"
    assert written[-1].dice == 1


def test_a_damaged_table_is_skipped_by_the_group_level(two, tmp_path, caplog):
    compare(tmp_path)
    two.comparison.write_text("dice\nmuch\n")
    assert read_agreement(read_results(tmp_path)) == []
    assert "damaged" in caplog.text


def test_without_two_models_there_is_no_table(tmp_path):
    add_result(tmp_path, "one", blocks())
    assert compare(tmp_path) == []
    assert not list(tmp_path.rglob("*comparison*"))
