"""Sampling into the canonical frame and back: places, values, field of view, voxels of any kind."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from made_brainstem import GRIDS
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from bids_app.geometry.frame import EDGE, LOW_PASS_MM, MIDDLE, make_frame, sample, to_grid
from bids_app.geometry.pose import Pose

CENTRE = np.array([4.0, -7, 11])
TURN = Rotation.from_euler("xyz", (14, -9, 12), degrees=True).as_matrix()
FRAME = make_frame(Pose(CENTRE, TURN))
SHEAR = np.array([[1, 0.15, 0], [0, 1, -0.1], [0, 0, 1.0]])
MATRICES = {
    **GRIDS,
    "left-handed": np.diag([-1.0, 1.1, 0.8]),
    "stored as PSR": np.array([[0, 0, 1.2], [-1.0, 0, 0], [0, 1.0, 0]]),
    "sheared": SHEAR @ np.diag([1.0, 1.2, 0.9]),
    "fine": np.diag([0.7, 0.7, 0.7]),
}


def waves(places):
    """A smooth image, of places in mm, shape (..., 3)."""
    x, y, z = np.moveaxis(places, -1, 0)
    return (100 + 20 * np.sin(x / 9) + 15 * np.cos(y / 8 + 1) + 10 * np.sin((z + x) / 10)).astype(
        np.float32
    )


def image(matrix, function=waves, half_mm=56):
    """Draw a cube of an image around `CENTRE`."""
    shape = np.ceil(2 * half_mm / np.linalg.norm(matrix, axis=0)).astype(int)
    affine = nib.affines.from_matvec(matrix, CENTRE - matrix @ ((shape - 1) / 2))
    return function(apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))), affine


def frame_places():
    return apply_affine(FRAME.affine, np.moveaxis(np.indices((EDGE,) * 3), 0, -1))


def test_the_centre_lies_in_the_middle_and_the_midsagittal_plane_between_two_planes_of_voxels():
    np.testing.assert_allclose(apply_affine(FRAME.affine, [MIDDLE] * 3), CENTRE)
    assert MIDDLE == 47.5
    right = apply_affine(FRAME.affine, [MIDDLE + 1, MIDDLE, MIDDLE]) - CENTRE
    np.testing.assert_allclose(right, TURN[:, 0])


@pytest.mark.parametrize("name", MATRICES)
def test_an_image_on_any_grid_is_sampled_at_its_places(name):
    sampled = sample(*image(MATRICES[name]), FRAME)
    assert sampled.data.dtype == np.float32
    within = np.linalg.norm(frame_places() - CENTRE, axis=-1) < 45
    assert sampled.inside[within].all()
    # All are smoothed on purpose, and uneven ones interpolated over 1.5 mm.
    assert np.abs(sampled.data - waves(frame_places()))[within].max() < 0.3


@pytest.mark.parametrize("edge", [0.7, 1.0, 1.33])
def test_images_are_widened_alike_whatever_their_voxels(edge):
    def blob(places):
        return (1000 * np.exp(-(((places - CENTRE) / 2) ** 2).sum(axis=-1) / 2)).astype(np.float32)

    upright = make_frame(Pose(CENTRE, np.eye(3)))
    drawn = sample(*image(np.eye(3) * edge, blob, half_mm=30), upright).data
    along = drawn.sum(axis=(1, 2))
    places = np.arange(EDGE) - MIDDLE
    variance = (along @ places**2) / along.sum()
    assert variance == pytest.approx(2**2 + LOW_PASS_MM**2, rel=0.01)


def test_what_is_finer_than_the_frame_is_smoothed_away():
    rng = np.random.default_rng(0)
    fine, affine = image(np.diag([0.5, 0.5, 0.5]), half_mm=26)
    noise = rng.normal(0, 10, fine.shape).astype(np.float32)
    upright = make_frame(Pose(CENTRE, np.eye(3)))
    drawn = sample(fine + noise, affine, upright).data - sample(fine, affine, upright).data
    inner = drawn[28:-28, 28:-28, 28:-28]
    assert 1 < inner.std() < 3.6  # as the mean of eight voxels, or smoother


def test_beyond_the_field_of_view_is_nothing_and_its_share_is_known():
    data, affine = image(np.eye(3))
    cut = data[:, :, 36:]
    affine[:3, 3] += affine[:3, :3] @ (0, 0, 36)
    upright = make_frame(Pose(CENTRE, np.eye(3)))
    sampled = sample(cut, affine, upright)
    assert 1 - sampled.inside.mean() == pytest.approx(28 / 96, abs=1e-9)
    assert not sampled.data[:, :, :28].any()
    assert sampled.data[:, :, 28:].all()
    normalized = sampled.normalized()
    assert not normalized[:, :, :28].any()
    assert normalized[:, :, 28:].mean() == pytest.approx(0, abs=1e-4)
    assert normalized[:, :, 28:].std() == pytest.approx(1, abs=1e-4)


def test_a_frame_in_the_void_is_empty():
    data, affine = image(np.eye(3), half_mm=20)
    sampled = sample(data, affine, make_frame(Pose(CENTRE + 500, TURN)))
    assert not sampled.inside.any()
    assert not sampled.normalized().any()


def test_what_is_zero_stays_zero_and_values_stay_in_range():
    def stripped(places):
        near = np.linalg.norm(places - CENTRE, axis=-1) < 30
        return np.where(near, waves(places), 0).astype(np.float32)

    data, affine = image(MATRICES["oblique"], stripped)
    sampled = sample(data, affine, FRAME)
    away = np.linalg.norm(frame_places() - CENTRE, axis=-1)
    assert not sampled.data[away > 32].any()
    assert sampled.data[away < 28].min() > 40
    assert sampled.data.max() <= data.max()
    # Outside the box of what is not zero, a network gets the mean.
    assert not sampled.normalized()[:10].any()


def test_the_image_is_not_changed_and_the_same_input_gives_the_same_bytes():
    data, affine = image(MATRICES["fine"], half_mm=30)
    before = data.copy()
    first = sample(data, affine, FRAME)
    np.testing.assert_array_equal(data, before)
    assert first.data.tobytes() == sample(before, affine, FRAME).data.tobytes()


@pytest.mark.parametrize("name", MATRICES)
def test_probabilities_come_back_to_the_images_grid(name):
    def bump(places):
        away = np.linalg.norm(places - CENTRE - (3, 5, -8), axis=-1)
        return np.clip((22 - away) / 12, 0, 1).astype(np.float32)

    expected, affine = image(MATRICES[name], bump)
    maps = np.stack([bump(frame_places()), 0.5 * bump(frame_places())])
    back, box = to_grid(maps, FRAME, affine, expected.shape)
    whole = np.zeros((2, *expected.shape), np.float32)
    whole[(slice(None), *box)] = back
    np.testing.assert_allclose(whole[0], expected, atol=0.03)
    np.testing.assert_allclose(whole[1], expected / 2, atol=0.015)
    assert back[0].size < expected.size / 3


def test_nothing_comes_back_of_nothing():
    back, box = to_grid(np.zeros((3, *FRAME.shape), np.float32), FRAME, np.eye(4), (50, 60, 70))
    assert back.shape == (3, 0, 0, 0)
    assert box == (slice(0, 0),) * 3


def test_what_lies_beyond_the_image_is_left_out():
    maps = np.ones((1, *FRAME.shape), np.float32)
    affine = nib.affines.from_matvec(np.eye(3), CENTRE)
    back, box = to_grid(maps, FRAME, affine, (30, 30, 30))
    assert box == (slice(0, 30),) * 3
    assert back.shape == (1, 30, 30, 30)
    assert back.min() == 1
