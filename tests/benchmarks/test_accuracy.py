"""What the changes and the sums of the accuracy benchmark promise."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import accuracy_changes as changes
import accuracy_deformation as deformation
import accuracy_tables as tables

from bids_app.io.images import read_volume
from training.evaluate import HeldOut, volume_of


@pytest.fixture(scope="module")
def head(whole_head):
    """A real head with balls one above the other for labels."""
    volume = read_volume(whole_head)
    grid = np.indices(volume.data.shape)
    truth = np.zeros(volume.data.shape, np.uint8)
    for value, height in ((3, 40), (2, 50), (1, 60)):
        away = grid - np.array([48, 64, height])[:, None, None, None]
        truth[(away**2).sum(0) < 25] = value
    return HeldOut("head", volume, truth, truth)


def test_a_head_stored_in_any_order_is_read_as_the_same(head):
    assert len(set(changes.orientations())) == 48
    for codes in changes.orientations():
        volume = volume_of(*changes.store_as(head, codes))
        assert np.array_equal(volume.data, head.volume.data)
        assert np.allclose(volume.affine, head.volume.affine, atol=1e-4)


def test_a_turned_head_keeps_its_tissue_and_turns_by_the_angle(head):
    data = (head.truth > 0).astype(np.float32)
    bar = replace(head, volume=replace(head.volume, data=data))
    turned, affine = changes.turn(bar, 25, axis=0)
    assert turned.sum() == pytest.approx(
        data.sum(), rel=0.06
    )  # of single voxels, whose corners a spline rounds
    axes = [np.linalg.svd(np.cov(np.argwhere(a > 0.5).T))[0][:, 0] for a in (data, turned)]
    assert np.degrees(np.arccos(abs(axes[0] @ axes[1]))) == pytest.approx(25, abs=1.5)
    assert np.allclose(affine[:3, :3], head.volume.affine[:3, :3])


@pytest.mark.parametrize("edges", [(1.3, 1.3, 1.3), (3, 3, 3), (1, 1, 3)])
def test_a_head_with_other_voxels_stays_where_it_is(head, edges):
    data, affine = changes.resample(head, edges)
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), edges)
    centres = [
        a[:3, :3] @ np.array(np.nonzero(d > 300)).mean(1) + a[:3, 3]
        for d, a in ((head.volume.data, head.volume.affine), (data, affine))
    ]
    assert np.allclose(*centres, atol=1)


@pytest.mark.parametrize("share", changes.SHARES)
def test_a_shrunk_region_loses_the_share_that_was_asked_for(head, share):
    assert deformation.true_change(head, "pons", share) == pytest.approx(-share, abs=0.006)
    data, _ = deformation.shrink(head, "pons", share)
    moved = np.argwhere(data != head.volume.data)
    assert np.abs(moved - [48, 64, 50]).max() <= 5 + deformation.FALL_OFF_MM / 2


def test_nothing_but_noise_is_left_out_of_a_cut_head(head):
    above, affine = changes.keep_above_medulla(head)
    lost = head.volume.data.shape[2] - above.shape[2]
    assert not (head.truth[:, :, lost:] == 3).any()
    assert np.allclose(affine[:3, 3] - head.volume.affine[:3, 3], [0, 0, 2 * lost])
    upper, _ = changes.keep_upper_part(head)
    assert not head.truth[:, :, -upper.shape[2] :].any()
    lower, _ = changes.keep_lower_half(head)
    assert lower.shape[2] * 2 >= head.volume.data.shape[2]
    assert not head.truth[:, :, lower.shape[2] :].any()


def test_titles_tell_changes_apart(head):
    listed = [*changes.self_consistency(), *changes.atrophy("pons"), *changes.emptied()]
    assert len({change.title for change in listed}) == len(listed)


def test_the_interval_of_a_median_holds_it_and_is_the_same_each_time():
    values = list(np.random.default_rng(1).normal(0.9, 0.02, 9))
    low, high = tables.interval(values)
    assert min(values) <= low < np.median(values) < high <= max(values)
    assert tables.interval(values) == (low, high)
    assert tables.interval([0.9]) == (0.9, 0.9)


def test_a_slope_goes_through_the_unchanged_image():
    assert tables.slope([-0.1, -0.2], [-0.05, -0.1]) == pytest.approx(0.5)
    assert tables.slope([-0.2], [-0.22]) == pytest.approx(1.1)


def test_the_worst_change_is_the_largest_of_either_sign():
    names = ("midbrain", "pons", "medulla", "brainstem")
    rows = [dict.fromkeys(names, share) for share in (0.01, -0.03, 0.02)]
    assert tables.change_row(rows) == ["2.00 (-3.0)"] * 4


def test_a_table_lines_up():
    assert tables.table(["head", "ml"], [["a", "1.00"]]) == ["head    ml", "a     1.00"]


def test_an_image_is_shrunk_as_its_label_is(head):
    mask = (head.truth == 2).astype(np.float32)
    ball = replace(head, volume=replace(head.volume, data=mask + 1))  # nowhere empty
    data, _ = deformation.shrink(ball, "pons", 0.2)
    change = (data - 1).sum() / mask.sum() - 1
    assert change == pytest.approx(deformation.true_change(head, "pons", 0.2), abs=0.02)


def test_a_stripped_head_keeps_its_brainstem_and_the_mask_alone(head):
    stripped, _ = changes.strip(head, np.zeros(head.truth.shape, bool))
    labelled = head.truth > 0
    assert np.array_equal(stripped[labelled], head.volume.data[labelled])
    assert np.count_nonzero(stripped) < 3 * np.count_nonzero(labelled)
