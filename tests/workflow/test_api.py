"""What Python users call, and that it gives what the commands give."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys

import make_datasets
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import bids_app
from bids_app.cli import main as cli
from bids_app.errors import ImageError, ModelError, UsageError
from bids_app.workflow import api


@pytest.fixture(scope="module")
def segmenter():
    return bids_app.Segmenter("open", device="cpu", tta=False)


@pytest.fixture(scope="module")
def result(segmenter, whole_head):
    return segmenter(whole_head)


def test_the_examples_of_the_documentation_run_as_written(whole_head, tmp_path, monkeypatch):
    shutil.copy(whole_head, tmp_path / "T1.nii.gz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(api.Segmenter.__init__.__kwdefaults__, "tta", False)  # for speed
    found = doctest.testmod(api)
    assert found.attempted
    assert not found.failed
    assert nib.load("T1_brainstem.nii.gz").shape == nib.load("T1.nii.gz").shape


def test_the_api_gives_the_voxels_volumes_and_flags_of_the_command(
    segmenter, flat_dataset, tmp_path
):
    words = [str(flat_dataset), str(tmp_path), "participant", "--no-tta", "--device", "cpu"]
    assert cli.main([*words, "--skip-bids-validation"]) == 0
    [dseg] = tmp_path.glob("sub-*/anat/*_dseg.nii.gz")
    [scan] = flat_dataset.glob("sub-*/anat/*_T1w.nii*")
    result = segmenter(str(scan))
    result.save(tmp_path / "api.nii.gz")
    assert (tmp_path / "api.nii.gz").read_bytes() == dseg.read_bytes()
    [table] = dseg.parent.glob("*_volumes.tsv")
    written = pd.read_csv(table, sep="\t", index_col="name")
    assert written.columns.tolist() == result.volumes.columns.tolist()
    numbers = written.drop(columns="abbreviation").astype(float)
    given = result.volumes.drop(columns="abbreviation").astype(float).round(3)
    pd.testing.assert_frame_equal(numbers, given)
    [sidecar] = dseg.parent.glob("*_dseg.json")
    content = json.loads(sidecar.read_text())
    assert content["Flags"] == list(result.flags)
    assert result.quality.items() <= content["Quality"].items()


def test_an_image_of_nibabel_gives_what_its_file_gives(segmenter, result, whole_head):
    of_image = segmenter(nib.load(whole_head))
    assert np.array_equal(of_image.labels.dataobj, result.labels.dataobj)
    pd.testing.assert_frame_equal(of_image.volumes, result.volumes)


def test_a_noisy_background_of_mp2rage_makes_little_difference(segmenter, whole_head):
    head = nib.load(whole_head)
    uniform = make_datasets.unit1(head)
    noise = np.asarray(uniform.dataobj)[np.asarray(head.dataobj) == 0]
    assert noise.std() > 1000  # of 4095: the background is no darker than the head
    expected = segmenter(head).volumes["volume_mm3"]
    found = segmenter(uniform).volumes["volume_mm3"]
    assert np.all(np.abs(found / expected - 1) < 0.08), found / expected


def test_real_heads_may_be_of_mp2rage(segmenter, shared_data):
    for name in ("ds011/sub-05/anat/sub-05", "ds002748/sub-12/anat/sub-12"):
        head = nib.load(shared_data / f"{name}_T1w.nii.gz")
        expected = segmenter(head).volumes["volume_mm3"]
        found = segmenter(make_datasets.unit1(head)).volumes["volume_mm3"]
        assert np.all(np.abs(found / expected - 1) < 0.08), found / expected


def test_columns_of_volumes_are_numbers(result):
    types = result.volumes.drop(columns="abbreviation").dtypes
    assert all(pd.api.types.is_numeric_dtype(dtype) for dtype in types)
    assert result.volumes.loc["pons", "index"] == 2
    assert pd.isna(result.volumes.loc["brainstem", "index"])


def test_labels_and_probabilities_lie_on_the_grid_of_the_input(result, whole_head, tmp_path):
    image = nib.load(whole_head)
    assert result.labels.shape == image.shape
    assert np.array_equal(result.labels.affine, image.affine)
    result.save(tmp_path / "new" / "p.nii", probabilities=True)
    maps = nib.load(tmp_path / "new" / "p.nii")
    assert maps.shape == (*image.shape, 3)
    assert np.array_equal(maps.dataobj, result.probabilities().dataobj)


def test_mistakes_are_errors_that_say_what_is_wrong(segmenter, result, tmp_path):
    with pytest.raises(ImageError, match=r"nothing\.nii: there is no such file"):
        segmenter(tmp_path / "nothing.nii")
    with pytest.raises(TypeError, match="nibabel image"):
        segmenter(np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match="must end with"):
        result.save(tmp_path / "labels.mgz")
    with pytest.raises(ModelError, match="Unknown model"):
        bids_app.segment("T1.nii.gz", model="nosuch")
    with pytest.raises(UsageError, match="folds 9"):
        bids_app.Segmenter("open", folds=["9"])


def test_options_that_mean_nothing_to_the_model_are_named():
    assert bids_app.Segmenter(device="cpu", region=True).warnings == (
        "--region: no effect with the model open (cascade)",
    )


def test_importing_the_package_is_quick_and_brings_nothing_heavy():
    code = (
        "import sys, time; start = time.perf_counter(); import bids_app;"
        "print(time.perf_counter() - start);"
        "print([m for m in ('torch', 'numpy', 'nibabel', 'pandas') if m in sys.modules]);"
        "print('segment' in dir(bids_app))"
    )
    words = [sys.executable, "-c", code]
    seconds, heavy, there = subprocess.check_output(words, text=True).splitlines()
    assert float(seconds) < 0.1
    assert (heavy, there) == ("[]", "True")
    with pytest.raises(AttributeError, match="no attribute 'segments'"):
        _ = bids_app.segments
