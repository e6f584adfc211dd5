"""Surfaces, areas, diameters and fixed lengths of made shapes, on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from made_brainstem import GRIDS, PARTS, REGIONS, draw, made

from bids_app.measures.shape import border, measure_shape, surface_area


@pytest.fixture(scope="module", params=GRIDS)
def shape(request):
    return measure_shape(*made(request.param), REGIONS)


def test_midsagittal_areas_are_those_of_the_middle_sections(shape):
    for label, (_, along, bottom, top) in PARTS.items():
        area = 2 * along * (top - bottom)
        assert shape.regions[label - 1].midsagittal_mm2 == pytest.approx(area, rel=0.04)
    *parts, whole = (region.midsagittal_mm2 for region in shape.regions)
    assert whole == sum(parts)


def test_diameters_run_from_ap_diameter(shape):
    for label, (_, along, _, _) in PARTS.items():
        assert shape.regions[label - 1].ap_diameter_mm == pytest.approx(2 * along, abs=0.8)
    assert shape.regions[-1].ap_diameter_mm is None


def test_the_medulla_is_measured_to_20_mm_below_the_pons(shape):
    across, along, *_ = PARTS[3]
    *_, medulla, _ = shape.regions
    assert medulla.to_20mm_mm3 == pytest.approx(np.pi * across * along * 20, rel=0.03)
    assert [region.to_20mm_mm3 for region in shape.regions[:2]] == [None, None]


def test_the_medullas_fixed_part_does_not_hang_on_its_lower_limit():
    first, second = (
        measure_shape(*made("fine", end=end), REGIONS).regions[2].to_20mm_mm3
        for end in (-37.0, -41.0)
    )
    assert first == pytest.approx(second, rel=2e-3)


def test_a_medulla_that_ends_above_20_mm_has_no_fixed_part():
    shape = measure_shape(*made("fine", end=-32.0), REGIONS)
    assert shape.regions[2].to_20mm_mm3 is None
    assert shape.regions[2].ap_diameter_mm == pytest.approx(12, abs=0.8)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("radius", [6.0, 11.0, 17.0])
def test_surfaces_of_balls_are_right_to_two_per_cent(grid, radius):
    ball, affine = draw(grid, lambda mm: np.linalg.norm(mm - 0.3, axis=-1) < radius, 20)
    assert surface_area(ball, affine) == pytest.approx(4 * np.pi * radius**2, rel=0.02)


def test_flat_faces_along_the_grid_are_given_up_to_nine_per_cent_too_little():
    cube = np.ones((40, 40, 40), bool)
    assert surface_area(cube, np.eye(4)) == pytest.approx(0.92 * 6 * 40**2, rel=0.01)


def test_a_border_is_the_area_of_shared_faces_and_lies_between_the_regions():
    first, second = np.zeros((2, 10, 10, 10), bool)
    first[2:8, 2:6, 5:9], second[2:8, 2:6, 1:5] = True, True
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    touching = border(first, second, affine)
    assert touching.area_mm2 == 24 * 2
    np.testing.assert_allclose(touching.centre, [4.5, 7, 13.5])
    apart = border(first, np.roll(second, -1, axis=2), affine)
    assert (apart.area_mm2, apart.centre) == (0, None)


def test_an_empty_map_has_nothing_and_fails_at_nothing():
    shape = measure_shape(np.zeros((9, 9, 9), np.uint8), np.eye(4), REGIONS)
    assert shape.plane is None
    for region in shape.regions:
        assert region.surface_mm2 is region.midsagittal_mm2 is region.ap_diameter_mm is None


@pytest.mark.parametrize("absent", [1, 2, 3])
def test_partial_maps_have_what_can_be_told(absent):
    shape = measure_shape(*made("uneven", absent=absent), REGIONS)
    for number, region in enumerate(shape.regions[:3], 1):
        assert (region.surface_mm2 is None) == (number == absent)
        assert (region.midsagittal_mm2 is None) == (number == absent)


@pytest.mark.parametrize("voxels", [1, 2, 40])
def test_specks_fail_at_nothing(voxels):
    labels = np.zeros((12, 12, 12), np.uint8)
    labels.flat[600 : 600 + voxels] = 1
    labels.flat[700 : 700 + voxels] = 3
    shape = measure_shape(labels, np.eye(4), REGIONS)
    assert shape.plane is None
    assert shape.regions[0].surface_mm2 > 0


@pytest.mark.parametrize("medulla", [np.s_[12:18, 12:18, 9:10], np.s_[12:18, 18, 18]])
def test_a_remnant_of_the_medulla_fails_at_nothing(medulla):
    labels = np.zeros((30, 30, 40), np.uint8)
    labels[8:22, 8:22, 22:34], labels[8:22, 8:22, 10:22] = 1, 2
    labels[medulla] = 3
    shape = measure_shape(labels, np.eye(4), REGIONS)
    assert shape.regions[2].surface_mm2 > 0
    assert shape.regions[2].to_20mm_mm3 is None
