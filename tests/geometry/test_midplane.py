"""The midsagittal plane is found on any grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from made_brainstem import CENTRE, GRIDS, HEAD_TURN, made
from nibabel.affines import apply_affine

from bids_app.geometry.midplane import Midplane, fit_midplane, symmetry

X = np.array([1.0, 0, 0])


def angle(first, second):
    return np.degrees(np.arccos(np.clip(first @ second, -1, 1)))


@pytest.mark.parametrize("grid", GRIDS)
def test_the_plane_of_a_turned_head_is_found_to_a_degree_and_a_third_of_a_millimetre(grid):
    labels, affine = made(grid)
    plane = fit_midplane(labels > 0, affine)
    assert angle(plane.normal, HEAD_TURN @ X) < 1
    assert abs((plane.point - CENTRE) @ plane.normal) < 0.34


def test_the_grids_middle_has_no_part_in_it():
    labels, affine = made("fine")
    wider = np.pad(labels, ((40, 0), (0, 0), (0, 0)))
    shifted = nib.affines.from_matvec(affine[:3, :3], apply_affine(affine, (-40, 0, 0)))
    first, second = fit_midplane(labels > 0, affine), fit_midplane(wider > 0, shifted)
    np.testing.assert_allclose(second.normal, first.normal, atol=1e-6)
    np.testing.assert_allclose(second.point, first.point, atol=1e-4)


def test_a_handful_of_voxels_has_no_plane():
    mask = np.zeros((20, 20, 20), bool)
    assert fit_midplane(mask, np.eye(4)) is None
    mask[5:9, 5:9, 5:9] = True
    assert fit_midplane(mask, np.eye(4)) is None


def test_mirroring_twice_comes_back_and_keeps_the_planes_points():
    plane = Midplane(np.array([1.0, 2, 3]), np.array([0.6, 0.8, 0]))
    points = np.random.default_rng(1).normal(0, 30, (50, 3))
    np.testing.assert_allclose(plane.mirror(plane.mirror(points)), points, atol=1e-12)
    np.testing.assert_allclose(plane.mirror(plane.point[np.newaxis]), [plane.point])


@pytest.mark.parametrize("grid", GRIDS)
def test_symmetric_shapes_are_symmetric_and_half_ones_are_not(grid):
    labels, affine = made(grid)
    plane = fit_midplane(labels > 0, affine)
    assert symmetry(labels > 0, affine, plane) > 0.95
    pons = np.argwhere(labels == 2)
    left = (apply_affine(affine, pons) - plane.point) @ plane.normal < 0
    half = np.zeros(labels.shape, bool)
    half[tuple(pons[left].T)] = True
    assert symmetry(half, affine, plane) < 0.1
    assert np.isnan(symmetry(labels == 9, affine, plane))
