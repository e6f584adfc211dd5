"""Volumes are set in relation to the head, and to the heads of the dataset."""

from __future__ import annotations

import numpy as np
import pytest

from bids_app.bids.columns import GROUP
from bids_app.group.head_size import LEAST_PARTICIPANTS, normalise


def row(person, etiv, volume, flags="n/a", model="open"):
    values = {f"{name}_mm3": f"{volume:.3f}" for name in ("midbrain", "pons", "medulla")}
    values |= {"midbrain_midsagittal_mm2": "250", "pons_midsagittal_mm2": "500"}
    known = {"participant_id": person, "model": model, "flags": flags, "etiv_mm3": str(etiv)}
    return dict.fromkeys(GROUP, "n/a") | values | known


def people(number, **more):
    """Heads whose volumes are half a per cent of eTIV, give or take what repeats."""
    extra = [20, -20, 0, 0]
    return [
        row(f"sub-{k:02}", 1.4e6 + 1e4 * k, 0.005 * (1.4e6 + 1e4 * k) + extra[k % 4], **more)
        for k in range(number)
    ]


def adjusted(rows):
    return np.array([float(r["pons_adjusted_mm3"]) for r in rows])


def test_proportions_and_ratios_need_one_image_alone():
    rows = [row("sub-01", 1.5e6, 7500)]
    normalise(rows)
    assert rows[0]["pons_etiv_fraction"] == "0.0050000"
    assert rows[0]["midbrain_pons_ratio"] == "1.0000"
    assert rows[0]["midbrain_pons_midsagittal_ratio"] == "0.5000"
    assert rows[0]["brainstem_etiv_fraction"] == "n/a"
    assert rows[0]["pons_adjusted_mm3"] == "n/a"


def test_adjusted_volumes_no_longer_follow_the_head_and_keep_their_mean():
    rows = people(20)
    normalise(rows)
    etiv = np.array([float(r["etiv_mm3"]) for r in rows])
    assert abs(np.corrcoef(etiv, adjusted(rows))[0, 1]) < 1e-4
    assert adjusted(rows).mean() == pytest.approx(0.005 * etiv.mean(), abs=0.01)
    assert adjusted(rows).std() < 20


def test_flagged_images_are_adjusted_but_do_not_count():
    rows = people(20)
    odd = row("sub-99", 1.5e6, 90000, flags="wrong_order")
    normalise(both := [*rows, odd])
    normalise(alone := people(20))
    np.testing.assert_allclose(adjusted(both[:-1]), adjusted(alone))
    assert float(odd["pons_adjusted_mm3"]) == pytest.approx(90000, abs=50)


def test_a_region_that_the_model_has_not_stays_missing():
    rows = people(20)
    normalise(rows)
    assert rows[0]["brainstem_adjusted_mm3"] == "n/a"


def test_it_is_told_why_no_volume_is_adjusted():
    flagged = [row(f"sub-9{k}", 1.5e6, 7500, flags="wrong_order") for k in range(9)]
    failed = row("sub-99", "n/a", np.nan, flags="failed", model="other")
    [reason] = normalise([*people(4), *flagged, failed])
    assert "n/a for model open n/a: they need " in reason
    assert reason.endswith("there are 4")
    assert normalise(people(20)) == []


def test_that_a_model_estimates_no_etiv_is_told():
    rows = [row(f"sub-{k:02}", "n/a", 7500, model="mine") for k in range(12)]
    [reason] = normalise(rows)
    assert reason.startswith("Model mine n/a estimates no eTIV: etiv_mm3, ")
    for known in rows:
        known["localizer_confidence"] = "0.97"
    [reason] = normalise(rows)
    assert reason.endswith("there are 0")


def test_a_participant_with_many_images_counts_once():
    rows = people(20)
    again = [*people(20), *[dict(rows[19]) for _ in range(30)]]
    normalise(rows)
    normalise(again)
    np.testing.assert_allclose(adjusted(rows), adjusted(again[:20]))


def test_models_are_adjusted_apart():
    rows = [*people(12), *people(LEAST_PARTICIPANTS - 1, model="other")]
    normalise(rows)
    assert {r["pons_adjusted_mm3"] == "n/a" for r in rows if r["model"] == "other"} == {True}
    assert {r["pons_adjusted_mm3"] == "n/a" for r in rows if r["model"] == "open"} == {False}


def test_rows_without_volumes_or_etiv_fail_at_nothing():
    failed = dict.fromkeys(GROUP, "n/a") | {"participant_id": "sub-x", "flags": "failed"}
    stripped = row("sub-y", "n/a", 7500, flags="no_etiv")
    empty = row("sub-z", 1.5e6, 0, flags="no_brainstem")
    same = [row(f"sub-{k}", 1.5e6, 7500) for k in range(12)]
    normalise([failed, stripped, empty, *same])
    assert stripped["pons_etiv_fraction"] == failed["pons_adjusted_mm3"] == "n/a"
    assert empty["midbrain_pons_ratio"] == "n/a"
    assert same[0]["pons_adjusted_mm3"] == "n/a"
