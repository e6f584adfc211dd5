"""What the figures of a run promise; a head of four shades stands in for a head."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from training.cases import MEDULLA, MIDBRAIN, PONS, Case
from training.networks import LOOKS, build_network
from training.probe import measure, read_network, slope
from training.train import Plan, train

LOOK = dataclasses.replace(LOOKS["segmenter"], size=48, features=(4, 8, 8))
SHADES = {0: 20, MEDULLA: 100, PONS: 170, MIDBRAIN: 240}


@pytest.fixture(scope="module")
def case() -> Case:
    labels = np.zeros((72, 72, 72), np.uint8)
    labels[20:52, 24:48, 24:48] = np.repeat([MEDULLA, PONS, MIDBRAIN], [10, 12, 10])[:, None, None]
    image = np.vectorize(SHADES.get)(labels).astype(np.uint8)
    return Case("ds011_sub-05", True, {"near/image": image, "near/labels": labels})


class Shades(torch.nn.Module):
    """Tells classes by their shade, as sure as it is near."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        low, high = images.amin((1, 2, 3, 4), True), images.amax((1, 2, 3, 4), True)
        shade = 20 + (images - low) / (high - low) * 220
        logits = torch.full((len(images), len(LOOK.classes), *images.shape[2:]), -40.0)
        for index, own in SHADES.items():
            logits[:, index] = -(((shade[:, 0] - own) / 12) ** 2)
        return logits


def test_what_follows_a_region_has_a_slope_of_one(case):
    labels, whole = case.arrays["near/labels"], {"brainstem": 32.0 * 24 * 24}
    for way in ("all", "along"):
        found = slope(Shades(), LOOK, case, labels, "brainstem", way, whole)
        assert found == pytest.approx(1, abs=0.2)


def test_dice_volumes_and_slopes_of_a_head_are_listed(case):
    rows = list(measure(Shades(), LOOK, case))
    table = {(row["measure"], row["of"], row["way"]): row["value"] for row in rows}
    assert table["dice", "pons", ""] == pytest.approx(1, abs=0.01)
    assert table["volume", "pons", ""] == pytest.approx(12 * 24 * 24 / 1000, rel=0.05)
    assert ("dice", "scp", "") not in table
    assert ("slope", "medulla", "along") in table


def test_the_network_of_a_run_is_read(case, tmp_path: Path):
    learn = dataclasses.replace(case, name="ds011_sub-01")
    small = dataclasses.replace(LOOK, size=24)
    train(small, {learn.name: learn}, tmp_path, Plan(1, None, 2, 1), torch.device("cpu"))
    network, look = read_network(tmp_path / "checkpoint.pth")
    assert look.features == LOOK.features
    assert network.state_dict().keys() == build_network(LOOK).state_dict().keys()
