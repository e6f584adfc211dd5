"""Scanner and site come from sidecars by inheritance, dates from the tables of BIDS."""

import json
from datetime import UTC, datetime

import pytest

from bids_app.bids.sidecars import (
    inherited,
    parse_date,
    read_dates,
    read_scanners,
    read_sessions,
)

SOURCE = "sub-01/ses-1/anat/sub-01_ses-1_acq-hi_T1w.nii.gz"


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_nearest_sidecar_wins(tmp_path):
    write(tmp_path, "T1w.json", {"Manufacturer": "A", "MagneticFieldStrength": 1.5})
    write(tmp_path, "acq-hi_T1w.json", {"ManufacturersModelName": "Prisma"})
    write(tmp_path, "acq-lo_T1w.json", {"ManufacturersModelName": "Old"})
    write(tmp_path, "sub-01/ses-1/anat/sub-01_ses-1_acq-hi_T1w.json", {"MagneticFieldStrength": 3})
    found = inherited(tmp_path, SOURCE)
    assert found == {
        "Manufacturer": "A", "MagneticFieldStrength": 3, "ManufacturersModelName": "Prisma",
    }  # fmt: skip


def test_scanner_and_site_are_read_as_cells_of_a_table(tmp_path):
    fields = {
        "Manufacturer": "A\tB",
        "MagneticFieldStrength": "3.0",
        "InstitutionName": 'The "Lab"',
    }
    write(tmp_path, "T1w.json", fields)
    assert read_scanners([SOURCE], tmp_path)[SOURCE] == {
        "site": "The 'Lab'", "manufacturer": "A B", "scanner_model": None, "field_strength_t": 3.0,
    }  # fmt: skip


@pytest.mark.parametrize("odd", [["A"], {"a": 1}, True, "", None])
def test_an_odd_value_is_unknown(tmp_path, odd):
    write(tmp_path, "T1w.json", {"Manufacturer": odd, "MagneticFieldStrength": odd})
    assert set(read_scanners([SOURCE], tmp_path)[SOURCE].values()) == {None}


def test_without_sidecars_nothing_is_known(tmp_path):
    assert set(read_scanners([SOURCE], tmp_path)[SOURCE].values()) == {None}


def test_sessions_are_read_by_participant_and_session(tmp_path):
    write(tmp_path, "sub-01/sub-01_sessions.tsv", "session_id\tage\nses-1\t61\nses-2\t\n")
    found = read_sessions(["sub-01", "sub-02"], tmp_path)
    assert found["sub-01", "ses-1"]["age"] == "61"
    assert "age" not in found["sub-01", "ses-2"]


def test_dates_come_from_scans_before_sessions(tmp_path):
    later = SOURCE.replace("ses-1", "ses-2")
    write(tmp_path, "sub-01/sub-01_sessions.tsv",
          "session_id\tacq_time\nses-1\t1900-01-01\nses-2\t1902-01-01T10:00:00\n")  # fmt: skip
    scan = "anat/sub-01_ses-1_acq-hi_T1w.nii.gz"
    write(tmp_path, "sub-01/ses-1/sub-01_ses-1_scans.tsv",
          f"filename\tacq_time\n{scan}\t1901-01-01T00:00:00.000\n")  # fmt: skip
    dates = read_dates([SOURCE, later, "sub-02/anat/sub-02_T1w.nii.gz"], tmp_path)
    assert dates[SOURCE] == datetime(1901, 1, 1, tzinfo=UTC)
    assert dates[later] == datetime(1902, 1, 1, 10, tzinfo=UTC)
    assert len(dates) == 2


@pytest.mark.parametrize("text", ["n/a", "", None, "yesterday", "2020-13-01"])
def test_what_is_no_date_is_none(text):
    assert parse_date(text) is None


def test_dates_with_and_without_a_time_zone_can_be_compared():
    assert parse_date("2020-01-01T00:00:00Z") == parse_date("2020-01-01")
