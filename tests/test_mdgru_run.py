"""A run with MD-GRU: its record, its progress where there is no terminal, and its end by Ctrl-C."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import pytest
from make_datasets import head
from make_mdgru_model import SMALL, random_weights, with_slots, write_checkpoint

from bids_app import cli, single
from bids_app.models.install import import_model
from bids_app.models.store import MANIFEST, manifest_text

SETTINGS = {"window": [60, 90, 90], "padding": [10, 2, 2], "convolution": "direct"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network, of two windows a head."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, with_slots(random_weights(SMALL, last_gain=3.0)))
    made = import_model(folder, "small", tmp_path_factory.mktemp("models"))
    (made.folder / MANIFEST).write_text(manifest_text(replace(made, inference=SETTINGS)))
    return made.folder


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    """Two participants, of whom a box of 84 mm is there."""
    folder = tmp_path_factory.mktemp("bids")
    image = head(voxel_size=4.0)
    starts = [(size - 21) // 2 for size in image.shape]
    crop = image.slicer[*(slice(start, start + 21) for start in starts)]
    for participant in ("sub-01", "sub-02"):
        path = folder / participant / "anat" / f"{participant}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(crop, path)
    description = {"Name": "x", "BIDSVersion": "1.10.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def run(bids, model, tmp_path):
    def run(*options):
        words = [str(bids), str(tmp_path / "out"), "participant", "--model", str(model)]
        return cli.main([*words, *options, "--nprocs", "2", "--skip-bids-validation"])

    return run


def test_options_that_mean_nothing_to_it_change_no_record_and_are_named_once(run, tmp_path, capsys):
    assert run("--participant-label", "01") == 0
    assert "no effect" not in capsys.readouterr().out
    (path,) = tmp_path.glob("out/sub-01/anat/*_dseg.json")
    told = json.loads(path.read_text())["Settings"]
    assert told == {"Folds": "all", "Mirroring": False, "Region": False}
    assert run("--participant-label", "01", "--no-tta", "--folds", "0") == 0
    said = capsys.readouterr().out
    assert said.count("--folds, --no-tta: no effect with the model small (mdgru)") == 1
    assert "0 done, 1 complete before" in said


def test_one_image_is_done_with_that_warning_unless_quiet(bids, model, tmp_path, capsys):
    image = bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    words = [str(image), "-d", str(tmp_path), "--model", str(model), "--no-tta", "-x"]
    for quiet in ((), ("-q",)):
        assert single.main([*words, *quiet]) == 0
        assert ("warning: --no-tta: no effect" in capsys.readouterr().err) is not bool(quiet)


def test_a_manifest_that_cannot_be_followed_ends_a_dry_run(bids, model, tmp_path, capsys):
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    text = (model / MANIFEST).read_text()
    (broken / MANIFEST).write_text(text.replace('"direct"', '"fft"'))
    words = [str(bids), str(tmp_path / "out"), "participant", "--dry-run", "--model", "broken"]
    assert cli.main([*words, "--models-dir", str(broken.parent)]) == 5
    line = capsys.readouterr().err
    assert str(broken / MANIFEST) in line
    assert "can be 'direct' or 'tiled'" in line
