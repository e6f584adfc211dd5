"""Flags warn by measures and by thresholds that a user can set."""

from __future__ import annotations

import pytest

from bids_app.bids.columns import OUTLIERS, QUALITY
from bids_app.errors import UsageError
from bids_app.measures.flags import (
    CHECKS,
    FLAGS,
    read_thresholds,
    reapply_thresholds,
    self_consistency,
)
from bids_app.regions import PARTS

GOOD = {
    "pons_agreement": 0.95, "pons_mirror_dice": 0.95, "pons_soft_dice": 0.94,
    "localizer_confidence": 0.9, "pons_largest_component_fraction": 1.0,
    "midbrain_pons_height_mm": 18.0, "pons_medulla_contact_mm2": 300.0, "pons_symmetry": 0.95,
    "max_voxel_edge_mm": 1.0,
    "self_consistency": 0.98, "pons_robust_z": 0.5, "pons_batch_z": 0.5,
}  # fmt: skip
MEASURED = {check.name: check for check in CHECKS if check.measure}


def test_good_measures_raise_no_flag():
    assert reapply_thresholds((), GOOD, {}) == ()
    assert reapply_thresholds((), {}, {}) == ()


def test_every_measure_of_the_table_is_one_that_is_taken():
    for check in MEASURED.values():
        assert check.measured(dict.fromkeys(QUALITY | OUTLIERS, 1.0)), check.name
        assert len(check.measured(GOOD)) == 1


@pytest.mark.parametrize("name", MEASURED)
def test_a_measure_beyond_its_threshold_raises_its_flag_alone(name):
    check = MEASURED[name]
    (key,) = (k for k in GOOD if k == check.measure or k.endswith("_" + check.measure))
    beyond = check.threshold + (-0.01 if check.comparison == "<" else 0.01)
    assert reapply_thresholds((), GOOD | {key: beyond}, {}) == (name,)
    assert reapply_thresholds((), GOOD | {key: check.threshold}, {}) == ()
    assert reapply_thresholds((), GOOD | {key: beyond}, {name: beyond}) == ()


def test_the_worst_region_counts():
    assert reapply_thresholds((), GOOD | {"medulla_symmetry": 0.1}, {}) == ("asymmetric",)


def test_facts_of_a_record_stay_and_thresholds_are_compared_again():
    earlier = ("out_of_view", "fragmented")
    assert reapply_thresholds(earlier, GOOD, {}) == ("out_of_view",)
    assert reapply_thresholds(earlier, {}, {}) == earlier  # nothing on record to compare


def test_explanations_give_the_threshold_in_use():
    assert "0.95" in FLAGS["fragmented"]
    assert "0.5" in MEASURED["fragmented"].explain({"fragmented": 0.5})


def test_thresholds_are_read_from_words():
    assert read_thresholds(["wrong_order=8", "low_resolution=3.5"]) == {
        "wrong_order": 8.0,
        "low_resolution": 3.5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrong_order", "NAME=VALUE"),
        ("wrong_order=", "not a number"),
        ("wrong_order=much", "not a number"),
        (
            "loud=3",
            "no flag 'loud' with a threshold. Flags with one: low_self_consistency, ",
        ),
        ("out_of_view=1", "no flag 'out_of_view' with a threshold"),
        ("low_self_consistency=1.1", "low_self_consistency must be a number from 0 to 1"),
        ("asymmetric=-0.1", "asymmetric must be a number from 0 to 1"),
        ("low_resolution=-1", "low_resolution must be a number of 0 or more"),
        ("wrong_order=nan", "wrong_order must be a number of 0 or more"),
        ("wrong_order=inf", "wrong_order must be a number of 0 or more"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(text, message):
    with pytest.raises(UsageError, match=f"--flag-threshold {text}: .*{message}"):
        read_thresholds([text])


def test_a_threshold_may_be_any_value_of_its_measure():
    for name, check in MEASURED.items():
        most = min(check.most, 100.0)
        assert read_thresholds([f"{name}=0", f"{name}={most}"]) == {name: most}
        assert check.threshold <= check.most


def test_self_consistency_is_the_mean_agreement_or_else_that_under_mirroring():
    quality = {f"{r}_mirror_dice": v for r, v in zip(PARTS, (0.9, 0.6, 0.9), strict=True)}
    assert self_consistency(quality) == pytest.approx(0.8)
    assert self_consistency(quality | {f"{r}_agreement": 0.7 for r in PARTS}) == pytest.approx(0.7)


def test_a_missing_region_counts_0_and_a_single_pass_has_none():
    assert self_consistency({"pons_mirror_dice": 0.9, "medulla_mirror_dice": 0.9}) == pytest.approx(
        0.6
    )
    assert self_consistency({"pons_soft_dice": 0.9}) is None
