"""The second pass runs in the frame of the first one's pose, once or twice, and comes back."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from made_brainstem import CENTRE, REGIONS, made
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from bids_app.geometry.pose import find_pose
from bids_app.regions import region
from bids_app.segmentation.canonical import (
    REPEAT_DEGREES,
    brainstem_parts,
    mean_of_passes,
    segment_in_frame,
)

LABELS, AFFINE = made("oblique")
FIRST = np.stack([value == LABELS for value in (1, 2, 3)]).astype(np.float32)
IMAGE = (100 + 50 * (LABELS > 0)).astype(np.float32)


class Network:
    """Stands for a network: gives the regions that are bright in the frame, by their heights."""

    def __init__(self):
        self.seen = []

    def __call__(self, image):
        self.seen.append(image)
        bright = image > image.mean() + 0.5 * (image.max() - image.mean())
        up = np.arange(96) - 47.5
        levels = (up > 12, (up <= 12) & (up > -13), up <= -13)
        return np.stack([(bright & level).astype(np.float32) for level in levels])


def test_the_network_sees_a_normalized_image_in_the_frame_of_the_first_pass():
    network = Network()
    found = segment_in_frame(IMAGE, AFFINE, FIRST, AFFINE, REGIONS, network)
    assert network.seen[0].shape == (96, 96, 96)
    assert network.seen[0].dtype == np.float32
    assert found.probabilities.shape == (3, 96, 96, 96)
    assert 0.5 < found.inside.mean() < 1
    pose = find_pose(FIRST, AFFINE)
    if not found.repeated:
        np.testing.assert_allclose(apply_affine(found.frame.affine, [47.5] * 3), pose.centre)
    seen = find_pose(found.probabilities, found.frame.affine)
    assert np.linalg.norm(seen.centre - CENTRE) < 3


def test_a_pose_that_was_far_off_is_found_once_more():
    turn = Rotation.from_euler("x", 20, degrees=True).as_matrix()
    about = nib.affines.from_matvec(turn, CENTRE - turn @ CENTRE)
    network = Network()
    found = segment_in_frame(IMAGE, AFFINE, FIRST, about @ AFFINE, REGIONS, network)
    assert len(network.seen) == 2
    assert found.repeated
    near = segment_in_frame(
        IMAGE, AFFINE, found.probabilities, found.frame.affine, REGIONS, Network()
    )
    assert near.turn_degrees < 20 - REPEAT_DEGREES


def test_nothing_in_the_first_pass_is_no_second_one():
    network = Network()
    assert segment_in_frame(IMAGE, AFFINE, 0 * FIRST, AFFINE, REGIONS, network) is None
    assert not network.seen


def test_the_mean_of_both_passes_lies_on_the_grid_of_the_first():
    found = segment_in_frame(IMAGE, AFFINE, FIRST, AFFINE, REGIONS, Network())
    mean, dice = mean_of_passes(FIRST, AFFINE, found)
    assert mean.shape == FIRST.shape
    assert mean.dtype == np.float32
    assert len(dice) == 3
    assert all(share > 0.8 for share in dice)
    whole = mean.sum(axis=0)
    inside = LABELS > 0
    assert whole[inside].mean() > 0.9
    assert whole[~inside].mean() < 0.02
    assert mean.sum() == pytest.approx(
        (FIRST.sum() + found.probabilities.sum() / abs(np.linalg.det(AFFINE[:3, :3]))) / 2, rel=0.02
    )


def test_parts_are_found_by_name_and_missing_ones_are_empty():
    maps = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1) + 1
    regions = (region(1, "cerebellum"), region(2, "pons"), region(3, "midbrain"))
    np.testing.assert_array_equal(brainstem_parts(maps, regions).ravel(), [3, 2, 0])


def test_passes_that_differ_have_a_low_dice_and_absent_regions_none():
    found = segment_in_frame(IMAGE, AFFINE, FIRST, AFFINE, REGIONS, Network())
    first = FIRST * np.float32([1, 0, 1]).reshape(3, 1, 1, 1)
    without = replace(found, probabilities=found.probabilities * [[[[1]]], [[[0]]], [[[1]]]])
    _, dice = mean_of_passes(first, AFFINE, without)
    assert np.isnan(dice[1])
    _, dice = mean_of_passes(first, AFFINE, found)
    assert dice[1] == 0


def test_the_sidecar_describes_the_frame():
    found = segment_in_frame(IMAGE, AFFINE, FIRST, AFFINE, REGIONS, Network())
    described = found.describe()
    np.testing.assert_allclose(described["Affine"], found.frame.affine, atol=1e-4)
    assert described["OutsideFraction"] == pytest.approx(1 - found.inside.mean(), abs=1e-4)
    assert "Note" not in described
    noted = replace(found, note="no midbrain: axis from medulla to pons", turn_degrees=None)
    assert noted.describe()["Note"] == noted.note
    assert noted.describe()["TurnDegrees"] is None
