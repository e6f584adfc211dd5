"""Checks and measures of quality in a participant's page."""

import html
import re

from bids_app.bids.columns import QUALITY, VOLUMES
from bids_app.regions import REGIONS
from bids_app.reports.quality import check_lines, measure_lines


def test_checks_show_the_worst_region_and_the_limit_that_the_run_set(dataset):
    page = dataset.add(
        Quality={
            "midbrain_soft_dice": 0.95, "pons_soft_dice": 0.5,
            "midbrain_pons_height_mm": 6.0, "pons_medulla_height_mm": 20.0,
        },
        Flags=["wrong_order"],
        FlagThresholds={"wrong_order": 8.0},
    ).participant()  # fmt: skip
    for words in ("0.5 (pons)", "at least 0.85", "6 (midbrain and pons)", "at least 8",
                  "less than 8 mm above", "All 4 measures of quality"):  # fmt: skip
        assert words in page.text
    assert page.text.count("in order") == 1


def test_all_measures_of_quality_have_their_meaning_and_limit(dataset):
    page = dataset.add(
        Quality={"etiv_mm3": 1.5e6, "midbrain_soft_dice": 0.95, "pons_soft_dice": 0.5}
    ).participant()
    folded = page.source.split("All 3 measures of quality")[1].split("</details>")[0]
    assert "between the probabilities of the region and its label" in folded
    assert folded.count("at least 0.85") == 1
    assert re.findall(r'class="badge">([^<]+)', folded) == ["0.5"]
    assert folded.index("soft Dice") < folded.index("eTIV")


def test_each_measure_is_described_as_in_the_data_dictionary(dataset):
    page = dataset.add(Quality=dict.fromkeys(QUALITY, 0.9)).participant()
    shown = {html.unescape(text) for text in re.findall(r"<small>(.*?)</small>", page.source)}
    texts = {entry.description for entry in (QUALITY | VOLUMES).values()}
    of_a_region = {text.replace(f"the {name}", "the region") for text in texts for name in REGIONS}
    assert shown <= texts | of_a_region
    for key, entry in QUALITY.items():
        name = key.split("_")[0]
        assert {
            entry.description,
            entry.description.replace(f"the {name}", "the region"),
        } & shown


def test_a_check_without_its_measure_is_left_out():
    [line] = check_lines({"pons_soft_dice": 0.5}, {})
    assert (line.flag, line.worst, line.where) == ("low_confidence", "0.5", "")
    assert not list(check_lines({}, {}))


def test_values_of_regions_stand_in_columns_in_anatomical_order():
    quality = {"pons_symmetry": 0.9, "midbrain_symmetry": 0.7, "etiv_mm3": 1.5e6}
    regions, by_region, others = measure_lines(quality, {"asymmetric": 0.75})
    assert regions == ["midbrain", "pons"]
    assert [line.values for line in by_region] == [(("0.7", True), ("0.9", False))]
    assert [(line.name, line.limit) for line in others] == [("eTIV (mm³)", "none")]
