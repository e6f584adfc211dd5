"""What the group level said of a result stands on its page while the result is the same."""

import json

import pytest

from bids_app.bids.columns import LONGITUDINAL
from bids_app.bids.outputs import GroupFiles
from bids_app.io.tables import table

from .test_group import row

OUT = {"flags": "wrong_order,outlier", "pons_robust_z": "-4.213", "medulla_robust_z": "1.000"}


@pytest.fixture
def grouped(dataset):
    """A result, and the group level's row of it: a flag by its threshold, and an outlier."""
    dataset.add(Quality={"midbrain_pons_height_mm": 6.0, "pons_soft_dice": 0.9})
    dataset.group([row(**OUT)])
    thresholds = {"flags": {"Thresholds": {"wrong_order": 8.0}}}
    (dataset.folder / "group_volumes.json").write_text(json.dumps(thresholds))
    return dataset


def change(dataset, **others):
    """Write a table of changes with one row, from ses-1 to ses-2 of sub-01."""
    first, later = (row(session=f"ses-{n}")["source"] for n in (1, 2))
    values = dict.fromkeys(LONGITUDINAL, "n/a") | {
        "participant_id": "sub-01",
        "first_session_id": "ses-1",
        "session_id": "ses-2",
        "model": "open",
        "model_version": "1.0.0",
        "first_source": first,
        "source": later,
        "years": "1.420",
        "pons_change_percent": "-2.500",
        "pons_smallest_detectable_percent": "1.800",
        "noise_source": "changes",
        "beyond_noise": "pons",
        "flags": "etiv_changed",
    }
    values |= others
    content = table(list(LONGITUDINAL), [list(values.values())])
    GroupFiles(dataset.folder).longitudinal.write_bytes(content)


def test_flags_of_the_group_level_are_told_with_region_and_z(grouped):
    page = grouped.participant()
    assert "1 result, 1 flagged." in page.text
    assert "out in the dataset (group level): pons -4.21" in page.text
    assert "4.21 (pons)at most 3.5outlier" in page.text  # among the checks
    assert "less than 8 times the noise" in page.text
    assert page.all("a", href="group.html")
    methods = page.text.split("A text for a methods section")[1]
    assert "with the app's thresholds but for wrong_order (8)." in methods
    assert "Volumes were flagged as outlying" in methods


def test_without_a_group_level_the_flags_are_those_of_the_run(dataset):
    page = dataset.add(Quality={"midbrain_pons_height_mm": 6.0}).participant()
    assert "1 result, none flagged." in page.text
    assert not page.all("a", href="group.html")


def test_a_result_made_again_since_has_its_own_flags(grouped):
    volumes = {"midbrain": 9000.0, "pons": 15001.0, "medulla": 5000.0}
    page = grouped.add(volumes=volumes).participant()
    assert "1 result, none flagged." in page.text


def test_thresholds_that_are_asked_for_win(grouped):
    page = grouped.participant(given={"wrong_order": 5.0, "outlier": 4.0, "low_confidence": 0.95})
    assert "low_confidence: the network is unsure" in page.text
    assert "at least 0.95" in page.text
    assert "more than 4 robust standard deviations" in page.text
    assert "wrong_order" not in page.text
    assert (
        "1 result, none flagged."
        in grouped.participant(given={"wrong_order": 5, "outlier": 5}).text
    )


def test_thresholds_are_asked_for_without_a_group_level_too(dataset):
    dataset.add(Quality={"midbrain_pons_height_mm": 6.0}, Flags=["out_of_view", "new_flag"])
    page = dataset.participant(given={"wrong_order": 8.0})
    for flag in ("out_of_view", "new_flag", "wrong_order: "):
        assert flag in page.text


@pytest.mark.parametrize("noise", ["changes", "passes"])
def test_changes_between_sessions_are_on_the_page(dataset, noise):
    dataset.add("sub-01_ses-1").add("sub-01_ses-2")
    change(dataset, noise_source=noise, beyond_noise="pons" if noise == "changes" else "n/a")
    dataset.group([row(session="ses-1"), row(session="ses-2")])
    text = dataset.participant().text
    assert "ses-1 to ses-2, model open1.420" in text
    assert "-2.5 (1.8)" in text
    assert (
        f"-2.5 (1.8)n/an/a{'pons' if noise == 'changes' else 'cannot be told'}etiv_changed" in text
    )
    assert "etiv_changed: etiv_mm3 differs by more than 3 %" in text
    assert LONGITUDINAL["noise_source"].levels[noise] in text
    assert "Change is the difference of a volume" in text.split("A text for a methods section")[1]


def test_a_change_of_a_result_made_again_since_is_left_out(dataset):
    dataset.add("sub-01_ses-1").add("sub-01_ses-2")
    change(dataset)
    dataset.group([row(session="ses-1"), row(session="ses-2", pons_mm3="1.000")])
    assert "Change between sessions" not in dataset.participant().text


@pytest.mark.parametrize("text", ["", "model\tpons_mm3\nopen\n", "model\tflags\nopen\tn/a\n"])
def test_a_broken_table_of_the_group_level_is_passed_over(grouped, text):
    for name in ("group_volumes.tsv", "group_longitudinal.tsv"):
        (grouped.folder / name).write_text(text)
    assert "1 result, none flagged." in grouped.participant().text
