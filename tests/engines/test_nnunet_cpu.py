"""What makes a network quicker on the CPU changes nothing of its answer but rounding."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from bids_app.engines.nnunet.cpu import passes_at_once, use_onednn
from bids_app.engines.nnunet.votes import winners


@pytest.mark.parametrize(
    ("channels", "kernel", "stride"),
    [
        pytest.param(1, 3, 1, id="the first layer"),
        pytest.param(8, 3, 1, id="a deep layer"),
        pytest.param(4, (1, 3, 3), (1, 2, 2), id="flat kernel"),
        pytest.param(4, 1, 1, id="the last layer"),
    ],
)
def test_onednn_gives_what_torch_gives(channels, kernel, stride):
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in ((kernel,) * 3 if isinstance(kernel, int) else kernel))
    network = nn.Sequential(nn.Conv3d(channels, 6, kernel, stride, padding), nn.LeakyReLU())
    quick = copy.deepcopy(network)
    use_onednn(quick)
    values = torch.randn(1, channels, 9, 8, 10)
    with torch.inference_mode():
        torch.testing.assert_close(quick(values), network(values), rtol=1e-5, atol=1e-5)


def test_layers_that_onednn_may_not_know_stay_with_torch():
    layer = nn.Conv3d(1, 2, 3, padding="same", padding_mode="circular")
    use_onednn(layer)
    assert "forward" not in vars(layer)


def test_the_first_of_equal_classes_wins():
    classes = torch.tensor([[1.0, 0, 2, 0], [1, 3, 2, 0], [0, 3, 5, 0]])
    assert winners(classes).tolist() == classes.argmax(0).tolist() == [0, 1, 2, 0]
    assert winners(classes).dtype == torch.uint8


def test_large_pages_are_asked_for_unless_the_user_says_otherwise():
    code = "import os, bids_app; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    printed = []
    for given in ({}, {"THP_MEM_ALLOC_ENABLE": "0"}):
        rest = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=rest | given,
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(run.stdout.strip())
    assert printed == ["1", "0"]


@pytest.mark.parametrize(
    ("channels", "patch", "threads", "passes"),
    [
        pytest.param(16, (96, 96, 96), 2, 2, id="a small network on two cores"),
        pytest.param(16, (96, 96, 96), 64, 6, id="as many as memory allows"),
        pytest.param(32, (224, 224, 128), 8, 1, id="a large network takes all threads"),
        pytest.param(16, (96, 96, 96), 1, 1, id="one thread"),
    ],
)
def test_as_many_passes_at_once_as_threads_and_memory_allow(channels, patch, threads, passes):
    network = nn.Sequential(nn.Conv3d(1, channels, 3))
    assert passes_at_once(network, patch, threads) == passes
