"""Change between sessions: in per cent and a year, with its noise and what makes it doubtful."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from bids_app.bids.columns import GROUP, LONGITUDINAL
from bids_app.group.longitudinal import find_changes, write_longitudinal
from bids_app.regions import REGIONS

START = datetime(2000, 1, 1, tzinfo=UTC)


def row(person="sub-01", session="ses-1", volume=1000.0, **others):
    found = dict.fromkeys(GROUP, "n/a") | {
        "participant_id": person, "session_id": session, "model": "open", "model_version": "1",
        "source": f"{person}/{session}{others.get('run', '')}", "voxel_size_mm": "1x1x1",
    }  # fmt: skip
    found |= {f"{region}_mm3": f"{volume:.3f}" for region in REGIONS}
    return found | others


def dated(rows, **days):
    """Dates of rows, by session."""
    return {r["source"]: START + timedelta(days=days[r["session_id"][4:]]) for r in rows}


def test_change_is_from_the_first_session_to_each_later_one():
    rows = [row(session="ses-a", volume=1000), row(session="ses-b", volume=990),
            row(session="ses-c", volume=950)]  # fmt: skip
    changes = find_changes(rows, dated(rows, a=0, b=365.25, c=730.5))
    assert [c["session_id"] for c in changes] == ["ses-b", "ses-c"]
    assert {c["first_session_id"] for c in changes} == {"ses-a"}
    assert changes[1]["pons_change_mm3"] == "-50.000"
    assert changes[1]["pons_change_percent"] == "-5.000"
    assert changes[1]["pons_change_percent_per_year"] == "-2.500"
    assert changes[1]["years"] == "2.000"
    assert changes[1]["flags"] == "n/a"
    assert list(changes[0]) == list(LONGITUDINAL)


def test_dates_decide_what_is_first():
    rows = [row(session="ses-1"), row(session="ses-2")]
    dates = {rows[0]["source"]: START + timedelta(days=400), rows[1]["source"]: START}
    assert find_changes(rows, dates)[0]["first_session_id"] == "ses-2"


def test_without_dates_sessions_are_counted_as_people_count():
    rows = [row(session=f"ses-{i}") for i in (10, 2, 1)]
    changes = find_changes(rows, {})
    assert [c["session_id"] for c in changes] == ["ses-2", "ses-10"]
    assert {c["first_session_id"] for c in changes} == {"ses-1"}
    assert changes[0]["flags"] == "no_date"
    assert changes[0]["pons_change_percent_per_year"] == "n/a"


def test_a_change_within_days_is_not_told_a_year():
    rows = [row(session="ses-a"), row(session="ses-b")]
    change = find_changes(rows, dated(rows, a=0, b=3))[0]
    assert change["years"] == "0.008"
    assert change["pons_change_percent_per_year"] == "n/a"


def test_only_images_of_the_same_name_and_model_are_compared():
    rows = [row(), row(session="ses-2", acq="hi"), row(session="ses-2", model="mars"),
            row(session="ses-2", model_version="2"), row(person="sub-02", session="ses-2"),
            row(person="sub-03", session="n/a")]  # fmt: skip
    assert not find_changes(rows, {})


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
    rows = [row(session="ses-a"), row(session="ses-b", **{column: "other"})]
    assert find_changes(rows, dated(rows, a=0, b=100))[0]["flags"] == flag


@pytest.mark.parametrize(
    ("before", "after", "flags"),
    [
        ({"voxel_size_mm": "1.0063x1.3417x1.3417"}, {"voxel_size_mm": "1.0059x1.3412x1.3412"}, ""),
        ({}, {"voxel_size_mm": "1x1x1.02"}, "voxel_size_changed"),
        ({}, {"voxel_size_mm": "n/a"}, "voxel_size_changed"),
        ({"etiv_mm3": "1500000"}, {"etiv_mm3": "1540000"}, ""),
        ({"etiv_mm3": "1500000"}, {"etiv_mm3": "1440000"}, "etiv_changed"),
        ({"etiv_mm3": "1500000"}, {"etiv_mm3": "n/a"}, ""),
        ({"flags": "no_etiv"}, {"flags": "no_etiv"}, ""),
        ({"flags": "no_etiv"}, {}, "flagged_image"),
        ({"flags": "no_etiv"}, {"flags": "no_etiv,wrong_order"}, "flagged_image"),
        ({"rating": "fail"}, {"rating": "pass"}, "rated_fail"),
        ({}, {"rating": "fail"}, "rated_fail"),
    ],
)
def test_only_what_matters_of_two_images_is_flagged(before, after, flags):
    rows = [row(session="ses-a", **before), row(session="ses-b", **after)]
    assert find_changes(rows, dated(rows, a=0, b=100))[0]["flags"] == (flags or "n/a")


def test_failed_images_and_empty_regions_have_no_change():
    rows = [row(), row(session="ses-2", brainstem_mm3="n/a"), row(person="sub-02", volume=0),
            row(person="sub-02", session="ses-2")]  # fmt: skip
    changes = find_changes(rows, {})
    assert len(changes) == 1
    assert changes[0]["pons_change_percent"] == "n/a"


@pytest.mark.parametrize("flags", ["n/a", "no_etiv"])  # the latter of skull-stripped images
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
    assert changes[1]["pons_smallest_detectable_percent"] == "4.456"
    assert changes[1]["noise_source"] == "repeats"
    assert changes[1]["beyond_noise"] == "midbrain,pons,medulla,brainstem"
    assert changes[0]["beyond_noise"] == "n/a"


def test_else_from_the_scatter_of_changes():
    rows = []
    for i in range(11):
        rows += [row(f"sub-{i:02d}"), row(f"sub-{i:02d}", "ses-2", volume=1000 + i - 5)]
    changes = find_changes(rows, {})
    # Changes of -0.5 to 0.5 %: the median absolute deviation is 0.3.
    assert float(changes[0]["pons_smallest_detectable_percent"]) == pytest.approx(
        2.868 * 1.4826 * 0.3,
        abs=1e-3,  # t of 0.37 * 10
    )
    assert changes[0]["noise_source"] == "changes"
    rows[-1]["rating"] = "fail"
    rows[-3]["rating"] = "fail"  # 9 are left
    assert find_changes(rows, {})[0]["pons_smallest_detectable_percent"] == "n/a"


@pytest.mark.parametrize(("number", "shift", "few"), [(10, 0, True), (40, 0, True), (40, 5, False)])
def test_about_one_change_in_twenty_is_beyond_noise_by_chance(number, shift, few):
    beyond = 0
    for seed in range(50):
        drawn = np.random.default_rng(seed).normal(shift, 1, number)
        rows = []
        for i, percent in enumerate(drawn):
            rows += [row(f"sub-{i:02d}"), row(f"sub-{i:02d}", "ses-2", volume=1000 + 10 * percent)]
        beyond += sum(c["beyond_noise"] != "n/a" for c in find_changes(rows, {}))
    share = beyond / (50 * number)
    assert 0.02 < share < 0.06 if few else share > 0.95  # a change common to all stands out


def test_no_change_within_the_wavering_of_the_passes_is_beyond_noise():
    rows = []
    for i in range(12):
        rows += [
            row(f"sub-{i:02d}", pons_sd_mm3="3.0"),
            row(f"sub-{i:02d}", "ses-2", volume=1000 + i / 100, pons_sd_mm3="4.0"),
        ]
    change = find_changes(rows, {})[11]
    assert change["pons_smallest_detectable_percent"] == "0.980"
    assert change["noise_source"] == "changes"
    assert "pons" not in change["beyond_noise"]


def test_else_from_the_passes_of_the_network():
    spread = {"pons_sd_mm3": "3.0"}
    rows = [row(**spread), row(session="ses-2", volume=1010, **spread | {"pons_sd_mm3": "4.0"})]
    change = find_changes(rows, {})[0]
    assert change["pons_change_sd_percent"] == "0.500"
    assert change["pons_smallest_detectable_percent"] == "0.980"
    assert change["noise_source"] == "passes"
    assert change["beyond_noise"] == "n/a"  # passes hold no second scan
    assert change["medulla_smallest_detectable_percent"] == "n/a"


def test_a_table_of_earlier_changes_goes_when_there_are_none(tmp_path):
    place = tmp_path / "group_longitudinal.tsv"
    assert write_longitudinal(place, [row(), row(session="ses-2")], {}) == 1
    assert place.with_suffix(".json").is_file()
    assert write_longitudinal(place, [row()], {}) == 0
    assert not list(tmp_path.iterdir())
