"""What the prepared file promises."""

import numpy as np
import pytest

from bids_app.training.data import (
    CORD,
    IGNORE,
    MEDULLA,
    NEAR_SIZE,
    Case,
    cut,
    load_cases,
    loosen,
    loosen_head,
    read_split,
    save_cases,
    to_bytes,
    track_cord,
    within,
)

ONE_MM = np.ones(3)


def column(low: int = 20, high: int = 40) -> np.ndarray:
    """Labels (40, 40, 60) of a column: medulla from `low` to `high`, pons above."""
    labels = np.zeros((40, 40, 60), np.uint8)
    labels[15:25, 15:25, low:high] = MEDULLA
    labels[15:25, 15:25, high : high + 10] = 2
    return labels


def test_no_head_is_in_two_parts_of_the_split():
    parts = read_split()
    names = [name for part in parts.values() for name in part]
    assert set(parts) == {"train", "validation", "test"}
    assert len(names) == len(set(names))


def test_the_map_with_a_short_medulla_is_in_no_part():
    assert "synthseg_01" not in [name for part in read_split().values() for name in part]


def test_cases_come_back_from_the_file_as_they_went_in(tmp_path):
    arrays = {"near/image": np.arange(8, dtype=np.uint8).reshape(2, 2, 2)}
    save_cases(tmp_path / "data.npz", iter([Case("ds011_sub-01", True, arrays)]))
    case = load_cases(tmp_path / "data.npz")["ds011_sub-01"]
    assert case.real
    np.testing.assert_array_equal(case.arrays["near/image"], arrays["near/image"])


def test_a_cut_is_in_z_y_x_order_at_the_spacing_asked_for():
    data = np.zeros((30, 30, 30), np.float32)
    data[10:12, 15, 20] = 1  # 2 mm along x at 1 mm
    cube = cut(data, np.eye(4), np.array([15.0, 15.0, 15.0]), 20, 0.5, 0)
    assert cube.shape == (20, 20, 20)
    found = np.argwhere(cut(data, np.eye(4), np.array([15.0, 15, 15]), 31, 1.0, 0))
    np.testing.assert_array_equal(found, [[20, 15, 10], [20, 15, 11]])


def test_outside_of_the_image_a_cut_is_zero():
    cube = cut(np.ones((10, 10, 10), np.float32), np.eye(4), np.full(3, 4.5), 30, 1.0, 3)
    assert cube[0].max() == 0
    assert cube[15, 15, 15] == pytest.approx(1)


def test_in_bytes_only_empty_voxels_are_zero():
    image = np.array([0, 1e-3, 500, 1000], np.float32)
    np.testing.assert_array_equal(to_bytes(image) == 0, image == 0)


def test_no_loss_within_3_mm_of_the_lower_limit_of_the_medulla():
    loose = loosen(column(), ONE_MM)
    assert (loose[20, 20, 17:23] == IGNORE).all()
    assert (loose[20, 20, 24:40] == MEDULLA).all()


def test_below_a_medulla_without_a_cord_nothing_is_learned_near_the_axis():
    loose = loosen(column(), ONE_MM)
    assert (loose[20, 20, :20] == IGNORE).all()
    assert loose[0, 0, 0] == 0


def test_a_known_cord_is_learned_below_the_limit():
    labels = column()
    labels[15:25, 15:25, 5:20] = CORD
    loose = loosen(labels, ONE_MM)
    assert (loose[20, 20, 8:16] == CORD).all()
    assert (loose[20, 20, 18:22] == IGNORE).all()
    assert (loose[20, 20, :5] == IGNORE).all()


def test_peduncles_and_the_outer_border_of_a_head_are_set_aside():
    labels = column()
    labels[25:30, 15:25, 40:50] = 5  # the middle peduncle beside the pons
    loose = loosen_head(labels, np.full(labels.shape, 100, np.float32), ONE_MM)
    assert (loose[25:30, 18:22, 42:48] == IGNORE).all()
    assert (loose[22:25, 18:22, 42:48] == IGNORE).all()
    assert loose[15, 20, 35] == IGNORE
    assert loose[14, 20, 35] == IGNORE
    assert loose[18, 20, 35] == MEDULLA
    assert loose[11, 20, 35] == 0


def test_fluid_in_the_rim_of_a_head_is_known_to_be_no_brainstem():
    labels = column()
    image = np.full(labels.shape, 100, np.float32)
    image[:16] = 20
    loose = loosen_head(labels, image, ONE_MM)
    assert (loose[14:16, 20, 30:38] == 0).all()
    assert (loose[24:26, 20, 30:38] == IGNORE).all()


def test_the_cord_of_a_map_is_followed_down_from_the_medulla():
    labels = column()
    codes = np.where(labels > 0, 16, 0)
    codes[16:24, 16:24, 4:20] = 512
    codes[30:40, 30:40, :] = 512  # the same tissue elsewhere
    cord = track_cord(codes, labels)
    assert cord[20, 20, 4:20].all()
    assert not cord[35, 35].any()
    assert not cord[:, :, 20:].any()


def test_the_neighbourhood_of_a_mask_is_measured_in_mm():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    near = within(mask, 2, np.array([1.0, 2.0, 4.0]))
    assert near.sum() == 5 + 2
    assert near[4, 5, 4]
    assert not near[4, 4, 5]
    assert not within(~mask & mask, 2, ONE_MM).any()


def test_the_near_look_holds_a_turned_patch():
    reach = 48 * (np.cos(np.deg2rad(25)) + np.sin(np.deg2rad(25))) + 8
    assert reach <= NEAR_SIZE / 2
