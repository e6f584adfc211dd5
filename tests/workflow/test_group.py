"""The group table has a row an image and model, and says what is missing."""

from __future__ import annotations

import csv
import html
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from make_fixture_model import write_random_model

from bids_app.bids.columns import GROUP
from bids_app.cli import main as cli
from bids_app.models import install
from bids_app.workflow.group import MOST_NAMED


@pytest.fixture(scope="module")
def results(coarse_dataset, tmp_path_factory):
    """Results of two models for one dataset."""
    folder = tmp_path_factory.mktemp("group")
    for name in ("first", "second"):
        trained = write_random_model(
            folder / f"trained_{name}",
            folds=1,
            spacing=(5.0, 5.0, 5.0),
            patch_size=(40, 48, 40),  # a head in one piece
        )
        model = install.import_model(trained, name, folder / "models")
        arguments = [str(coarse_dataset), str(folder / "out"), "participant"]
        arguments += [
            "--model",
            str(model.folder),
            "--skip-bids-validation",
            "--no-tta",
            "--nprocs",
            "1",
        ]
        assert cli.main(arguments) == 0
    return folder / "out"


@pytest.fixture
def output(results, coarse_dataset, tmp_path):
    # Side by side as made, so that the link to the source stays right.
    description = json.loads((results / "dataset_description.json").read_text())
    assert description["DatasetLinks"]["raw"].endswith(coarse_dataset.name)
    return shutil.copytree(results, tmp_path / "out")


def group(bids_dir, output, *options):
    return cli.main([str(bids_dir), str(output), "group", *options])


def read(output, name="group_volumes.tsv"):
    with (output / name).open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_rows_are_sorted_and_every_column_is_there_and_explained(coarse_dataset, output):
    assert group(coarse_dataset, output) == 0
    rows = read(output)
    assert [(r["participant_id"], r["session_id"], r["model"]) for r in rows] == [
        ("sub-01", "n/a", "first"),
        ("sub-01", "n/a", "second"),
        ("sub-02", "ses-1", "first"),
        ("sub-02", "ses-1", "second"),
        ("sub-02", "ses-2", "first"),
        ("sub-02", "ses-2", "second"),
    ]
    assert list(rows[0]) == list(GROUP)
    assert list(json.loads((output / "group_volumes.json").read_text())) == list(GROUP)
    assert rows[5]["voxel_size_mm"] == "4.5x3x3"


def test_volumes_are_those_of_the_participants_tables(coarse_dataset, output):
    group(coarse_dataset, output)
    row = read(output)[0]
    path = output / "sub-01/anat/sub-01_seg-first_volumes.tsv"
    with path.open(newline="") as stream:
        volumes = {r["name"]: r for r in csv.DictReader(stream, delimiter="\t")}
    for name, region in volumes.items():
        assert row[f"{name}_mm3"] == region["volume_mm3"]
        assert row[f"{name}_label_mm3"] == region["label_volume_mm3"]
        assert row[f"{name}_clusters"] == region["clusters"]


def test_chosen_rows_leave_the_table_of_all_alone(coarse_dataset, output, capsys):
    group(coarse_dataset, output)
    before = (output / "group_volumes.tsv").read_bytes()
    group(coarse_dataset, output, "--model", "second", "--participant-label", "02")
    found = read(output, "selection_volumes.tsv")
    assert {(r["participant_id"], r["model"]) for r in found} == {("sub-02", "second")}
    assert (output / "group_volumes.tsv").read_bytes() == before
    assert "Left out: 4 results" in capsys.readouterr().out
    assert "4 results of this folder were not asked for" in (output / "selection.html").read_text()


def test_what_no_result_has_is_named_beside_what_is_there(coarse_dataset, output, capsys):
    assert group(coarse_dataset, output, "--model", "first", "--model", "third") == 0
    assert "--model third: no result has this" in capsys.readouterr().out
    assert group(coarse_dataset, output) == 0
    assert "no result has this" not in capsys.readouterr().out


def test_results_made_with_different_settings_are_told(coarse_dataset, output, capsys):
    assert group(coarse_dataset, output) == 0
    assert "different settings" not in capsys.readouterr().out
    path = min(output.glob("sub-*/**/*seg-first_dseg.json"))
    sidecar = json.loads(path.read_text())
    sidecar["Settings"]["Mirroring"] = True
    path.write_text(json.dumps(sidecar))
    assert group(coarse_dataset, output) == 0
    assert "different settings, first 1: Mirroring no " in capsys.readouterr().out
    assert "were made in 2 ways" in (output / "logs" / "CITATION.md").read_text()


def test_choosing_all_there_is_makes_the_table_of_all(coarse_dataset, output):
    group(coarse_dataset, output, "--participant-label", "01", "02")
    assert len(read(output)) == 6
    assert not list(output.glob("selection*"))


def test_covariates_are_joined(coarse_dataset, output, tmp_path):
    bids = shutil.copytree(coarse_dataset, tmp_path / "bids")
    (bids / "participants.tsv").write_text("participant_id\tage\tsex\nsub-02\t61\tF\n")
    assert group(bids, output, "--covariates", "age", "sex") == 0
    assert [(r["age"], r["sex"]) for r in read(output)][::2] == [("n/a", "n/a"), *[("61", "F")] * 2]
    assert group(bids, output, "--covariates", "height") == 2


def test_covariates_that_do_not_join_are_told_with_an_example(
    coarse_dataset, output, tmp_path, capsys
):
    bids = shutil.copytree(coarse_dataset, tmp_path / "bids")
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-02\t61\n1\t5\n3\t6\n")
    group(bids, output, "--covariates", "age")
    printed = capsys.readouterr().out
    assert "participants.tsv has no row for 1 of 2 participants, such as sub-01" in printed
    assert "2 of 3 rows of participants.tsv match no result, such as sub-1" in printed
    group(bids, output, "--covariates", "age", "--participant-label", "02")
    assert "participants.tsv" not in capsys.readouterr().out


def test_a_table_with_commas_is_told_to_be_saved_with_tabs(
    coarse_dataset, output, tmp_path, capsys
):
    bids = shutil.copytree(coarse_dataset, tmp_path / "bids")
    (bids / "participants.tsv").write_text("participant_id,age\nsub-02,61\n")
    assert group(bids, output, "--covariates", "age") == 4
    (output / "group_ratings.tsv").write_text("source,model,model_version,rating\n")
    assert group(bids, output) == 2
    printed = capsys.readouterr().err
    assert "participants.tsv must be tab-separated (TSV), but commas" in printed
    assert "group_ratings.tsv must be tab-separated (TSV), but commas" in printed


def test_hostile_covariates_are_shown_as_text(coarse_dataset, output, tmp_path):
    bids = shutil.copytree(coarse_dataset, tmp_path / "bids")
    evil = "</script><script>alert(1)</script>\u202e" + "x" * 5000
    (bids / "participants.tsv").write_text(f"participant_id\tgroup\nsub-01\t{evil}\n")
    assert group(bids, output, "--covariates", "group") == 0
    assert read(output)[0]["group"] == evil
    page = (output / "group.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page


def test_a_sessions_own_age_wins(coarse_dataset, output, tmp_path):
    bids = shutil.copytree(coarse_dataset, tmp_path / "bids")
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-02\t61\n")
    (bids / "sub-02/sub-02_sessions.tsv").write_text("session_id\tage\nses-2\t63\n")
    assert group(bids, output, "--covariates", "age") == 0
    assert [r["age"] for r in read(output)][::2] == ["n/a", "61", "63"]


def test_changes_between_sessions_have_a_table(coarse_dataset, output, tmp_path):
    bids = shutil.copytree(coarse_dataset, tmp_path / "bids")
    (bids / "sub-02/sub-02_sessions.tsv").write_text(
        "session_id\tacq_time\nses-1\t2020-01-01\nses-2\t2022-01-01\n"
    )
    assert group(bids, output) == 0
    changes = read(output, "group_longitudinal.tsv")
    assert [(c["session_id"], c["model"]) for c in changes] == [
        ("ses-2", "first"),
        ("ses-2", "second"),
    ]
    for page in (output / "group.html", output / "logs" / "CITATION.md"):
        assert "Change is the difference between a volume" in html.unescape(page.read_text())
    assert float(changes[0]["years"]) == pytest.approx(2.001, abs=0.001)
    dictionary = json.loads((output / "group_longitudinal.json").read_text())
    assert list(dictionary) == list(changes[0])


def rate(output, *ratings):
    """Write a table of ratings: the row of the group table, or the cells themselves, and a word."""
    keys = ("source", "model", "model_version")
    lines = [[*([r[k] for k in keys] if isinstance(r, dict) else r), word] for r, word in ratings]
    text = "\n".join("\t".join(line) for line in [[*keys, "rating"], *lines])
    (output / "group_ratings.tsv").write_text(text + "\n")


def test_ratings_of_the_page_come_into_the_table(coarse_dataset, output):
    group(coarse_dataset, output)
    first = read(output)[0]
    rate(output, (first, "fail"))
    assert group(coarse_dataset, output) == 0
    assert [r["rating"] for r in read(output)] == ["fail", *["n/a"] * 5]
    rate(output, (first, "good"))
    assert group(coarse_dataset, output) == 2


def test_ratings_that_match_no_result_are_told_with_an_example(coarse_dataset, output, capsys):
    group(coarse_dataset, output)
    first = read(output)[0]
    rate(output, (first, "pass"), ((first["source"], "first", "0.1"), "fail"), ("abc", "pass"))
    group(coarse_dataset, output)
    printed = capsys.readouterr().out
    assert "2 of 3 ratings match no result (source, model, model_version), such as " in printed
    assert f"such as {first['source']}, first, 0.1" in printed
    group(coarse_dataset, output, "--participant-label", "02")
    assert "match no result" not in capsys.readouterr().out


def test_a_column_that_ratings_lack_is_named(coarse_dataset, output, capsys):
    (output / "group_ratings.tsv").write_text("source\tmodel\trating\n")
    assert group(coarse_dataset, output) == 2
    printed = capsys.readouterr().err
    assert "has no column model_version. It needs source, model, model_version, rating." in printed


def test_z_scores_by_a_users_norms(coarse_dataset, output, tmp_path):
    norms = tmp_path / "norms.tsv"
    norms.write_text("measure\tmodel\tmean\tsd\npons_mm3\tfirst\t1000\t500\n")
    assert group(coarse_dataset, output, "--norms", str(norms)) == 0
    for row in read(output):
        expected = (
            f"{(float(row['pons_mm3']) - 1000) / 500:.2f}" if row["model"] == "first" else "n/a"
        )
        assert row["pons_mm3_norm_z"] == expected
    assert "pons_mm3_norm_z" in json.loads((output / "group_volumes.json").read_text())
    assert group(coarse_dataset, output, "--norms", str(tmp_path / "absent.tsv")) == 2


def test_an_image_without_brainstem_counts_in_nothing(coarse_dataset, output, tmp_path):
    sidecar = output / "sub-02/ses-1/anat/sub-02_ses-1_seg-first_dseg.json"
    content = json.loads(sidecar.read_text())
    content |= {"Flags": ["no_brainstem"]}
    content["Quality"] |= {"etiv_mm3": 1e6}
    sidecar.write_text(json.dumps(content))
    norms = tmp_path / "norms.tsv"
    norms.write_text("measure\tmean\tsd\npons_mm3\t1000\t500\n")
    assert group(coarse_dataset, output, "--norms", str(norms)) == 0
    empty, whole = (row for row in read(output) if row["session_id"] == "ses-1")
    assert {"no_brainstem", "low_self_consistency"} < set(empty["flags"].split(","))
    assert empty["etiv_mm3"] == empty["pons_etiv_fraction"] == empty["pons_mm3_norm_z"] == "n/a"
    assert whole["pons_mm3_norm_z"] != "n/a"
    assert [c["model"] for c in read(output, "group_longitudinal.tsv")] == ["second"]


def test_participants_without_result_are_named(coarse_dataset, output, capsys):
    shutil.rmtree(output / "sub-01")
    assert group(coarse_dataset, output) == 0
    assert "no result of sub-01\n" in capsys.readouterr().out


def test_the_latest_reason_of_a_failure_is_told(coarse_dataset, output, capsys):
    for run, reason in (("1", "no room"), ("2", "it has 4 dimensions")):
        (output / "logs" / run).mkdir()
        head = "participant_id\tsession_id\tsource\tmodel\tmodel_version\tlabel\treason\n"
        line = f"sub-03\tn/a\tsub-03/anat/sub-03_T1w.nii.gz\tfirst\t1\tfirst\t{reason}\n"
        (output / "logs" / run / "failures.tsv").write_text(head + line)
    assert group(coarse_dataset, output) == 0
    assert [(r["flags"], r["failure"]) for r in read(output)][-1] == (
        "failed",
        "it has 4 dimensions",
    )
    printed = capsys.readouterr().out
    assert "failed: sub-03/anat/sub-03_T1w.nii.gz, model first: it has 4 dimensions" in printed
    assert "Results: 6, failed: 1, in " in printed
    page = (output / "group.html").read_text()
    assert "it has 4 dimensions" in page
    assert "6 results, 6 flagged, 1 failed." in page
    assert "no room" not in page


def test_an_image_that_failed_is_named_once_and_many_are_counted(coarse_dataset, output, capsys):
    lines = ["participant_id\tsession_id\tsource\tmodel\tmodel_version\tlabel\treason"]
    for number in range(MOST_NAMED + 2):
        for model in ("first", "second"):
            source = f"sub-1{number}/anat/sub-1{number}_T1w.nii.gz"
            lines.append(f"sub-1{number}\tn/a\t{source}\t{model}\t1\t{model}\tit is constant")
    (output / "logs" / "1").mkdir()
    (output / "logs" / "1" / "failures.tsv").write_text("\n".join(lines) + "\n")
    assert group(coarse_dataset, output) == 0
    printed = capsys.readouterr().out
    assert printed.count("sub-10") == 2  # in the path of its image
    assert "sub-10_T1w.nii.gz, model first, second: it is constant" in printed
    assert printed.count("WARNING: failed: ") == MOST_NAMED + 1
    assert "failed: and 2 more images; " in printed


def test_an_image_without_sidecar_does_not_count(coarse_dataset, output):
    (output / "sub-01/anat/sub-01_seg-first_dseg.json").unlink()
    group(coarse_dataset, output)
    assert len(read(output)) == 5


def test_nothing_to_gather_ends_with_3(coarse_dataset, tmp_path, capsys):
    assert group(coarse_dataset, tmp_path / "empty") == 3
    assert "Run the participant level first" in capsys.readouterr().err


def test_a_selection_that_matches_nothing_is_answered_with_what_is_there(
    coarse_dataset, output, capsys
):
    assert group(coarse_dataset, output, "--participant-label", "9", "--model", "third") == 3
    printed = capsys.readouterr().err
    assert "none of its 6 results matches --participant-label 9 and --model third." in printed
    assert "They have participants 01, 02; models first, second." in printed
    assert not (output / "selection_volumes.tsv").exists()


def test_another_datasets_results_end_with_6(flat_dataset, output):
    assert group(flat_dataset, output) == 6


def test_reports_are_made_again_without_a_model(coarse_dataset, output):
    (output / "sub-01.html").unlink()
    arguments = [str(coarse_dataset), str(output), "participant", "--reports-only"]
    assert cli.main(arguments) == 0
    assert (output / "sub-01.html").is_file()


def test_reports_of_nothing_end_with_3(coarse_dataset, output, tmp_path, capsys):
    options = ["participant", "--reports-only"]
    (tmp_path / "empty").mkdir()
    for folder in ("absent", "empty"):
        assert cli.main([str(coarse_dataset), str(tmp_path / folder), *options]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("Run the participant level first.")
    options += ["--participant-label", "9"]
    assert cli.main([str(coarse_dataset), str(output), *options]) == 3
    assert (
        "--participant-label 9. There are results of participants 01, 02."
        in capsys.readouterr().err
    )


def test_flags_follow_the_thresholds_of_the_group_run(coarse_dataset, output):
    group(coarse_dataset, output)
    assert all("low_resolution" in row["flags"].split(",") for row in read(output))
    assert group(coarse_dataset, output, "--flag-threshold", "low_resolution=6") == 0
    assert not any("low_resolution" in row["flags"].split(",") for row in read(output))
    levels = json.loads((output / "group_volumes.json").read_text())["flags"]["Levels"]
    assert "6 mm" in levels["low_resolution"]
    assert group(coarse_dataset, output, "--flag-threshold", "loud=6") == 2


def test_pages_made_again_do_not_depend_on_the_group_level_but_on_thresholds(
    coarse_dataset, output
):
    page = output / "sub-01.html"
    arguments = [str(coarse_dataset), str(output), "participant", "--reports-only"]
    assert cli.main(arguments) == 0
    before = page.read_bytes()
    assert b"low_resolution: a voxel edge is longer than 2.1 mm" in before
    group(coarse_dataset, output, "--flag-threshold", "low_resolution=6")
    assert cli.main(arguments) == 0
    assert page.read_bytes() == before
    assert cli.main([*arguments, "--flag-threshold", "low_resolution=2.5"]) == 0
    assert "low_resolution: a voxel edge is longer than 2.5 mm" in page.read_text()


def test_results_are_given_in_freesurfers_layout(coarse_dataset, output):
    arguments = [str(coarse_dataset), str(output), "participant", "--reports-only"]
    assert cli.main([*arguments, "--freesurfer-stats"]) == 0
    folder = output / "freesurfer/sub-02_ses-1/mri"
    lines = (folder / "brainstemSsVolumes.first.txt").read_text().splitlines()
    values = {name: float(value) for name, value in (line.split(" ") for line in lines)}
    assert list(values) == ["Medulla", "Pons", "SCP", "Midbrain", "Whole_brainstem"]
    parts = values["Medulla"] + values["Pons"] + values["Midbrain"]
    assert values["Whole_brainstem"] == pytest.approx(parts, abs=0.01)
    own = nib.load(output / "sub-02/ses-1/anat/sub-02_ses-1_seg-first_dseg.nii.gz")
    coded = nib.load(folder / "brainstemSsLabels.first.nii.gz")
    np.testing.assert_array_equal(coded.affine, own.affine)
    ours, theirs = np.asarray(own.dataobj), np.asarray(coded.dataobj)
    for index, code in ((0, 0), (1, 173), (2, 174), (3, 175)):
        np.testing.assert_array_equal(theirs == code, ours == index)


def test_models_of_an_image_are_compared_by_name_at_every_level(coarse_dataset, output, capsys):
    assert group(coarse_dataset, output) == 0
    table = output / "group_comparison.tsv"
    assert f"Images with several models: 3, compared in {table}" in capsys.readouterr().out
    rows = read(output, table.name)
    models = {(row["model"], row["other_model"]) for row in rows}
    assert models == {("first", "second")}
    page = (output / "sub-02.html").read_text()
    assert "Agreement of models" in page
    for row in read(output, "sub-02/ses-1/anat/sub-02_ses-1_comparison.tsv"):
        assert f"{float(row['dice']):.3f} ({float(row['difference_percent']):+.1f} %)" in page
