"""What the scores of held-out heads promise."""

import numpy as np
import pytest

from bids_app.training.data import IGNORE
from bids_app.training.evaluate import dice, score


def storeys(low: int = 2) -> np.ndarray:
    """Labels (8, 8, 12): medulla, pons and midbrain above one another."""
    labels = np.zeros((8, 8, 12), np.uint8)
    labels[2:6, 2:6, low:11] = np.repeat([3, 2, 1], 3)[: 11 - low]
    return labels


def test_dice_is_one_for_the_same_mask_and_nan_for_two_empty_ones():
    full, empty = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    assert dice(full, full, full) == 1
    assert dice(full, empty, full) == 0
    assert np.isnan(dice(empty, empty, full))


def test_each_region_and_the_whole_brainstem_are_scored():
    rows = score(storeys(), storeys(), storeys(), voxel_ml=0.001)
    assert [row["region"] for row in rows] == ["midbrain", "pons", "medulla", "brainstem"]
    assert {row["dice"] for row in rows} == {1}
    assert rows[0]["found_ml"] == pytest.approx(16 * 3 * 0.001)
    assert rows[3]["label_ml"] == pytest.approx(16 * 9 * 0.001)


def test_voxels_in_doubt_count_in_one_score_and_not_in_the_other():
    found, loose = storeys(), storeys()
    found[:, :, 2] = 0
    loose[:, :, 2] = IGNORE
    medulla = score(found, storeys(), loose, voxel_ml=0.001)[2]
    assert medulla["dice"] < 1
    assert medulla["dice_sure"] == 1
