"""Shape in the canonical frame: plain bodies have true values, and small shifts change none."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from made_brainstem import REGIONS

from bids_app.geometry.frame import EDGE, MIDDLE
from bids_app.measures.shape import (
    ap_diameter,
    measure_shape,
    midsagittal_area,
    surface_area,
)

UP = np.array([0.0, 0.0, 1.0])
PLACES = np.moveaxis(np.indices((EDGE,) * 3), 0, -1) - MIDDLE
SHIFTS = [(0, 0, 0), (0, 0.3, -0.4), (0, 0.5, 0.5)]
# Elliptic cylinders: half widths across and front to back, bottom, top.
PARTS = ((16.0, 9.0, 12.0, 27.0), (17.0, 12.0, -13.0, 12.0), (8.0, 6.0, -41.0, -13.0))


def soft(depth):
    """Probability at a depth in mm below a surface."""
    return (1 / (1 + np.exp(-depth / 0.5))).astype(np.float32)


def ball(radius, shift=(0, 0, 0)):
    return soft(radius - np.linalg.norm(PLACES - shift, axis=-1))


def brainstem(*, turn_degrees=0.0, shift=(0, 0, 0), bottom=-41.0, without=()):
    """Draw probabilities, shape (3, EDGE, EDGE, EDGE), of a brainstem turned within the plane."""
    angle = np.radians(turn_degrees)
    x, y, z = np.moveaxis(PLACES - shift, -1, 0)
    y, z = np.cos(angle) * y - np.sin(angle) * z, np.sin(angle) * y + np.cos(angle) * z
    maps = []
    for k, (across, along, low, high) in enumerate(PARTS):
        low = max(low, bottom)
        away = np.hypot(x / across, y / along)
        slope = np.maximum(np.hypot(x / across**2, y / along**2) / np.maximum(away, 1e-6), 1e-6)
        side = soft((1 - away) / slope)
        ends = soft(z - low) * soft(high - z)
        maps.append(side * ends * (k not in without))
    return np.stack(maps)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("radius", [8.0, 14.0])
def test_a_balls_measures_are_true_and_steady(radius, shift):
    part = ball(radius, shift)
    assert surface_area(part) == pytest.approx(4 * np.pi * radius**2, rel=0.007)
    assert midsagittal_area(part) == pytest.approx(np.pi * radius**2, rel=0.004)
    mean_of_3_mm = 2 * radius - 0.75 / radius
    assert ap_diameter(part, UP) == pytest.approx(mean_of_3_mm, abs=0.06)
    aslant = np.array([0, 0.6, 0.8])
    assert ap_diameter(part, aslant) == pytest.approx(ap_diameter(part, UP), abs=0.02)


def test_shifts_change_nothing():
    values = np.array([
        [surface_area(part), midsagittal_area(part), ap_diameter(part, UP)]
        for part in (ball(9, shift) for shift in SHIFTS)
    ])  # fmt: skip
    assert np.ptp(values / values[0], axis=0).max() < 0.001


def test_nothing_has_no_area():
    nothing = np.zeros((EDGE,) * 3, np.float32)
    assert surface_area(nothing) == midsagittal_area(nothing) == ap_diameter(nothing, UP) == 0


@pytest.mark.parametrize("turn", [0, 12, -8])
def test_a_brainstems_measures_are_true(turn):
    shapes = measure_shape(brainstem(turn_degrees=turn, shift=(0, 0.2, 0.3)), REGIONS)
    for shape, (_, along, bottom, top) in zip(shapes, PARTS, strict=False):
        assert shape.midsagittal_mm2 == pytest.approx(2 * along * (top - bottom), rel=0.02)
        assert shape.ap_diameter_mm == pytest.approx(2 * along, abs=0.15)
    assert shapes[3].midsagittal_mm2 == pytest.approx(
        sum(2 * along * (top - bottom) for _, along, bottom, top in PARTS), rel=0.02
    )
    assert shapes[2].to_20mm_mm3 == pytest.approx(np.pi * 8 * 6 * 20, rel=0.03)
    assert shapes[0].to_20mm_mm3 is None
    assert shapes[3].ap_diameter_mm is None


def test_the_volume_to_20_mm_needs_a_medulla_that_is_so_long_and_no_more():
    whole, longer, short = (
        measure_shape(brainstem(bottom=bottom), REGIONS)[2] for bottom in (-36, -41, -32)
    )
    assert longer.to_20mm_mm3 == pytest.approx(whole.to_20mm_mm3, rel=0.005)
    assert short.to_20mm_mm3 is None
    assert short.ap_diameter_mm == pytest.approx(12, abs=0.3)


def test_an_absent_region_has_no_measures_and_leaves_the_others_theirs():
    shapes = measure_shape(brainstem(without=(2,)), REGIONS)
    assert set(asdict(shapes[2]).values()) == {None}
    assert shapes[1].midsagittal_mm2 == pytest.approx(24 * 25, rel=0.02)
    assert shapes[1].ap_diameter_mm is None  # square to a line between two borders
    shapes = measure_shape(brainstem(without=(1,)), REGIONS)
    assert shapes[0].ap_diameter_mm is None
    assert shapes[0].midsagittal_mm2 == pytest.approx(18 * 15, rel=0.02)


def test_a_mask_is_measured_too():
    mask = (ball(12) > 0.5).astype(np.float32)
    assert midsagittal_area(mask) == pytest.approx(np.pi * 144, rel=0.04)
    assert surface_area(mask) == pytest.approx(4 * np.pi * 144, rel=0.13)
