"""A run with MD-GRU: its record, its progress where there is no terminal, and its end by Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace

import nibabel as nib
import pytest
from make_datasets import head
from make_mdgru_model import SMALL, random_weights, with_slots, write_checkpoint

from bids_app.cli import main as cli
from bids_app.cli import segment as single
from bids_app.io import progress
from bids_app.models.install import import_model
from bids_app.models.manifest import MANIFEST, manifest_text
from bids_app.workflow import pipeline

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
    recorded = json.loads(path.read_text())["Settings"]
    assert recorded == {
        "Folds": "all", "Mirroring": False, "Region": False,
        "Volumes": "sums of probabilities on the image's grid",
    }  # fmt: skip
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
    assert "not 'direct' or 'tiled'" in line


LINE = r"[0-2]\.\d of 2 windows, \d\d:\d\d, about \d\d:\d\d left"


def test_without_a_terminal_lines_tell_how_far_an_image_is(run, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert run("--participant-label", "01") == 0
    said = capsys.readouterr().out
    found = re.findall(rf"^\[1/1\] sub-01/anat/sub-01_T1w\.nii\.gz: {LINE}$", said, re.MULTILINE)
    assert len(found) == 2 * 18
    assert "2.0 of 2 windows" in found[-1]
    assert found[-1].endswith("about 00:00 left")


def test_a_line_comes_only_now_and_then_and_none_where_it_is_quiet(
    bids, model, tmp_path, monkeypatch, capsys
):
    image = bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    words = [str(image), "-d", str(tmp_path), "--model", str(model), "-x"]
    for seconds, quiet, lines in ((0, (), 36), (0, ("-q",), 0), (600, (), 0)):
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", seconds)
        assert single.main([*words, *quiet]) == 0
        assert len(re.findall(LINE, capsys.readouterr().err)) == lines


def test_an_image_that_is_cut_short_is_named_and_not_counted_and_starts_over(
    run, tmp_path, monkeypatch, capsys
):
    bars = []

    class Bar(pipeline.tqdm):
        def __init__(self, **options):
            super().__init__(**options | {"disable": False, "leave": False})
            bars.append(self)

    add = progress.Progress.add

    def interrupted(self, share, total):
        add(self, share, total)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "tqdm", Bar)
        patched.setattr(progress.Progress, "add", interrupted)
        assert run() == 130
    said = capsys.readouterr().out
    assert "SIGINT: the run ends soon" in said
    assert "the next run starts unfinished ones from the beginning" in said
    assert "not finished, starts over next time: sub-01/anat/sub-01_T1w.nii.gz" in said
    assert "sub-02" not in said
    assert [bar.n for bar in bars] == [0]
    assert not list(tmp_path.glob("out/sub-*/anat/*"))
    assert run("--participant-label", "01") == 0
    assert len(list(tmp_path.glob("out/sub-*/anat/*_dseg.nii.gz"))) == 1
