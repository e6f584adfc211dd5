"""Volumes are put in relation to the head, and to the heads of the dataset."""

from __future__ import annotations

import numpy as np
import pytest
from made_tables import volumes

from bids_app.group.head_size import LEAST_PARTICIPANTS, add_head_size


def row(person, etiv, volume, **others):
    values = {f"{name}_mm3": volume for name in ("midbrain", "pons", "medulla")}
    values |= {"midbrain_midsagittal_mm2": 250.0, "pons_midsagittal_mm2": 500.0}
    return values | {"participant_id": person, "etiv_mm3": etiv} | others


def people(number, **others):
    """Heads whose volumes are half a percent of eTIV, give or take what repeats."""
    extra = [20, -20, 0, 0]
    etiv = [1.4e6 + 1e4 * k for k in range(number)]
    return [row(f"sub-{k:02}", e, 0.005 * e + extra[k % 4], **others) for k, e in enumerate(etiv)]


def adjusted(*rows, region="pons"):
    return add_head_size(volumes(*rows))[0][f"{region}_adjusted_mm3"].to_numpy()


def test_proportions_and_ratios_need_one_image_alone():
    found = add_head_size(volumes(row("sub-01", 1.5e6, 7500.0)))[0].iloc[0]
    assert found["pons_etiv_fraction"] == 0.005
    assert found["midbrain_pons_ratio"] == 1
    assert found["midbrain_pons_midsagittal_ratio"] == 0.5
    assert np.isnan(found["brainstem_etiv_fraction"])
    assert np.isnan(found["pons_adjusted_mm3"])


def test_adjusted_volumes_no_longer_follow_the_head_and_keep_their_mean():
    rows = people(20)
    etiv = np.array([r["etiv_mm3"] for r in rows])
    found = adjusted(*rows)
    assert abs(np.corrcoef(etiv, found)[0, 1]) < 1e-4
    assert found.mean() == pytest.approx(0.005 * etiv.mean(), abs=0.01)
    assert found.std() < 20
    assert found[0] == round(found[0], 3)


def test_flagged_images_are_adjusted_but_do_not_count():
    odd = row("sub-99", 1.5e6, 90000.0, flags="wrong_order")
    both = adjusted(*people(20), odd)
    np.testing.assert_allclose(both[:-1], adjusted(*people(20)))
    assert both[-1] == pytest.approx(90000, abs=50)


def test_a_region_that_the_model_has_not_stays_missing():
    assert np.isnan(adjusted(*people(20), region="brainstem")).all()


def test_a_reason_says_why_no_volume_is_adjusted():
    flagged = [row(f"sub-9{k}", 1.5e6, 7500.0, flags="wrong_order") for k in range(9)]
    failed = row("sub-99", None, None, flags="failed", model="other")
    [reason] = add_head_size(volumes(*people(4), *flagged, failed))[1]
    assert "n/a for model open 1: they need " in reason
    assert reason.endswith("there are 4")
    assert add_head_size(volumes(*people(20)))[1] == []


def test_a_model_that_estimates_no_etiv_is_named():
    rows = [row(f"sub-{k:02}", None, 7500.0, model="mine") for k in range(12)]
    [reason] = add_head_size(volumes(*rows))[1]
    assert reason.startswith("Model mine 1 does not estimate eTIV: etiv_mm3, ")
    [reason] = add_head_size(volumes(*(r | {"localizer_confidence": 0.97} for r in rows)))[1]
    assert reason.endswith("there are 0")


def test_a_participant_with_many_images_counts_once():
    rows = people(20)
    np.testing.assert_allclose(adjusted(*rows), adjusted(*rows, *[rows[19]] * 30)[:20])


def test_models_are_adjusted_separately():
    found = adjusted(*people(12), *people(LEAST_PARTICIPANTS - 1, model="other"))
    assert np.isfinite(found[:12]).all()
    assert np.isnan(found[12:]).all()


def test_rows_without_volumes_or_etiv_stop_nothing():
    rows = [
        {"participant_id": "sub-x", "flags": "failed"},
        row("sub-y", None, 7500.0, flags="no_etiv"),
        row("sub-z", 1.5e6, 0.0, flags="no_brainstem"),
        *(row(f"sub-{k}", 1.5e6, 7500.0) for k in range(12)),
    ]
    found = add_head_size(volumes(*rows))[0]
    assert np.isnan(found["pons_etiv_fraction"].iloc[1])
    assert np.isnan(found["midbrain_pons_ratio"].iloc[2])
    assert found["pons_adjusted_mm3"].isna().all()  # heads of one size have no slope
