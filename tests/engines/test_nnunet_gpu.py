"""What a GPU computes with holds on a CPU too: float16 inside, float32 outside."""

import pytest
import torch
from make_fixture_model import write_random_model
from torch import nn

from bids_app.engines.nnunet.gpu import use_half
from bids_app.engines.nnunet.plans import read_plans
from bids_app.engines.nnunet.weights import fill, read_checkpoint


@pytest.fixture
def networks(tmp_path):
    folder = write_random_model(tmp_path, folds=1)
    checkpoint = read_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    exact, half = (
        fill(read_plans(folder, checkpoint.configuration).network(), checkpoint.weights)
        for _ in range(2)
    )
    use_half(half)
    return exact, half


@pytest.mark.parametrize("images", [1, 2])
def test_float16_gives_the_logits_but_for_its_rounding(networks, images):
    exact, half = networks
    data = torch.randn(images, 1, 32, 40, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = exact(data), half(data)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert (found - expected).abs().max() < 0.01 * expected.abs().max()
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.995


def test_normalisations_keep_their_weights_in_float32(networks):
    _, half = networks
    kinds = {type(m): m.weight.dtype for m in half.modules() if hasattr(m, "weight")}
    assert kinds[nn.Conv3d] == torch.float16
    assert kinds[nn.InstanceNorm3d] == torch.float32
