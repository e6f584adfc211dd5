"""What the scores of held-out heads promise."""

import numpy as np
import pytest

from training.cases import IGNORE
from training.evaluate import border_distances, dice, score


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
    rows = score(storeys(), storeys(), storeys(), voxel_mm=(1, 1, 1))
    assert [row["region"] for row in rows] == ["midbrain", "pons", "medulla", "brainstem"]
    assert {row["dice"] for row in rows} == {1}
    assert rows[0]["found_ml"] == pytest.approx(16 * 3 * 0.001)
    assert rows[3]["label_ml"] == pytest.approx(16 * 9 * 0.001)


def test_voxels_in_doubt_count_in_one_score_and_not_in_the_other():
    found, loose = storeys(), storeys()
    found[:, :, 2] = 0
    loose[:, :, 2] = IGNORE
    medulla = score(found, storeys(), loose, voxel_mm=(1, 1, 1))[2]
    assert medulla["dice"] < 1
    assert medulla["dice_sure"] == 1


def test_equal_borders_are_no_distance_apart():
    mask = storeys() > 0
    assert border_distances(mask, mask, (1, 1.3, 1)) == pytest.approx((0, 0))


@pytest.mark.parametrize("voxel_mm", [(1, 1, 1), (2, 2, 2)])
def test_a_border_a_voxel_further_out_is_that_far_outwards(voxel_mm):
    grid = np.indices((40, 40, 40)) - 20
    small, large = ((grid**2).sum(0) <= radius**2 for radius in (10, 12))
    hausdorff95, outwards = border_distances(large, small, voxel_mm)
    assert outwards == pytest.approx(2 * voxel_mm[0], rel=0.1)
    assert border_distances(small, large, voxel_mm)[1] == pytest.approx(-outwards)
    assert 1.7 * voxel_mm[0] < hausdorff95 < 3 * voxel_mm[0]


def test_distances_from_an_empty_mask_are_not_known():
    mask = storeys() > 0
    assert np.isnan(border_distances(mask, np.zeros_like(mask), (1, 1, 1))).all()
