"""A task of brainlife leaves a parcellation with its legend, and says what became of it."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run_task(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("BRAINSTEM_IMAGE", None)
    main = ROOT / "containers" / "brainlife" / "main"
    done = subprocess.run([str(main)], cwd=folder, env=environment, check=False)
    return done.returncode, json.loads((folder / "product.json").read_text())


def test_a_head_becomes_a_parcellation_a_dataset_and_a_message(whole_head, tmp_path):
    config = {"t1": str(whole_head), "_inputs": [{"meta": {"subject": "sub-A_7"}}]}
    code, product = run_task(tmp_path, config)
    assert code == 0
    parcellation = nib.load(tmp_path / "parc" / "parc.nii.gz")
    labels = json.loads((tmp_path / "parc" / "label.json").read_text())
    assert {one["voxel_value"]: one["name"] for one in labels} == {
        1: "midbrain",
        2: "pons",
        3: "medulla",
    }
    assert set(np.unique(np.asarray(parcellation.dataobj))) == {0, 1, 2, 3}
    assert parcellation.shape == nib.load(whole_head).shape
    assert (tmp_path / "output/sub-A7/anat/sub-A7_seg-open1_dseg.nii.gz").is_file()
    assert not list(tmp_path.glob("bids-*"))

    assert product["brainlife"][0]["type"] == "success"
    assert product["volumes_mm3"]["pons"] == pytest.approx(
        np.count_nonzero(np.asarray(parcellation.dataobj) == 2)
        * abs(np.linalg.det(parcellation.affine)),
        rel=0.03,
    )
    source = product["brainlife"][-1]["layout"]["images"][0]["source"]
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert picture.width <= 480
    assert (tmp_path / "product.json").stat().st_size < 60_000


def test_a_bad_image_ends_with_its_code_and_its_reason(bad_images, tmp_path):
    code, product = run_task(tmp_path, {"t1": str(bad_images["constant"])})
    assert code == 1
    (message,) = product["brainlife"]
    assert message["type"] == "error"
    assert len(message["msg"]) > 10


def test_an_input_that_is_not_there_is_told_in_one_line(tmp_path):
    code, product = run_task(tmp_path, {"t1": "none.nii.gz"})
    assert code == 1
    (message,) = product["brainlife"]
    assert message == {
        "type": "error",
        "msg": "The input t1 cannot be read: No such file or directory.",
    }
    assert not list(tmp_path.glob("bids-*"))
