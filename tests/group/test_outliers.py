"""What lies out is flagged, in the dataset and among the images of a site."""

import numpy as np
import pytest

from bids_app.bids.columns import GROUP
from bids_app.group.outliers import add_outliers, robust_z


def row(volume, **others):
    found = dict.fromkeys(GROUP, "n/a") | {"model": "open", "model_version": "1"} | others
    return found | {"pons_mm3": str(volume)}


def test_robust_z_is_that_of_iglewicz_and_hoaglin():
    values = np.array([*range(1, 11), 100.0])
    z = robust_z(values)
    assert z[-1] == pytest.approx(0.6745 * (100 - 6) / 3)
    assert z[5] == 0


def test_robust_z_needs_values_and_a_spread():
    assert np.isnan(robust_z(np.arange(9.0))).all()
    assert np.isnan(robust_z(np.full(20, 3.0))).all()
    assert np.isnan(robust_z(np.array([*range(12), np.nan]))[-1])


def test_what_lies_out_is_flagged_whatever_other_flags_there_are():
    rows = [row(15000 + i) for i in range(20)] + [row(9000, flags="wrong_order")]
    add_outliers(rows, {})
    assert rows[-1]["flags"] == "wrong_order,outlier"
    assert {r["flags"] for r in rows[:-1]} == {"n/a"}
    assert rows[0]["midbrain_robust_z"] == "n/a"


def test_skull_stripped_images_count_in_the_median_and_flagged_ones_do_not():
    stripped = [row(15000 + i, flags="no_etiv") for i in range(11)]
    rows = [*stripped, *[row(9000, flags="no_etiv,wrong_order") for _ in range(20)]]
    add_outliers(rows, {})
    assert {r["flags"] for r in stripped} == {"no_etiv"}
    assert {r["flags"] for r in rows[11:]} == {"no_etiv,wrong_order,outlier"}


def test_the_threshold_is_the_users():
    rows = [row(15000 + i) for i in range(20)] + [row(9000)]
    add_outliers(rows, {"outlier": 1e6})
    assert rows[-1]["flags"] == "n/a"


def test_models_are_looked_at_apart():
    rows = [row(15000 + i) for i in range(20)] + [row(9000 + i, model="mars") for i in range(20)]
    add_outliers(rows, {})
    assert {r["flags"] for r in rows} == {"n/a"}


def test_an_image_can_lie_out_at_its_site_alone():
    sites = [row(15000 + 10 * i, batch="Basel") for i in range(20)]
    sites += [row(12000 + 10 * i, batch="Bern") for i in range(20)]
    sites.append(row(12100, batch="Basel"))
    add_outliers(sites, {"outlier": 1e6})
    assert sites[-1]["flags"] == "outlier_in_batch"
    assert sites[-1]["pons_robust_z"] != "n/a"
    assert {r["flags"] for r in sites[:-1]} == {"n/a"}
