"""Measures of quality as tests for bad results, on made-up runs."""

import numpy as np
import pytest

from benchmarks.app import PARTS
from benchmarks.quality import curves
from benchmarks.quality.runs import UNDISTURBED, Run


def made(dice, score, head="a", kind="noise", refused=""):
    quality = {f"{name}_mirror_dice": score for name in PARTS}
    return Run(head, kind, "5%", refused, dict.fromkeys(PARTS, dice), quality, ())


def test_the_area_is_1_where_all_bad_results_score_lower():
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    bad = np.array([True, True, False, False])
    assert curves.area(scores, bad) == 1
    assert curves.area(scores, ~bad) == 0
    assert curves.area(np.ones(4), bad) == 0.5
    assert np.isnan(curves.area(scores, np.ones(4, bool)))


def test_a_result_is_bad_below_a_mean_dice_of_0_9():
    assert list(curves.bad([made(0.89, 1), made(0.9, 1)])) == [True, False]


def test_refused_and_undisturbed_images_are_left_out():
    kept = made(1, 1)
    assert curves.accepted(
        [kept, made(1, 1, refused="too small"), made(1, 1, kind=UNDISTURBED)]
    ) == [kept]


def test_the_best_threshold_separates_bad_from_good():
    scores = np.array([0.5, 0.6, 0.9, 0.95])
    assert curves.best_threshold(scores, scores < 0.7) == pytest.approx(0.75)


def test_rates_are_sensitivity_specificity_and_predictive_values():
    bad = np.array([True, True, False, False])
    cells = curves.rates(np.array([True, False, False, False]), bad).split("\t")
    assert cells == ["0.50", "1.00", "100%", "100%", "100%"]


def test_the_interval_is_the_same_each_time_and_holds_the_area():
    rng = np.random.default_rng(0)
    runs = [made(d, d + rng.normal(0, 0.1), head) for head in "abcd" for d in (0.5, 0.8, 0.95, 1)]
    measure = curves.lowest("mirror_dice")
    low, high = curves.interval(runs, measure)
    area = curves.area(np.array([measure(r) for r in runs]), curves.bad(runs))
    assert low <= area <= high
    assert curves.interval(runs, measure) == (low, high)
