"""Medians, intervals, slopes and tables of the accuracy benchmark."""

import numpy as np
import pytest

from benchmarks.accuracy import tables


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
