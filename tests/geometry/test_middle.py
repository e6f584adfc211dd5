"""Scans of one head meet halfway, and none is favoured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.geometry.middle import align, gain_field

SHAPE = (64, 64, 80)
CENTRE = (np.array(SHAPE) - 1) / 2
TURNS = np.radians([[1.0, -0.7, 0.5], [-1.0, 0.7, -0.5], [0.3, 0.4, 0.2]])
SHIFTS = np.array([[0.6, -0.4, 0.3], [-0.6, 0.4, -0.3], [0.2, 0.1, -0.5]])
INSIDE = np.ones((3, *SHAPE), bool)


def movement(turn, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    matrix[:3, 3] = CENTRE + shift - matrix[:3, :3] @ CENTRE
    return matrix


MOVED = [movement(turn, shift) for turn, shift in zip(TURNS, SHIFTS, strict=True)]


@pytest.fixture(scope="module")
def scans():
    """Three scans of one head with structure in it, each moved, noisy, and in a unit of its own."""
    rng = np.random.default_rng(0)
    grid = np.indices(SHAPE) - CENTRE[:, None, None, None]
    away = np.sqrt(((grid / np.array([14, 12, 24])[:, None, None, None]) ** 2).sum(axis=0))
    stem = 1 / (1 + np.exp(8 * (away - 1)))
    structure = ndimage.gaussian_filter(rng.normal(size=SHAPE), 3)
    head = 30 + 100 * stem + 8 * structure / structure.std()

    def draw(data, matrix):
        return ndimage.affine_transform(data, matrix[:3, :3], matrix[:3, 3], mode="nearest")

    images = [draw(head, m) + rng.normal(0, 3, SHAPE) for m in MOVED]
    images = (
        np.stack(images).astype(np.float32) * np.array([1, 7, 0.1], np.float32)[:, None, None, None]
    )
    return images, np.stack([draw(stem, m) for m in MOVED]).astype(np.float32)


@pytest.fixture(scope="module")
def found(scans):
    images, stems = scans
    return align(images, INSIDE, stems)


def test_scans_meet_within_a_tenth_of_a_voxel(found):
    places = [m @ f for m, f in zip(MOVED, found.movements, strict=True)]
    for place in places[1:]:
        between = np.linalg.inv(places[0]) @ place
        assert np.abs(between @ [*CENTRE, 1] - [*CENTRE, 1]).max() < 0.1
        turn = Rotation.from_matrix(between[:3, :3]).magnitude()
        assert np.degrees(turn) < 0.15


def test_the_mean_movement_is_none(found):
    turns = [Rotation.from_matrix(m[:3, :3]).as_rotvec() for m in found.movements]
    assert np.abs(np.mean(turns, axis=0)).max() < 1e-9


def test_another_order_of_scans_moves_each_alike(scans, found):
    images, stems = scans
    again = align(images[::-1], INSIDE, stems[::-1])
    np.testing.assert_allclose(again.movements[::-1], found.movements, atol=1e-9)
    np.testing.assert_allclose(again.gains[::-1], found.gains, atol=1e-9)


def test_the_same_scan_twice_is_not_moved_against_itself(scans):
    images, stems = scans
    twice = align(images[[0, 0]], INSIDE[:2], stems[[0, 0]])
    np.testing.assert_array_equal(twice.movements[0], twice.movements[1])


def test_intensities_in_other_units_match(scans, found):
    images, stems = scans
    inner = stems.min(axis=0) > 0.9
    matched = [
        np.median((image * gain_field(found, k, SHAPE))[inner]) for k, image in enumerate(images)
    ]
    np.testing.assert_allclose(matched, matched[0], rtol=0.01)


def test_scans_of_one_head_fit_and_others_do_not(scans, found):
    images, stems = scans
    assert found.fit.min() > 0.99
    other = np.ascontiguousarray(images[:1, ::-1, :, ::-1])
    unlike = align(np.concatenate([images[:1], other]), INSIDE[:2], stems[:2])
    assert unlike.fit.max() < found.fit.min() - 0.02


def test_without_a_brainstem_in_view_of_all_there_is_no_middle(scans):
    images, stems = scans
    assert align(images, INSIDE, np.zeros_like(stems)) is None
    unseen = INSIDE.copy()
    unseen[1] = False
    assert align(images, unseen, stems) is None
