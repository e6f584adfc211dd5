"""OpenVINO gives what torch gives, and nothing beside it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from make_fixture_model import write_random_model
from torch import nn

from bids_app.engines.nnunet.inference import NnUNet
from bids_app.engines.nnunet.openvino import OpenVINONetwork
from bids_app.errors import UsageError
from bids_app.segmentation.devices import choose_device
from bids_app.segmentation.types import InferenceOptions

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_random_model(tmp_path / "model", patch_size=(16, 24, 16), features=(4, 8, 8))


def test_openvino_gives_what_torch_gives(folder):
    pytest.importorskip("openvino")
    image = np.random.default_rng(0).normal(size=(20, 30, 20)).astype(np.float32)
    found, expected = (
        NnUNet(folder, device=CPU, runtime=runtime).infer(
            NnUNet(folder, device=CPU).prepare(image, (1, 1, 1)).data
        )
        for runtime in ("openvino", "torch")
    )
    assert np.abs(found.mean - expected.mean).max() < 1e-3 * np.abs(expected.mean).max()
    assert (found.mean.argmax(0) != expected.mean.argmax(0)).mean() < 1e-3
    np.testing.assert_allclose(found.sizes, expected.sizes, rtol=1e-2, atol=1)


def test_a_run_that_is_to_end_can_leave_off_before_a_pass(folder):
    pytest.importorskip("openvino")
    network = NnUNet(folder, device=CPU, runtime="openvino")

    def stop():
        raise KeyboardInterrupt

    network.before_each_pass(stop)
    with pytest.raises(KeyboardInterrupt):
        network.predict(np.ones((16, 24, 16), dtype=np.float32), (1, 1, 1))


def test_its_use_is_reported_to_nobody(tmp_path):
    pytest.importorskip("openvino")
    code = "import bids_app.engines.nnunet.openvino as o; o._import(); print(*o.sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "openvino_telemetry." not in run.stdout
    assert not list(tmp_path.iterdir())


def test_other_layers_are_left_to_torch():
    pytest.importorskip("openvino")
    with pytest.raises(UsageError, match="Sequential"):
        OpenVINONetwork(nn.Sequential(nn.Conv3d(1, 2, 3)), (8, 8, 8), 1)


def test_without_openvino_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"pip install .*'\.\[cpu\]'"):
        OpenVINONetwork(nn.Identity(), (8, 8, 8), 1)


def test_openvino_is_a_way_to_use_the_cpu():
    assert choose_device("openvino") == CPU
    assert InferenceOptions(device="openvino").runtime == "openvino"
    assert InferenceOptions(device="cpu").runtime == "torch"
