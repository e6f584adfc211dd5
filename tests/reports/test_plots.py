"""Small drawings: every value is there, and outliers link to their reports."""

import re

import numpy as np
import pandas as pd
import pytest

from bids_app.reports import plots
from bids_app.reports.page import environment
from bids_app.reports.plots import WIDTH, find_outlying


def points(values):
    return pd.Series(list(values), dtype=float)


def distribution(title, color, groups):
    """Draw values; the page of each is named by its place in its group."""

    def describe(labels):
        return [(f"sub-{label:02d}", f"sub-{label:02d}.html") for label in labels]

    plot = plots.distribution(title, color, groups, 3.5, describe)
    return environment().get_template("plots.html.j2").module.distribution(plot)


def dots(svg):
    return re.findall(r"M([\d.]+) [\d.]+h0", svg)


def test_every_value_is_a_dot_inside_the_drawing():
    svg = distribution("Pons (ml)", "#56B4E9", {"": points(range(50))})
    assert len(dots(svg)) == 50
    assert all(0 <= float(x) <= WIDTH for x in dots(svg))
    assert [float(x) for x in dots(svg)] == sorted(float(x) for x in dots(svg))


def test_an_outlier_links_to_its_report():
    svg = distribution("Pons (ml)", "#56B4E9", {"": points([15, 15.2, 14.9, 15.1, 14.8, 4])})
    assert re.findall(r'href="([^"]*)"', svg) == ["sub-05.html"]
    assert "sub-05: 4.00" in svg


def test_thousands_of_values_are_a_histogram_with_their_outliers():
    svg = distribution("Pons (ml)", "#56B4E9", {"": points([*range(10, 20)] * 300 + [900])})
    assert not dots(svg)
    assert 'class="bars"' in svg
    assert re.findall(r'href="([^"]*)"', svg) == ["sub-3000.html"]


def test_outliers_are_found_within_their_own_group():
    groups = {"a": points([15, 15.2, 14.9, 15.1, 14.8]), "b": points([5, 5.2, 4.9, 5.1, 4.8])}
    svg = distribution("Pons (ml)", "#56B4E9", groups)
    assert "href" not in svg
    assert svg.count('class="box"') == 2
    assert ">a<" in svg
    assert ">b<" in svg


def test_a_box_needs_five_values():
    assert 'class="box"' not in distribution("Pons (ml)", "#56B4E9", {"": points([1, 2, 3, 4])})


@pytest.mark.parametrize("values", [[7.0], [0.0, 0.0], [3, 3, 3, 3, 3, 3], [-1e-9, 1e-9], [1e9]])
def test_few_or_equal_values_are_drawn(values):
    assert len(dots(distribution("x", "#000000", {"": points(values)}))) == len(values)


def test_the_axis_has_round_numbers_around_the_values():
    svg = distribution("Pons (ml)", "#56B4E9", {"": points([8.3, 17.9])})
    assert re.findall(r">([\d.]+)</text>", svg) == ["8", "10", "12", "14", "16", "18"]


def test_there_are_no_outliers_if_the_spread_is_unknown():
    for values in ([1, 1, 1, 1, 1, 9], [1, 2, 90]):
        assert not find_outlying(np.array(values, float), 3.5).any()
