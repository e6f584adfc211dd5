"""The pose of a brainstem is found on any grid, and a note says which parts were missing."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from made_brainstem import CENTRE, GRIDS, HEAD_TURN
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.geometry.pose import LEAN_DEGREES, Pose, find_pose

# Elliptic cylinders as in `made_brainstem`, but the pons bulges forward: half widths across and
# front to back, middle from front to back, bottom, top.
PARTS = {0: (16, 9, 0, 12, 27), 1: (17, 12, 4, -13, 12), 2: (8, 6, 0, -41, -13)}


def drawn(grid="fine", *, turn=HEAD_TURN, bottom=-41.0, without=None, shear=None, half_mm=46):
    """Draw masks of midbrain, pons and medulla, shape (3, X, Y, Z), and their affine."""
    matrix = GRIDS[grid] if shear is None else GRIDS[grid] @ shear
    shape = np.ceil(2 * half_mm / np.linalg.norm(matrix, axis=0)).astype(int)
    affine = nib.affines.from_matvec(matrix, CENTRE - matrix @ ((shape - 1) / 2))
    own = (apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)) - CENTRE) @ turn
    masks = np.zeros((3, *shape), bool)
    for k, (across, along, front, low, high) in PARTS.items():
        if k != without:
            masks[k] = (own[..., 0] / across) ** 2 + ((own[..., 1] - front) / along) ** 2 < 1
            masks[k] &= (own[..., 2] > max(low, bottom)) & (own[..., 2] <= high)
    return masks, affine


def turned_by(pose, turn=HEAD_TURN):
    """Angle in degrees between a pose and that of the drawn brainstem, whose line is upright."""
    lean = Rotation.from_euler("x", LEAN_DEGREES, degrees=True).as_matrix()
    return Pose(CENTRE, turn @ lean).angle_to(pose)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_turned_brainstem_is_found_to_a_degree(grid):
    pose = find_pose(*drawn(grid))
    assert turned_by(pose) < 1
    assert pose.note is None
    centre = CENTRE + HEAD_TURN @ (0, 4, -0.5)
    assert np.linalg.norm(pose.centre - centre) < 0.4
    np.testing.assert_allclose(pose.axes.T @ pose.axes, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose.axes) == pytest.approx(1)


def test_a_sheared_grid_gives_the_same_pose():
    shear = np.array([[1, 0.2, 0], [0, 1, 0.1], [0, 0, 1.0]])
    assert find_pose(*drawn(shear=shear)).angle_to(find_pose(*drawn())) < 1


@pytest.mark.parametrize("angles", [(40, 0, 0), (-40, 10, 0), (10, 30, 20), (0, 0, -50)])
def test_heads_that_are_turned_far_are_followed(angles):
    turn = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    assert turned_by(find_pose(*drawn(turn=turn)), turn) < 1


@pytest.mark.parametrize("bottom", [-36.0, -31.0, -29.0])
def test_a_medulla_that_is_cut_off_changes_nothing(bottom):
    whole, cut = find_pose(*drawn()), find_pose(*drawn(bottom=bottom))
    assert cut.angle_to(whole) < 0.5
    assert np.linalg.norm(cut.centre - whole.centre) < 0.3


def test_probabilities_give_the_pose_of_their_masks():
    masks, affine = drawn()
    soft = np.stack([ndimage.gaussian_filter(mask.astype(np.float32), 1) for mask in masks])
    assert find_pose(soft, affine).angle_to(find_pose(masks, affine)) < 0.5


def test_what_is_not_connected_has_no_say():
    masks, affine = drawn()
    spotted = masks.copy()
    spotted[2, :4, :4, :4] = True
    np.testing.assert_array_equal(find_pose(spotted, affine).axes, find_pose(masks, affine).axes)


@pytest.mark.parametrize(("without", "word"), [(0, "midbrain"), (2, "medulla")])
def test_a_missing_region_is_done_without(without, word):
    pose = find_pose(*drawn(without=without))
    assert word in pose.note
    assert abs(pose.axes[:, 0] @ (HEAD_TURN @ (1, 0, 0))) > np.cos(np.radians(1))


def test_a_region_alone_and_what_is_not_symmetrical_get_the_axes_of_the_image():
    masks, affine = drawn("oblique", turn=np.eye(3))
    masks[[0, 2]] = False
    pose = find_pose(masks, affine)
    assert "axes of the image" in pose.note
    # The grid's axes are nearest to right, front and up in some order, and orthogonal already.
    grid = np.abs(GRIDS["oblique"] / np.linalg.norm(GRIDS["oblique"], axis=0))
    np.testing.assert_allclose(np.sort(np.abs(pose.axes), axis=None), np.sort(grid, axis=None))
    lump = np.zeros((3, 40, 40, 40), bool)
    lump[0, 5:12, 5:30, 5:12] = lump[1, 5:30, 5:12, 12:18] = lump[2, 24:30, 5:30, 18:30] = True
    assert "no midsagittal plane" in find_pose(lump, np.eye(4)).note


def test_nothing_has_no_pose():
    assert find_pose(np.zeros((3, 20, 20, 20), np.float32), np.eye(4)) is None
    few = np.zeros((3, 20, 20, 20), bool)
    few[1, 5:9, 5:9, 5:9] = True
    assert find_pose(few, np.eye(4)) is None


def test_the_same_input_gives_the_same_bytes():
    masks, affine = drawn()
    first, second = find_pose(masks, affine), find_pose(masks.copy(), affine.copy())
    assert first.axes.tobytes() == second.axes.tobytes()
    assert first.centre.tobytes() == second.centre.tobytes()


def test_the_angle_between_poses():
    turn = Rotation.from_rotvec([0, 0, 0.3]).as_matrix()
    assert Pose(CENTRE, np.eye(3)).angle_to(Pose(CENTRE, turn)) == pytest.approx(np.degrees(0.3))
    assert Pose(CENTRE, turn).angle_to(Pose(CENTRE, turn)) == pytest.approx(0, abs=1e-5)
