"""Boxes enclose what is true, and their affines lead to the same millimetres."""

from __future__ import annotations

import numpy as np
from nibabel.affines import apply_affine

from bids_app.geometry.boxes import affine_of_box, bounding_box


def test_a_box_encloses_all_true_voxels_and_no_more():
    mask = np.zeros((6, 7, 8), bool)
    mask[1, 2, 3] = mask[4, 2, 6] = True
    assert bounding_box(mask) == (slice(1, 5), slice(2, 3), slice(3, 7))


def test_nothing_has_an_empty_box():
    mask = np.zeros((3, 3, 3), bool)
    assert mask[bounding_box(mask)].size == 0


def test_a_voxel_of_a_box_lies_where_it_does_in_the_grid():
    affine = np.array([[0.0, -1.5, 0, 10], [1, 0, 0.2, -20], [0, 0, 2, 5], [0, 0, 0, 1]])
    before = affine.copy()
    moved = affine_of_box(affine, (slice(2, 5), slice(3, 9), slice(1, 4)))
    np.testing.assert_allclose(apply_affine(moved, (1, 1, 1)), apply_affine(affine, (3, 4, 2)))
    np.testing.assert_array_equal(affine, before)
