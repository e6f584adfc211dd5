"""The methods text of the group level says what its tables hold, and nothing else."""

from bids_app.bids.columns import GROUP
from bids_app.io.tables import Column
from bids_app.reports.methods_text import group_sentences as sentences_of

from .conftest import group_tables


def group_sentences(rows, changes, thresholds, columns=GROUP):
    tables = group_tables(rows, changes, columns=columns, thresholds=thresholds)
    return sentences_of(tables)


def row(**values):
    return dict.fromkeys(GROUP, "n/a") | {"brainstem_mm3": "25000.000"} | values


def change(noise):
    return {"noise_source": noise}


def test_plain_results_have_only_the_sentence_about_flags():
    rows = [row(), row(flags="wrong_order"), row(flags="failed")]
    assert group_sentences(rows, [], {}) == {
        "flags": "Of 2 results, 1 had a flag (wrong_order 1), by the app's default thresholds."
    }
    assert group_sentences([row(flags="failed")], [], {})["flags"].startswith("Of 0 results, 0 had")


def test_flags_are_counted_by_name():
    rows = [row(flags="no_etiv"), row(flags="no_etiv,wrong_order"), row()]
    shown = group_sentences(rows, [], {})["flags"]
    assert (
        shown
        == "Of 3 results, 2 had a flag (no_etiv 2, wrong_order 1), by the app's default thresholds."
    )


def test_each_step_has_a_sentence_with_its_thresholds():
    done = {"pons_robust_z": "0.20", "pons_adjusted_mm3": "1.000", "pons_mm3_norm_z": "0.5",
            "rating": "pass"}  # fmt: skip
    columns = GROUP | {"pons_mm3_norm_z": Column("pons_mm3_norm_z", "float")}
    shown = group_sentences([row(**done)], [], {"outlier": 4.0, "wrong_order": 8.0}, columns)
    assert list(shown) == ["flags", "outlier", "adjusted", "norms", "ratings"]
    assert "except outlier (4), wrong_order (8)" in shown["flags"]
    assert "exceeded 4 in the dataset, in robust standard" in shown["outlier"]
    assert "Sanfilipo et al. 2004, https://doi.org/10.1016/" in shown["adjusted"]
    assert "for pons_mm3." in shown["norms"]
    batch = group_sentences([row(pons_batch_z="0.1", pons_robust_z="0.1")], [], {})
    assert "exceeded 3.5 in the dataset or 3.5 among images from the same site" in batch["outlier"]


def test_changes_are_described_with_their_source_of_noise():
    of_passes = group_sentences([row()], [change("passes"), change("n/a")], {})["change"]
    assert "each image was segmented independently" in of_passes
    assert "noise" not in of_passes
    of_both = group_sentences([row()], [change("repeats"), change("changes")], {})["change"]
    assert "estimated from repeated scans within a session or the scatter of the" in of_both
