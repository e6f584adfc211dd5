"""Images without BIDS, with the options of MARS-brainstem's own command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from make_fixture_model import write_random_model

from bids_app.cli import segment as single
from bids_app.models import install
from bids_app.segmentation import segmenter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    trained = write_random_model(
        folder / "trained", folds=1, spacing=(5.0, 5.0, 5.0), patch_size=(40, 48, 40)
    )
    return install.import_model(trained, "quick", folder).folder


@pytest.fixture
def head(whole_head, tmp_path):
    return Path(shutil.copy(whole_head, tmp_path / "T1.nii.gz"))


@pytest.fixture
def segment(model):
    def run(*arguments):
        options = ("--model", str(model), "--no-tta", "--device", "cpu")
        return single.main([*map(str, arguments), *options])

    return run


@pytest.mark.parametrize("name", ["T1.nii.gz", "T1"])
def test_the_map_stands_beside_the_image(segment, head, name, capsys):
    assert segment(head.with_name(name)) == 0
    labels = nib.load(head.with_name("T1_brainstem.nii.gz"))
    assert labels.shape == nib.load(head).shape
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2, 3}
    assert "pons" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["bert", "bert/mri/orig.mgz", "bert/mri/orig"])
def test_subjects_and_images_of_freesurfer_do_too(segment, head, given):
    subject = head.with_name("bert")
    (subject / "mri").mkdir(parents=True)
    image = nib.load(head)
    data = np.asarray(image.dataobj, dtype=np.float32)
    nib.save(nib.MGHImage(data, image.affine), subject / "mri/orig.mgz")
    assert segment(head.parent / given, "-q") == 0
    labels = nib.load(subject / "mri/orig_brainstem.nii.gz")
    assert labels.shape == image.shape
    assert np.allclose(labels.affine, image.affine, atol=1e-3)


def test_an_uncompressed_image_does_too(segment, head):
    plain = head.with_name("other.nii")
    nib.save(nib.load(head), plain)
    assert segment(plain.with_name("other"), "-q") == 0
    assert plain.with_name("other_brainstem.nii.gz").is_file()


def test_a_map_is_not_replaced_unless_asked(segment, head, capsys):
    assert segment(head, "-q") == 0
    before = head.with_name("T1_brainstem.nii.gz").read_bytes()
    assert segment(head) == 2
    assert "-x" in capsys.readouterr().err
    assert segment(head, "-x", "-q") == 0
    assert head.with_name("T1_brainstem.nii.gz").read_bytes() == before
    assert capsys.readouterr().out == ""


def test_the_image_itself_is_never_replaced(segment, head):
    before = head.read_bytes()
    assert segment(head, "-x", "-s", "") == 2
    assert head.read_bytes() == before


def test_probabilities_stand_beside_the_map(segment, head):
    assert segment(head, "-q", "--write-probabilities") == 0
    maps = nib.load(head.with_name("T1_brainstem_probseg.nii.gz"))
    assert maps.shape == (*nib.load(head).shape, 3)


def test_a_missing_image_ends_with_3_and_a_bad_one_with_1(segment, head, capsys):
    assert segment(head.with_name("nothing")) == 3
    head.with_name("bad.nii.gz").write_text("no image")
    assert segment(head.with_name("bad")) == 1
    assert "bad.nii.gz" in capsys.readouterr().err


def test_a_folder_of_images_is_segmented_by_one_model(segment, head, capsys, monkeypatch):
    second = Path(shutil.copy(head, head.with_name("other.nii.gz")))
    head.with_name("bad.nii.gz").write_text("no image")
    loads = []
    load = segmenter.load_segmenter
    monkeypatch.setattr(segmenter, "load_segmenter", lambda *a: loads.append(1) or load(*a))
    assert segment(head.parent) == 1
    said = capsys.readouterr()
    assert len(loads) == 1
    assert "[1/3]" in said.out or "[2/3]" in said.out
    assert said.err.splitlines()[-1] == "1 of 3 images failed"
    made = [path.name for path in sorted(head.parent.glob("*_brainstem*"))]
    assert made == ["T1_brainstem.nii.gz", "other_brainstem.nii.gz"]
    head.with_name("bad.nii.gz").unlink()
    second.with_name("other_brainstem.nii.gz").unlink()
    assert segment(head.parent) == 0  # what is there is kept, and no label map is segmented
    said = capsys.readouterr()
    assert "T1_brainstem.nii.gz exists already and is left alone" in said.err
    assert said.out.count("wrote ") == 1


def test_several_images_go_to_one_folder_under_names_of_their_own(segment, head, capsys):
    out, subjects = head.parent / "out", head.parent / "subjects"
    for name in ("anna", "bert", "fsaverage"):
        (subjects / name / "mri").mkdir(parents=True)
        image = nib.load(head)
        data = np.asarray(image.dataobj, dtype=np.float32)
        nib.save(nib.MGHImage(data, image.affine), subjects / name / "mri/orig.mgz")
    assert segment(head, subjects, "-q", "-d", out) == 0
    assert [path.name for path in sorted(out.iterdir())] == [
        "T1_brainstem.nii.gz", "anna_orig_brainstem.nii.gz", "bert_orig_brainstem.nii.gz",
    ]  # fmt: skip
    (head.parent / "twin").mkdir()
    twin = Path(shutil.copy(head, head.parent / "twin"))
    assert segment(head, twin, "-d", head.parent / "new") == 2
    assert "would both be written to" in capsys.readouterr().err
    assert segment(head, twin, "-o", head.parent / "new.nii.gz") == 2
    assert "but there are 2 images" in capsys.readouterr().err


def test_a_folder_without_images_and_a_dataset_say_what_to_do(segment, head, flat_dataset, capsys):
    (head.parent / "empty").mkdir()
    assert segment(head.parent / "empty") == 3
    assert "has no image that ends with .nii.gz, .nii, .mgz, .mgh" in capsys.readouterr().err
    assert segment(flat_dataset) == 2
    assert f"bids_app {flat_dataset} OUTPUT_DIR participant" in capsys.readouterr().err


def test_tables_stand_beside_the_map_on_request(segment, head, capsys):
    assert segment(head, "--write-tables", "-d", head.parent / "out") == 0
    out = head.parent / "out"
    volumes = pd.read_csv(out / "T1_brainstem_volumes.tsv", sep="\t")
    assert volumes["name"].tolist() == ["midbrain", "pons", "medulla", "brainstem"]
    content = json.loads((out / "T1_brainstem.json").read_text())
    assert content["Volumes"]["pons"]["voxels"] == volumes.set_index("name").loc["pons", "voxels"]
    assert set(content) >= {"Volumes", "Quality", "Flags", "Warnings", "Model", "Columns"}
    printed = capsys.readouterr().out
    assert content["Flags"]
    for flag, meaning in content["Flags"].items():
        assert f"flag {flag}: {meaning}" in printed
    assert segment(head, "--write-tables", "-d", out) == 2  # nothing is replaced unless asked


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "in/T1_brainstem.nii.gz"),
        (("_mask",), "in/T1_mask.nii.gz"),
        (("_b", Path("other/x.nii.gz")), "other/x.nii.gz"),
        (("_b", Path("other/x")), "other/x.nii.gz"),
        (("_b", Path("other/x.nii")), "other/x.nii"),
        (("_b", None, Path("out")), "out/T1_b.nii.gz"),
        (("_b", Path("other/x.nii.gz"), Path("out")), "out/x.nii.gz"),
    ],
)
def test_the_map_is_named_as_the_options_say(options, expected):
    options = options or ("_brainstem",)
    assert single.output_path(Path("in/T1.nii.gz"), *options) == Path(expected)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("x.txt", "must end with .nii.gz or .nii"),
        ("x.nii.bz2", "must end with .nii.gz or .nii"),
        (".", "is a folder"),
    ],
)
def test_an_output_that_is_no_name_of_an_image_ends_with_2_before_anything_is_done(
    segment, head, output, reason, capsys
):
    assert segment(head, "-o", head.parent / output) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) == 1
    assert list(head.parent.iterdir()) == [head]
