"""The output folder says whose it is, and refuses to be another's."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import bids_app
from bids_app.bids import dataset
from bids_app.errors import OutputError, UsageError
from bids_app.models import store


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "bids", "One")


def make_source(folder, name):
    folder.mkdir()
    content = {"Name": name, "BIDSVersion": "1.10.0", "DatasetDOI": "doi:10.18112/x"}
    (folder / "dataset_description.json").write_text(json.dumps(content))
    return folder


def test_the_description_links_to_the_source_by_a_relative_path(tmp_path, source):
    out = tmp_path / "out"
    dataset.claim(out, source)
    dataset.write_dataset_files(out, source, store.find("open"))
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"] == {"raw": "../bids"}
    assert description["SourceDatasets"][0]["DOI"] == "doi:10.18112/x"
    assert str(tmp_path) not in "".join(p.read_text() for p in out.iterdir() if p.is_file())


def test_the_description_names_all_models_with_their_licences(tmp_path, source):
    out = tmp_path / "out"
    path = out / "dataset_description.json"
    model = store.find("open")
    other = replace(model, name="mars", label="mars", version="2", licence="CC-BY-NC-ND-4.0")
    for used in (model, other, other):
        dataset.write_dataset_files(out, source, used)
    description = json.loads(path.read_text())
    named = [(entry["Name"], entry["Version"]) for entry in description["GeneratedBy"]]
    assert named == [
        (dataset.APP_NAME, bids_app.__version__), ("mars", "2"), ("open", model.version),
    ]  # fmt: skip
    assert description["License"] == (
        f"source dataset: not stated; model mars 2: CC-BY-NC-ND-4.0; "
        f"model open {model.version}: CC-BY-4.0"
    )
    dataset.claim(out, source)
    raw = source / "dataset_description.json"
    raw.write_text(json.dumps(json.loads(raw.read_text()) | {"License": "PDDL"}))
    path.unlink()
    dataset.write_dataset_files(out, source, other)
    found = json.loads(path.read_text())["License"]
    assert found == "source dataset: PDDL; model mars 2: CC-BY-NC-ND-4.0"


def test_the_legend_of_labels_has_freesurfers_codes(tmp_path, source):
    dataset.write_dataset_files(tmp_path / "out", source, store.find("open"))
    rows = (tmp_path / "out" / "seg-open1_dseg.tsv").read_text().splitlines()
    assert rows[0] == "index\tname\tabbreviation\tcolor\tmapping\tfreesurfer"
    assert [row.split("\t")[-1] for row in rows[2:]] == ["173", "174", "175"]


def test_results_of_another_source_are_not_mixed_in(tmp_path, source):
    out = tmp_path / "out"
    dataset.write_dataset_files(out, source, store.find("open"))
    dataset.claim(out, source)
    with pytest.raises(OutputError, match="another source dataset"):
        dataset.claim(out, make_source(tmp_path / "other", "Two"))


def test_the_same_source_under_another_path_is_known_again(tmp_path, source):
    out = tmp_path / "out"
    dataset.write_dataset_files(out, source, store.find("open"))
    source.rename(tmp_path / "moved")
    dataset.claim(out, tmp_path / "moved")


def test_a_dataset_that_is_not_ours_is_left_alone(tmp_path, source):
    other = make_source(tmp_path / "other", "Two")
    with pytest.raises(OutputError, match="another dataset"):
        dataset.claim(other, source)


def test_the_output_may_lie_inside_the_source_but_not_among_its_participants(source):
    dataset.claim(source / "derivatives" / "brainstem", source)
    with pytest.raises(UsageError, match="BIDS_DIR"):
        dataset.claim(source, source)
    with pytest.raises(UsageError, match="participant"):
        dataset.claim(source / "sub-01" / "out", source)
    with pytest.raises(UsageError, match="participant"):
        dataset.check_owner(source / "sub-new" / "out", source)


def test_a_place_that_cannot_be_written_is_named(tmp_path, source):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be created"):
        dataset.claim(tmp_path / "file" / "out", source)


def test_a_path_that_cannot_be_is_refused(tmp_path, source):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for output in (tmp_path / "a" / "out", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="cannot be used"):
            dataset.check_owner(output, source)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a":' * 5000])
def test_a_damaged_description_of_the_output_is_named(tmp_path, source, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset_description.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"dataset_description.json is damaged"):
        dataset.check_owner(tmp_path / "out", source)


@pytest.mark.parametrize("links", [None, [], 5, {"raw": 5}, {}])
@pytest.mark.parametrize("sources", [None, [], {}, [5], [{}]])
def test_a_description_with_values_of_other_types_is_of_another_source(
    tmp_path, source, links, sources
):
    (tmp_path / "out").mkdir()
    description = {
        "GeneratedBy": [5, {"Name": dataset.APP_NAME}],
        "DatasetLinks": links,
        "SourceDatasets": sources,
    }
    (tmp_path / "out" / "dataset_description.json").write_text(json.dumps(description))
    with pytest.raises(OutputError, match="another source dataset"):
        dataset.check_owner(tmp_path / "out", source)
