"""Scanner and site come from sidecars by inheritance, dates from the tables of BIDS."""

import json
from datetime import UTC, datetime

import pytest

from bids_app.bids.columns import GROUP
from bids_app.bids.sidecars import add_scanners, add_years, inherited, parse_date, read_dates

SOURCE = "sub-01/ses-1/anat/sub-01_ses-1_acq-hi_T1w.nii.gz"


def row(source=SOURCE, **others):
    entities = dict(part.split("-") for part in source.split("/")[-1].split("_")[:-1])
    person, session = f"sub-{entities['sub']}", f"ses-{entities.get('ses')}"
    return dict.fromkeys(GROUP, "n/a") | {
        "participant_id": person, "session_id": session if "ses" in entities else "n/a",
        "source": source, **others,
    }  # fmt: skip


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_nearest_sidecar_wins(tmp_path):
    write(tmp_path, "T1w.json", {"Manufacturer": "A", "MagneticFieldStrength": 1.5})
    write(tmp_path, "acq-hi_T1w.json", {"ManufacturersModelName": "Prisma"})
    write(tmp_path, "acq-lo_T1w.json", {"ManufacturersModelName": "Old"})
    write(tmp_path, "sub-01/ses-1/anat/sub-01_ses-1_acq-hi_T1w.json", {"MagneticFieldStrength": 3})
    told = inherited(tmp_path, SOURCE)
    assert told == {
        "Manufacturer": "A", "MagneticFieldStrength": 3, "ManufacturersModelName": "Prisma",
    }  # fmt: skip


def test_scanner_and_site_fill_the_columns_and_make_a_batch(tmp_path):
    fields = {"Manufacturer": "A\tB", "MagneticFieldStrength": 3.0, "InstitutionName": 'The "Lab"'}
    write(tmp_path, "T1w.json", fields)
    there, joined = row(), row(site="Bern")
    add_scanners([there, joined], tmp_path)
    assert there["batch"] == "The 'Lab', A B, 3"
    assert there["scanner_model"] == "n/a"
    assert joined["site"] == "Bern"
    assert joined["batch"] == "Bern, A B, 3"


def test_without_sidecars_nothing_is_known(tmp_path):
    alone = row()
    add_scanners([alone], tmp_path)
    assert alone["batch"] == "n/a"


def test_dates_come_from_scans_before_sessions(tmp_path):
    later = SOURCE.replace("ses-1", "ses-2")
    write(tmp_path, "sub-01/sub-01_sessions.tsv",
          "session_id\tacq_time\nses-1\t1900-01-01\nses-2\t1902-01-01T10:00:00\n")  # fmt: skip
    scan = "anat/sub-01_ses-1_acq-hi_T1w.nii.gz"
    write(tmp_path, "sub-01/ses-1/sub-01_ses-1_scans.tsv",
          f"filename\tacq_time\n{scan}\t1901-01-01T00:00:00.000\n")  # fmt: skip
    rows = [row(), row(later), row("sub-02/anat/sub-02_T1w.nii.gz")]
    dates = read_dates(rows, tmp_path)
    assert dates[SOURCE] == datetime(1901, 1, 1, tzinfo=UTC)
    assert dates[later] == datetime(1902, 1, 1, 10, tzinfo=UTC)
    assert len(dates) == 2
    add_years(rows, dates)
    assert [r["years_since_first"] for r in rows] == ["0.000", "1.000", "n/a"]


@pytest.mark.parametrize("text", ["n/a", "", None, "yesterday", "2020-13-01"])
def test_what_is_no_date_is_none(text):
    assert parse_date(text) is None


def test_dates_with_and_without_a_time_zone_can_be_compared():
    assert parse_date("2020-01-01T00:00:00Z") == parse_date("2020-01-01")
