"""Change between sessions: in per cent and a year, with its noise and what makes it doubtful."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from made_tables import texts, volumes

from bids_app.bids.columns import LONGITUDINAL
from bids_app.group import longitudinal
from bids_app.regions import REGIONS

START = datetime(2000, 1, 1, tzinfo=UTC)


def row(person="sub-01", session="ses-1", volume=1000.0, **others):
    found = {
        "participant_id": person, "session_id": session, "voxel_size_mm": "1x1x1",
        "source": f"{person}/{session}{others.get('run', '')}",
    }  # fmt: skip
    return found | {f"{region}_mm3": float(volume) for region in REGIONS} | others


def find_changes(rows, dates):
    return longitudinal.find_changes(volumes(*rows), dates)


def dated(rows, **days):
    """Dates of rows, by session."""
    return {r["source"]: START + timedelta(days=days[r["session_id"][4:]]) for r in rows}


def test_change_is_from_the_first_session_to_each_later_one():
    rows = [row(session="ses-a", volume=1000), row(session="ses-b", volume=990),
            row(session="ses-c", volume=950)]  # fmt: skip
    changes = find_changes(rows, dated(rows, a=0, b=365.25, c=730.5))
    assert changes["session_id"].tolist() == ["ses-b", "ses-c"]
    assert set(changes["first_session_id"]) == {"ses-a"}
    change = changes.iloc[1]
    assert change["pons_change_mm3"] == -50
    assert change["pons_change_percent"] == -5
    assert change["pons_change_percent_per_year"] == -2.5
    assert change["years"] == 2
    assert texts(changes["flags"]) == [None, None]
    assert list(changes) == list(LONGITUDINAL)


def test_dates_decide_what_is_first():
    rows = [row(session="ses-1"), row(session="ses-2")]
    dates = {rows[0]["source"]: START + timedelta(days=400), rows[1]["source"]: START}
    assert find_changes(rows, dates)["first_session_id"].tolist() == ["ses-2"]


def test_without_dates_sessions_are_counted_as_people_count():
    rows = [row(session=f"ses-{i}") for i in (10, 2, 1)]
    changes = find_changes(rows, {})
    assert changes["session_id"].tolist() == ["ses-2", "ses-10"]
    assert set(changes["first_session_id"]) == {"ses-1"}
    assert changes["flags"].tolist() == ["no_date"] * 2
    assert changes["pons_change_percent_per_year"].isna().all()


def test_a_change_within_days_is_not_given_per_year():
    rows = [row(session="ses-a"), row(session="ses-b")]
    change = find_changes(rows, dated(rows, a=0, b=3)).iloc[0]
    assert change["years"] == 0.008
    assert np.isnan(change["pons_change_percent_per_year"])


def test_only_images_of_the_same_name_and_model_are_compared():
    rows = [row(), row(session="ses-2", acq="hi"), row(session="ses-2", model="mars"),
            row(session="ses-2", model_version="2"), row(person="sub-02", session="ses-2"),
            row(person="sub-03", session=None)]  # fmt: skip
    changes = find_changes(rows, {})
    assert changes.empty
    assert list(changes) == list(LONGITUDINAL)


@pytest.mark.parametrize(
    ("column", "flag"),
    [
        ("manufacturer", "scanner_changed"),
        ("site", "scanner_changed"),
        ("field_strength_t", "field_strength_changed"),
        ("flags", "flagged_image"),
    ],
)
def test_what_makes_a_change_doubtful_is_flagged(column, flag):
    other = 1.5 if column == "field_strength_t" else "other"
    rows = [row(session="ses-a"), row(session="ses-b", **{column: other})]
    assert find_changes(rows, dated(rows, a=0, b=100))["flags"].tolist() == [flag]


@pytest.mark.parametrize(
    ("before", "after", "flags"),
    [
        ({"voxel_size_mm": "1.0063x1.3417x1.3417"}, {"voxel_size_mm": "1.0059x1.3412x1.3412"}, ""),
        ({}, {"voxel_size_mm": "1x1x1.02"}, "voxel_size_changed"),
        ({}, {"voxel_size_mm": None}, "voxel_size_changed"),
        ({"etiv_mm3": 1500000}, {"etiv_mm3": 1540000}, ""),
        ({"etiv_mm3": 1500000}, {"etiv_mm3": 1440000}, "etiv_changed"),
        ({"etiv_mm3": 1500000}, {"etiv_mm3": None}, ""),
        ({"flags": "no_etiv"}, {"flags": "no_etiv"}, ""),
        ({"flags": "no_etiv"}, {}, "flagged_image"),
        ({"flags": "no_etiv"}, {"flags": "no_etiv,wrong_order"}, "flagged_image"),
        ({"rating": "fail"}, {"rating": "pass"}, "rated_fail"),
        ({}, {"rating": "fail"}, "rated_fail"),
    ],
)
def test_only_what_matters_of_two_images_is_flagged(before, after, flags):
    rows = [row(session="ses-a", **before), row(session="ses-b", **after)]
    assert texts(find_changes(rows, dated(rows, a=0, b=100))["flags"]) == [flags or None]


def test_failed_images_and_empty_regions_have_no_change():
    rows = [row(), row(session="ses-2", brainstem_mm3=None), row(person="sub-02", volume=0),
            row(person="sub-02", session="ses-2")]  # fmt: skip
    changes = find_changes(rows, {})
    assert len(changes) == 1
    assert changes["pons_change_percent"].isna().all()


def test_images_without_brainstem_have_no_change():
    assert find_changes([row(), row(session="ses-2", volume=0, flags="no_brainstem")], {}).empty


@pytest.mark.parametrize("flags", [None, "no_etiv"])  # the latter of skull-stripped images
def test_noise_comes_from_repeated_scans_first(flags):
    rows = []
    for i in range(10):
        rows += [
            row(f"sub-{i:02d}", run="1", volume=990),
            row(f"sub-{i:02d}", run="2", volume=1010),
        ]
        rows += [row(f"sub-{i:02d}", "ses-2", run="1", volume=930 if i else 985)]
    changes = find_changes([r | {"flags": flags} for r in rows], {})
    # Two values 20 apart deviate by 20 / sqrt(2); t of 10 (2.228) times sqrt(2) of that is 44.56.
    assert changes["pons_smallest_detectable_percent"].iloc[1] == 4.456
    assert changes["noise_source"].iloc[1] == "repeats"
    assert texts(changes["beyond_noise"])[:2] == [None, "midbrain,pons,medulla,brainstem"]


def test_else_from_the_scatter_of_changes():
    rows = []
    for i in range(11):
        rows += [row(f"sub-{i:02d}"), row(f"sub-{i:02d}", "ses-2", volume=1000 + i - 5)]
    changes = find_changes(rows, {})
    # Changes of -0.5 to 0.5 %: the median absolute deviation is 0.3.
    assert changes["pons_smallest_detectable_percent"].iloc[0] == pytest.approx(
        2.868 * 1.4826 * 0.3,
        abs=1e-3,  # t of 0.37 * 10
    )
    assert changes["noise_source"].iloc[0] == "changes"
    rows[-1]["rating"] = "fail"
    rows[-3]["rating"] = "fail"  # 9 are left
    assert find_changes(rows, {})["pons_smallest_detectable_percent"].isna().all()


@pytest.mark.parametrize(("number", "shift", "few"), [(10, 0, True), (40, 0, True), (40, 5, False)])
def test_about_one_change_in_twenty_is_beyond_noise_by_chance(number, shift, few):
    beyond = 0
    for seed in range(50):
        drawn = np.random.default_rng(seed).normal(shift, 1, number)
        rows = []
        for i, percent in enumerate(drawn):
            rows += [row(f"sub-{i:02d}"), row(f"sub-{i:02d}", "ses-2", volume=1000 + 10 * percent)]
        beyond += find_changes(rows, {})["beyond_noise"].notna().sum()
    share = beyond / (50 * number)
    assert 0.02 < share < 0.06 if few else share > 0.95  # a change common to all stands out


def test_no_change_within_the_wavering_of_the_passes_is_beyond_noise():
    rows = []
    for i in range(12):
        rows += [
            row(f"sub-{i:02d}", pons_sd_mm3=3.0),
            row(f"sub-{i:02d}", "ses-2", volume=1000 + i / 100, pons_sd_mm3=4.0),
        ]
    change = find_changes(rows, {}).iloc[11]
    assert change["pons_smallest_detectable_percent"] == 0.98
    assert change["noise_source"] == "changes"
    assert "pons" not in str(change["beyond_noise"])


def test_else_from_the_passes_of_the_network():
    spread = {"pons_sd_mm3": 3.0}
    rows = [row(**spread), row(session="ses-2", volume=1010, **spread | {"pons_sd_mm3": 4.0})]
    change = find_changes(rows, {}).iloc[0]
    assert change["pons_change_sd_percent"] == 0.5
    assert change["pons_smallest_detectable_percent"] == 0.98
    assert change["noise_source"] == "passes"
    assert texts([change["beyond_noise"]]) == [None]  # passes include no second scan
    assert np.isnan(change["medulla_smallest_detectable_percent"])
