"""Outliers are flagged, in the dataset and at a site; a user's norms give z scores."""

from __future__ import annotations

import numpy as np
import pytest
from made_tables import texts, volumes

from bids_app.bids.columns import GROUP
from bids_app.errors import UsageError
from bids_app.group.zscores import (
    add_norm_scores,
    add_outliers,
    find_outliers,
    norm_columns,
    parse_norms,
    robust_z,
    scores_of,
)
from bids_app.io.tables import Column, read_user_table

# --- within the dataset -------------------------------------------------------------------


def pons(volume, **others):
    return {"pons_mm3": volume, **others}


def test_robust_z_is_that_of_iglewicz_and_hoaglin():
    values = np.array([*range(1, 11), 100.0])
    z = robust_z(values)
    assert z[-1] == pytest.approx(0.6745 * (100 - 6) / 3)
    assert z[5] == 0


def test_robust_z_needs_values_and_a_spread():
    assert np.isnan(robust_z(np.arange(9.0))).all()
    assert np.isnan(robust_z(np.full(20, 3.0))).all()
    assert np.isnan(robust_z(np.array([*range(12), np.nan]))[-1])


def test_an_outlier_is_flagged_whatever_other_flags_there_are():
    rows = [pons(15000 + i) for i in range(20)]
    found = add_outliers(volumes(*rows, pons(9000, flags="wrong_order")), {})
    assert texts(found["flags"]) == [None] * 20 + ["wrong_order,outlier"]
    assert found["midbrain_robust_z"].isna().all()
    assert found["pons_robust_z"].iloc[0] == round(found["pons_robust_z"].iloc[0], 2)


def test_skull_stripped_images_count_in_the_median_and_flagged_ones_do_not():
    stripped = [pons(15000 + i, flags="no_etiv") for i in range(11)]
    flagged = [pons(9000, flags="no_etiv,wrong_order") for _ in range(20)]
    found = texts(add_outliers(volumes(*stripped, *flagged), {})["flags"])
    assert found == ["no_etiv"] * 11 + ["no_etiv,wrong_order,outlier"] * 20


def test_an_image_without_brainstem_has_no_score():
    rows = [pons(15000 + i) for i in range(20)]
    found = add_outliers(volumes(*rows, pons(0, flags="no_brainstem")), {})
    assert np.isnan(found["pons_robust_z"].iloc[-1])
    assert found["flags"].iloc[-1] == "no_brainstem"


def test_the_threshold_is_the_users():
    rows = [pons(15000 + i) for i in range(20)]
    found = add_outliers(volumes(*rows, pons(9000)), {"outlier": 1e6})
    assert found["flags"].isna().all()


def test_models_are_treated_separately():
    rows = [pons(15000 + i) for i in range(20)] + [pons(9000 + i, model="mars") for i in range(20)]
    assert add_outliers(volumes(*rows), {})["flags"].isna().all()


def test_kinds_of_images_are_treated_separately():
    rows = [pons(15000 + i) for i in range(20)] + [pons(9000, suffix="FLAIR")]
    found = add_outliers(volumes(*rows), {})
    assert texts(found["flags"]) == [None] * 21
    assert np.isnan(found["pons_robust_z"].iloc[-1])


def test_an_image_can_be_an_outlier_at_its_site_alone():
    sites = [pons(15000 + 10 * i, batch="Basel") for i in range(20)]
    sites += [pons(12000 + 10 * i, batch="Bern") for i in range(20)]
    found = add_outliers(volumes(*sites, pons(12100, batch="Basel")), {"outlier": 1e6})
    assert texts(found["flags"]) == [None] * 40 + ["outlier_in_batch"]
    assert np.isfinite(found["pons_robust_z"].iloc[-1])


def test_the_regions_that_raise_a_flag_are_found_with_their_scores():
    row = {"pons_robust_z": -4.213, "medulla_robust_z": "3.60", "midbrain_robust_z": 1.0,
           "brainstem_robust_z": "n/a", "pons_batch_z": float("nan")}  # fmt: skip
    scores = scores_of(row)
    assert scores == {"pons_robust_z": -4.213, "medulla_robust_z": 3.6, "midbrain_robust_z": 1.0}
    assert find_outliers(scores, {}) == {"outlier": "pons -4.21, medulla +3.60"}
    assert find_outliers(scores, {"outlier": 5.0}) == {}


# --- by norms -----------------------------------------------------------------------------

COLUMNS = dict(GROUP) | {"age": Column("age"), "sex": Column("sex")}


def norms(tmp_path, text):
    path = tmp_path / "norms.tsv"
    path.write_text(text.replace(" ", "\t"))
    return parse_norms(read_user_table(path)[1], COLUMNS, "norms.tsv")


def person(age="30", sex="F", pons=16000.0, **others):
    table = volumes({"pons_mm3": pons, **others})
    return table.assign(age=np.nan if age is None else age, sex=sex)


TABLE = """measure sex age_min age_max mean sd
pons_mm3 F 20 40 15000 500
pons_mm3 F 40 n/a 14000 500
pons_mm3 M 20 40 16000 800
"""


@pytest.mark.parametrize(
    ("table", "z"),
    [
        (person(), 2),
        (person(age="40"), 4),
        (person(sex="M"), 0),
        (person(sex="M", age="50"), np.nan),
        (person(age=None), np.nan),
        (person(age="old"), np.nan),
        (person(pons=None), np.nan),
        (person(flags="no_brainstem"), np.nan),
    ],
)
def test_the_stratum_that_fits_gives_the_score(tmp_path, table, z):
    found = add_norm_scores(table, norms(tmp_path, TABLE), COLUMNS)
    np.testing.assert_equal(found["pons_mm3_norm_z"].tolist(), [z])


def test_a_number_may_be_asked_to_be_equal(tmp_path):
    table = norms(tmp_path, "measure field_strength_t mean sd\npons_mm3 3 15000 500\n")
    for tesla, z in ((3.0, 2.0), (1.5, np.nan)):
        found = add_norm_scores(person(field_strength_t=tesla), table, COLUMNS)
        np.testing.assert_equal(found["pons_mm3_norm_z"].tolist(), [z])


def test_strata_that_overlap_are_refused(tmp_path):
    both = norms(tmp_path, TABLE + "pons_mm3 F 30 50 1 1\n")
    with pytest.raises(UsageError, match=r"2 rows for pons_mm3 fit a\. Bounds"):
        add_norm_scores(person(), both, COLUMNS)


def test_columns_of_norms_are_described(tmp_path):
    columns = norm_columns(norms(tmp_path, TABLE))
    assert list(columns) == ["pons_mm3_norm_z"]
    assert "(pons_mm3 - mean) / standard deviation" in columns["pons_mm3_norm_z"].description


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("measure mean sd\n", "norms.tsv: it has no row"),
        ("measure mean sd\nheight 1 1\n", "norms.tsv, line 2: .* no column height"),
        ("measure group mean sd\npons_mm3 a 1 1\n", "no column group"),
        ("measure mean sd\npons_mm3 one 1\n", "mean is 'one', which is not a number"),
        ("measure mean sd\npons_mm3 1 0\n", "sd is not above 0"),
        ("measure mean\npons_mm3 1\n", "sd is missing"),
        ("measure mean sd\npons_mm3 1\n", "more or fewer cells"),
        ("measure age_min mean sd\npons_mm3 old 1 1\n", "age_min is 'old'"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        norms(tmp_path, text)
