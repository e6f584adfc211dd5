"""Volumes of probabilities do not depend on the grid, and far voxels do not count."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from made_brainstem import GRIDS
from nibabel.affines import apply_affine

from bids_app.measures.probabilities import near_largest, sum_volumes


def soft_volumes(probabilities, affine, masks=None):
    return sum_volumes(near_largest(probabilities, affine, masks), affine)


def ball(matrix, radius=9.0, shift=(0, 0, 0), half_mm=16):
    """Draw a ball whose probability falls from 1 to 0 within 1.5 mm, shape (1, X, Y, Z)."""
    shape = np.ceil(2 * half_mm / np.linalg.norm(matrix, axis=0)).astype(int)
    affine = nib.affines.from_matvec(matrix, -matrix @ ((shape - 1) / 2))
    places = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)) - shift
    depth = radius - np.linalg.norm(places, axis=-1)
    return np.clip(depth / 1.5 + 0.5, 0, 1)[np.newaxis].astype(np.float32), affine


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shift", [(0, 0, 0), (0.3, -0.4, 0.2)])
def test_the_volume_of_a_ball_is_the_same_on_any_grid(grid, shift):
    probabilities, affine = ball(GRIDS[grid], shift=shift)
    expected = 4 / 3 * np.pi * (9**3 + 9 * 1.5**2 / 4)
    assert soft_volumes(probabilities, affine)[0] == pytest.approx(expected, rel=0.003)


def test_what_is_far_from_the_largest_component_does_not_count():
    probabilities, affine = ball(np.eye(3))
    speckled = probabilities.copy()
    speckled[0, :2, :2, :2] = 0.9  # another component
    speckled[0, -3:, -3:, -3:] = 0.2  # no voxel of the region
    assert soft_volumes(speckled, affine) == soft_volumes(probabilities, affine)
    assert near_largest(speckled, affine)[0, 0, 0, 0] == 0


def test_a_border_counts_as_far_as_three_millimetres():
    line = np.zeros((1, 12, 1, 1), np.float32)
    line[0, :4] = 1
    line[0, 4:] = 0.25
    assert soft_volumes(line, np.diag([1.0, 2, 2, 1]))[0] == pytest.approx(4 * (4 + 3 * 0.25))


def test_a_region_without_a_voxel_has_no_volume():
    probabilities, affine = ball(np.eye(3))
    pair = np.concatenate([probabilities, 0.3 * (1 - probabilities)])
    assert soft_volumes(pair, affine)[1] == 0


def test_masks_can_be_given():
    probabilities = np.full((1, 8, 1, 1), 0.4, np.float32)
    mask = np.zeros((1, 8, 1, 1), bool)
    assert soft_volumes(probabilities, np.eye(4)) == (0.0,)
    mask[0, 0] = True
    assert soft_volumes(probabilities, np.eye(4), mask)[0] == pytest.approx(4 * 0.4)


def test_sums_of_many_small_probabilities_are_not_rounded_away():
    kept = np.full((1, 200, 200, 200), 1e-3, np.float32)
    assert sum_volumes(kept, np.eye(4))[0] == pytest.approx(8000, rel=1e-6)
