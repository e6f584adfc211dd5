"""The participant level does every image once, and again only what has changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from make_fixture_model import write_random_model

from bids_app.bids.results import keep_newest, read_failures, read_results
from bids_app.bids.validation import validate
from bids_app.cli import main as cli
from bids_app.errors import OutputError
from bids_app.io import files, progress
from bids_app.models import install, store
from bids_app.models.manifest import MANIFEST, read_manifest
from bids_app.segmentation import segmenter as segment
from bids_app.workflow import participant, pipeline

MAPS = "sub-*/**/*_dseg.nii.gz"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A quick model that decides sharply, and wrongly."""
    folder = tmp_path_factory.mktemp("models")
    trained = write_random_model(
        folder / "trained",
        folds=2,
        spacing=(5.0, 5.0, 5.0),
        patch_size=(40, 48, 40),  # a head in one piece
        mirror_axes=(2,),
    )
    return install.import_model(trained, "quick", folder).folder


@pytest.fixture
def bids(coarse_dataset, tmp_path):
    return Path(shutil.copytree(coarse_dataset, tmp_path / "bids"))


@pytest.fixture
def run(bids, model, tmp_path):
    def run(*options, bids_dir=bids, output=tmp_path / "out"):
        arguments = [str(bids_dir), str(output), "participant", "--model", str(model), *options]
        return cli.main([*arguments, "--nprocs", "1", "--skip-bids-validation"])

    def done(*options, **more):
        assert run(*options, **more) == 0

    run.done = done
    return run


def times(output):
    return {path: path.stat().st_mtime_ns for path in output.glob(MAPS)}


def sidecar(path):
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


def test_a_model_with_other_names_has_its_known_regions_in_all_tables(
    bids, model, tmp_path, capsys
):
    own = Path(shutil.copytree(model, tmp_path / "own"))
    manifest = (own / MANIFEST).read_text()
    for name, other in (("midbrain", "Mesencephalon"), ("pons", "PONS"), ("medulla", "cord")):
        manifest = manifest.replace(f'= "{name}"', f'= "{other}"')
    (own / MANIFEST).write_text(manifest)
    out = tmp_path / "out"
    words = [str(bids), str(out), "participant", "--model", str(own), "--participant-label", "01"]
    assert cli.main([*words, "--skip-bids-validation", "--no-tta", "--folds", "0"]) == 0
    assert (
        "the group table has no columns for cord of the model quick; *_volumes.tsv of each image "
        "has them. They do not count in the brainstem\n"
    ) in capsys.readouterr().out
    [path] = out.glob("sub-01/anat/*_volumes.tsv")
    rows = {line.split("\t")[1]: line.split("\t") for line in path.read_text().splitlines()[1:]}
    assert list(rows) == ["midbrain", "pons", "cord", "brainstem"]
    assert int(rows["brainstem"][3]) == int(rows["midbrain"][3]) + int(rows["pons"][3])
    assert "Midbrain, pons and cord were segmented" in (out / "logs/CITATION.md").read_text()
    recorded = json.loads(path.with_name(path.name.replace("volumes.tsv", "dseg.json")).read_text())
    assert recorded["Model"]["Regions"] == ["midbrain", "pons", "cord"]


def test_every_image_has_its_files_under_its_own_name(run, tmp_path):
    assert run() == 0
    stems = [
        "sub-01/anat/sub-01",
        "sub-02/ses-1/anat/sub-02_ses-1",
        "sub-02/ses-2/anat/sub-02_ses-2",
    ]
    for stem in stems:
        for ending in ("dseg.nii.gz", "dseg.json", "volumes.tsv", "volumes.json"):
            assert (tmp_path / "out" / f"{stem}_seg-quick_{ending}").is_file()
    assert (tmp_path / "out" / "sub-01.html").is_file()
    assert len(list((tmp_path / "out").glob("sub-02/figures/*.png"))) == 2
    assert not list((tmp_path / "out").rglob(".*.lock"))


def test_each_kind_of_image_has_results_of_its_own(run, bids, tmp_path, capsys):
    head = nib.load(bids / "sub-01/anat/sub-01_T1w.nii.gz")
    data = np.asarray(head.dataobj)
    for suffix, other in (("T2w", data.max() - data), ("FLAIR", np.sqrt(np.abs(data)) * 30)):
        image = nib.Nifti1Image(other.astype(data.dtype), head.affine, head.header)
        nib.save(image, bids / f"sub-01/anat/sub-01_{suffix}.nii.gz")
    out = tmp_path / "out"
    assert run("--participant-label", "01") == 0
    assert run("--suffix", "T1w", "T2w", "FLAIR") == 0
    assert "4 done, 1 complete before" in capsys.readouterr().out
    maps = {path.name for path in out.glob("sub-01/anat/*_dseg.nii.gz")}
    described = ["", "_desc-FLAIR", "_desc-T2w"]
    assert maps == {f"sub-01_seg-quick{which}_dseg.nii.gz" for which in described}
    page = (out / "sub-01.html").read_text()
    assert "T2w, model quick" in page
    assert "FLAIR, model quick" in page
    assert "on the T1-weighted, T2-weighted and FLAIR images" in page
    assert cli.main([str(bids), str(out), "group"]) == 0
    rows = pd.read_csv(out / "group_volumes.tsv", sep="\t").set_index("source")
    assert rows["suffix"].value_counts().to_dict() == {"T1w": 3, "T2w": 1, "FLAIR": 1}
    assert rows.loc["sub-01/anat/sub-01_T2w.nii.gz", "suffix"] == "T2w"
    assert rows["failure"].isna().all()
    assert cli.main([str(bids), str(out), "group", "--suffix", "flair"]) == 0
    assert len(pd.read_csv(out / "selection_volumes.tsv", sep="\t")) == 1
    assert validate(out).errors == ()


def test_preprocessed_images_are_segmented_beside_each_other(run, coarse_dataset, tmp_path, capsys):
    derivatives = Path(shutil.copytree(coarse_dataset, tmp_path / "fmriprep"))
    head = derivatives / "sub-01/anat/sub-01_T1w.nii.gz"
    head.rename(head.with_name("sub-01_desc-preproc_T1w.nii.gz"))
    made_by = [{"Name": "fMRIPrep", "Version": "25.1.0"}]
    description = {"Name": "x", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    (derivatives / "dataset_description.json").write_text(
        json.dumps(description | {"GeneratedBy": made_by})
    )
    only = ("--participant-label", "01")
    assert run(*only, bids_dir=derivatives) == 3
    assert "--desc preproc selects it" in capsys.readouterr().err
    assert run(*only, "--desc", "preproc", bids_dir=derivatives) == 0
    assert "derivative dataset (DatasetType) by fMRIPrep 25.1.0" in capsys.readouterr().out
    (made,) = (tmp_path / "out").glob(MAPS)
    assert made.name == "sub-01_seg-quick_desc-preproc_dseg.nii.gz"
    assert sidecar(made)["Sources"] == ["bids:raw:sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"]
    assert run(*only, "--desc", "preproc", bids_dir=derivatives) == 0
    assert "0 done, 1 complete before" in capsys.readouterr().out


def test_subjects_of_freesurfer_are_segmented(run, bids, tmp_path, capsys):
    subjects = tmp_path / "subjects"
    for name, session in (("sub-01", ""), ("sub-02_ses-2", "ses-2/")):
        source = bids / name.partition("_")[0] / f"{session}anat/{name}_T1w.nii.gz"
        head = nib.load(source)
        (subjects / name / "mri").mkdir(parents=True)
        data = np.asarray(head.dataobj, dtype=np.float32)
        nib.save(nib.MGHImage(data, head.affine), subjects / name / "mri/orig.mgz")
    assert run("--freesurfer-dir", str(subjects), "--freesurfer-stats") == 0
    out = tmp_path / "out"
    made = {path.name: path for path in out.glob(MAPS)}
    assert set(made) == {
        "sub-01_seg-quick_desc-orig_dseg.nii.gz", "sub-02_ses-2_seg-quick_desc-orig_dseg.nii.gz",
    }  # fmt: skip
    content = sidecar(made["sub-01_seg-quick_desc-orig_dseg.nii.gz"])
    assert content["Sources"] == ["bids:freesurfer:sub-01/mri/orig.mgz"]
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert links == {"raw": "../bids", "freesurfer": "../subjects"}
    assert (out / "freesurfer/sub-01_desc-orig/mri/brainstemSsVolumes.quick.txt").is_file()
    assert run("--freesurfer-dir", str(subjects), "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "complete  sub-02/: sub-02_ses-2/mri/orig.mgz" in printed
    assert run() == 0  # the raw images have results of their own
    assert len(list(out.glob(MAPS))) == 5
    assert cli.main([str(bids), str(out), "group"]) == 0
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert links == {"raw": "../bids", "freesurfer": "../subjects"}
    (out / "sub-01/figures/sub-01_seg-quick_desc-orig_dseg.png").unlink()
    assert run("--reports-only") == 0
    assert "the source image is not in --freesurfer-dir" in capsys.readouterr().out
    assert run("--reports-only", "--freesurfer-dir", str(subjects)) == 0
    assert (out / "sub-01/figures/sub-01_seg-quick_desc-orig_dseg.png").is_file()
    assert run("--freesurfer-dir", str(subjects), "--suffix", "T2w") == 2


def test_without_a_terminal_lines_tell_how_far_a_long_image_is(run, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert run("--participant-label", "01") == 0
    found = re.findall(r"^\[1/1\] sub-01/anat/sub-01_T1w\.nii\.gz: (\d) of (\d) passes, .* left$",
                       capsys.readouterr().out, re.MULTILINE)  # fmt: skip
    assert found == [(str(n), "4") for n in range(1, 5)]  # two networks, mirrored along an axis


def test_devices_share_the_images_and_change_nothing(run, bids, tmp_path, monkeypatch, capsys):
    broken = bids / "sub-03" / "anat" / "sub-03_T1w.nii.gz"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    assert run(output=tmp_path / "one") == 1
    load_on_two_devices(monkeypatch)
    assert run(output=tmp_path / "two") == 1
    assert "Device: cpu, cpu," in capsys.readouterr().out
    maps = [sorted((tmp_path / name).glob(MAPS)) for name in ("one", "two")]
    assert len(maps[0]) == len(maps[1]) == 3
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*maps, strict=True))
    (failures,) = (tmp_path / "two").glob("logs/*/failures.tsv")
    assert len(failures.read_text().splitlines()) == 2


def test_output_that_cannot_be_written_ends_the_work_of_all_devices(
    run, monkeypatch, capsys, tmp_path
):
    load_on_two_devices(monkeypatch)
    monkeypatch.setattr(pipeline, "write_image", refuse)
    assert run() == OutputError.exit_code
    assert "error: no space left" in capsys.readouterr().err
    assert not list(tmp_path.rglob("CITATION.*")), "nothing was segmented"


def load_on_two_devices(monkeypatch):
    """Load the model twice onto the CPU, in the place of two GPUs."""
    load = segment.load_segmenters
    monkeypatch.setattr(segment, "load_segmenters", lambda *a: load(*a) + load(*a))


def refuse(*_arguments):
    raise OutputError("no space left")


def test_a_map_is_on_the_grid_of_its_image(run, bids, tmp_path):
    run.done()
    maps = list((tmp_path / "out").glob(MAPS))
    assert len(maps) == 3
    for path in maps:
        source = bids / sidecar(path)["Sources"][0].removeprefix("bids:raw:")
        image, labels = nib.load(source), nib.load(path)
        assert labels.shape == image.shape
        assert np.array_equal(labels.affine, image.affine)
        assert labels.header["sform_code"] == image.header["sform_code"]
        assert set(np.unique(labels.dataobj)) <= {0, 1, 2, 3}


def test_the_sidecar_tells_what_was_done(run, tmp_path):
    run.done("--no-tta", "--folds", "1")
    content = sidecar(tmp_path / "out/sub-01/anat/sub-01_seg-quick_dseg.nii.gz")
    assert content["Settings"] == {
        "Folds": ["1"], "Mirroring": False, "Region": False,
        "Volumes": "sums of probabilities on the image's grid",
    }  # fmt: skip
    assert content["SpatialReference"] == "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"
    assert content["Manual"] is False
    assert content["Model"]["Name"] == "quick"
    assert len(content["InputSHA256"]) == 64


def test_no_output_but_the_settings_of_the_run_holds_a_path_of_the_machine(run, tmp_path):
    run.done("--write-probabilities")
    looked = set()
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.name not in ("config.toml", "run.log"):
            assert str(tmp_path).encode() not in path.read_bytes(), path
            looked.add(path.relative_to(tmp_path / "out").as_posix())
    assert {
        "dataset_description.json", "sub-01.html", "logs/citations.json",
        "sub-01/anat/sub-01_seg-quick_probseg.json", "sub-01/anat/sub-01_seg-quick_dseg.json",
    } <= looked  # fmt: skip


def test_probability_maps_are_written_on_request_and_then_belong_to_a_complete_image(run, tmp_path):
    run.done("--participant-label", "01")
    run.done("--participant-label", "01", "--write-probabilities")
    path = tmp_path / "out/sub-01/anat/sub-01_seg-quick_probseg.nii.gz"
    maps = nib.load(path).get_fdata()
    labels = nib.load(str(path).replace("probseg", "dseg")).get_fdata()
    assert maps.shape == (*labels.shape, 3)
    assert np.all((maps >= 0) & (maps <= 1))
    assert np.all(maps.max(axis=3)[labels > 0] > 0.25)


def test_the_table_of_the_summary_is_in_line_under_its_heads(run, capsys):
    run.done("--participant-label", "01")
    lines = capsys.readouterr().out.splitlines()
    (start,) = [n for n, line in enumerate(lines) if line.startswith("volumes in ml")]
    head, row = lines[start : start + 2]
    assert row.startswith("sub-01 ")
    assert head.index("flags") == row.rindex("  ") + 2


def test_what_is_complete_is_left_alone(run, tmp_path, capsys):
    run.done()
    before = times(tmp_path / "out")
    citation = f"Please cite: {tmp_path / 'out' / 'logs' / 'CITATION.md'}"
    assert citation in capsys.readouterr().out
    assert run() == 0
    assert times(tmp_path / "out") == before
    said = capsys.readouterr().out
    assert "0 done, 3 complete before" in said
    assert "cite" not in said


@pytest.mark.parametrize("change", ["byte", "table", "sidecar", "picture", "cutout", "map"])
def test_only_what_has_changed_is_done_again(run, bids, tmp_path, change):
    run.done()
    output = tmp_path / "out"
    before = times(output)
    anat = output / "sub-01" / "anat"
    if change == "byte":
        path = bids / "sub-01/anat/sub-01_T1w.nii.gz"
        image = nib.load(path)
        image.header["descrip"] = b"changed"
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    elif change in ("picture", "cutout"):
        ending = {"picture": "dseg.png", "cutout": "cutout.nii.gz"}[change]
        (output / f"sub-01/figures/sub-01_seg-quick_{ending}").unlink()
    else:
        ending = {"table": "volumes.tsv", "sidecar": "dseg.json", "map": "dseg.nii.gz"}[change]
        (anat / f"sub-01_seg-quick_{ending}").unlink()
    assert run() == 0
    changed = {p.name for p, t in times(output).items() if before.get(p) != t}
    assert changed == {"sub-01_seg-quick_dseg.nii.gz"}


def test_reports_only_makes_pages_pictures_and_citations_again_without_a_model(
    run, bids, tmp_path, monkeypatch
):
    run.done()
    output = tmp_path / "out"
    kinds = ("sub-*.html", "sub-*/figures/*", "logs/CITATION.*")
    before = {path: path.read_bytes() for kind in kinds for path in output.glob(kind)}
    assert len(before) == 2 + 2 * 3 + 2
    for path in before:
        path.unlink()
    monkeypatch.setattr(store, "find", None)  # no model is asked for
    arguments = [str(bids), str(output), "participant", "--reports-only"]
    assert cli.main(arguments) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_reports_only_says_which_picture_it_cannot_make_again(run, bids, tmp_path, capsys):
    run.done()
    output = tmp_path / "out"
    for path in output.glob("sub-*/figures/*.png"):
        path.unlink()
    first, second, *_ = sorted(bids.rglob("*_T1w.nii.gz"))
    first.unlink()
    image = nib.load(second)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, None, image.header), second)
    assert cli.main([str(bids), str(output), "participant", "--reports-only"]) == 0
    said = capsys.readouterr()
    assert "the source image is not in BIDS_DIR" in said.out + said.err
    assert "the source image has changed since" in said.out + said.err
    assert "picture of this result is missing" in (output / "sub-01.html").read_text()


def test_other_settings_or_weights_do_all_images_again(run, model, tmp_path):
    run.done()
    first = times(tmp_path / "out")
    assert run("--no-tta") == 0
    second = times(tmp_path / "out")
    assert all(first[path] != second[path] for path in first)
    other = Path(shutil.copytree(model, tmp_path / "other"))
    weights = read_manifest(other).files[-1].path
    (other / weights).write_bytes((other / weights).read_bytes() + b"\0")
    assert run("--model", str(other)) == 2, "one model at a time"
    arguments = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant"]
    assert cli.main([*arguments, "--model", str(other), "--skip-bids-validation"]) == 5
    assert times(tmp_path / "out") == second


def test_results_of_other_weights_under_the_same_label_are_replaced_with_a_warning(
    run, tmp_path, capsys
):
    run.done("--participant-label", "01")
    (path,) = tmp_path.glob("out/sub-01/anat/*_dseg.json")
    content = json.loads(path.read_text())
    content["Model"] |= {"Version": "0.9", "SHA256": "0" * 64}
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert run("--participant-label", "01", "--dry-run") == 0
    assert "will be replaced: Model: quick 0.9 (00000000) -> quick " in capsys.readouterr().out


def test_another_localizer_does_images_of_a_region_again(run, tmp_path, capsys):
    run.done("--participant-label", "01")
    run.done("--region", "--participant-label", "01")
    assert "will be replaced: Region: false -> true" in capsys.readouterr().out
    first = times(tmp_path / "out")
    run.done("--region", "--participant-label", "01")
    assert times(tmp_path / "out") == first
    (path,) = tmp_path.glob("out/sub-01/anat/*_dseg.json")
    content = json.loads(path.read_text())
    content["Localizer"]["SHA256"] = "0" * 64
    path.write_text(json.dumps(content))
    run.done("--region", "--participant-label", "01")
    assert times(tmp_path / "out") != first


def test_results_that_other_settings_will_replace_are_warned_of(run, tmp_path, capsys):
    run.done("--participant-label", "01")
    run.done("--participant-label", "02", "--session-label", "1", "--no-tta")
    assert "WARNING" not in capsys.readouterr().out
    for options in (("--dry-run",), ()):
        assert run("--folds", "0", *options) == 0
        (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("WARNING")]
        assert (
            "2 of 3 images to do have complete results (seg-quick) made with other settings" in line
        )
        assert "Folds: all -> 0 (1); Folds: all -> 0, Mirroring: false -> true (1)" in line
    assert run("--no-tta", "--folds", "0", "--participant-label", "01", "--dry-run") == 0
    assert "will be replaced: Mirroring: true -> false. To keep" in capsys.readouterr().out
    assert run("--no-tta", "--dry-run", "--force") == 0
    assert "WARNING" not in capsys.readouterr().out


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    run.done()
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob(MAPS)}
    assert run("--force") == 0
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob(MAPS)} == before


def test_a_dry_run_lists_and_writes_nothing(run, tmp_path, capsys):
    assert run("--dry-run") == 0
    assert not (tmp_path / "out").exists()
    run.done("--participant-label", "01")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert run("--dry-run") == 0
    printed = capsys.readouterr().out
    assert "complete  sub-01/anat/sub-01_T1w.nii.gz" in printed
    assert "to do     sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz" in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_images_get_a_line_each_and_the_good_ones_are_done(
    run, mixed_dataset, tmp_path, capsys
):
    assert run(bids_dir=mixed_dataset) == 1
    output = tmp_path / "out"
    said = capsys.readouterr().out.splitlines()
    (log,) = output.glob("logs/*/run.log")
    for lines in (said, log.read_text().splitlines()):
        assert sum("datalad get" in line for line in lines) == 1, "each reason once"
    (summary,) = [line for line in said if line.startswith("ERROR: failed: ")]
    assert summary.endswith(f"Reasons: above and in {next(output.glob('logs/*/failures.tsv'))}")
    assert len(list(output.glob(MAPS))) == 4
    (table,) = output.glob("logs/*/failures.tsv")
    failed = table.read_text().splitlines()[1:]
    bad = [p for p in mixed_dataset.glob("sub-*") if not p.name.startswith("sub-good")]
    assert sorted(line.split("\t")[0] for line in failed) == sorted(p.name for p in bad)
    assert "datalad get" in table.read_text()
    assert not list(output.rglob(".*.lock"))
    pages = {p: (output / f"{p.name}.html").read_text() for p in bad}
    assert all("Could not be processed" in page for page in pages.values())
    assert run("--reports-only", bids_dir=mixed_dataset) == 0
    assert pages == {p: (output / f"{p.name}.html").read_text() for p in bad}
    assert cli.main([str(mixed_dataset), str(output), "group"]) == 0
    rows = (output / "group_volumes.tsv").read_text().splitlines()
    assert len(rows) == 1 + 4 + len(bad)
    assert sum(row.endswith("\tfailed") for row in rows) == len(bad)


def test_a_run_can_stop_at_the_first_failure(run, mixed_dataset, tmp_path):
    assert run("--stop-on-first-crash", bids_dir=mixed_dataset) == 1
    (table,) = tmp_path.glob("out/logs/*/failures.tsv")
    assert len(table.read_text().splitlines()) == 2


def test_an_image_that_another_run_is_at_is_left_to_it(run, tmp_path, capsys):
    folder = tmp_path / "out/sub-01/anat"
    with files.lock(folder / ".sub-01_seg-quick.lock") as held:
        assert held
        assert run() == 0
    assert (
        "skipped, another run is processing it: sub-01/anat/sub-01_T1w.nii.gz"
        in capsys.readouterr().out
    )
    assert len(list((tmp_path / "out").glob(MAPS))) == 2
    assert run() == 0
    assert len(list((tmp_path / "out").glob(MAPS))) == 3


def test_an_output_that_cannot_be_written_ends_with_6(run, tmp_path):
    (tmp_path / "out").touch()
    assert run() == 6


@pytest.mark.parametrize("place", ["sub-01", "sub-01/anat", "sub-01/figures"])
def test_results_that_cannot_be_written_are_a_failure_of_that_image(run, tmp_path, capsys, place):
    blocked = tmp_path / "out" / place
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    assert run() == 1
    assert "1 failed" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob(MAPS))) >= 2, "the images of the other participant"
    blocked.unlink()
    assert run() == 0
    assert len(list((tmp_path / "out").glob(MAPS))) == 3


def test_a_page_that_cannot_be_written_costs_the_page_alone(run, tmp_path, capsys):
    (tmp_path / "out" / "sub-01.html").mkdir(parents=True)
    assert run() == 1
    said = capsys.readouterr().out
    assert "ERROR: sub-01: its page is not written" in said
    assert "3 done, 0 complete before, 0 failed" in said
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_participant_whose_folder_cannot_be_read_fails_until_it_can(
    run, bids, tmp_path, capsys, monkeypatch
):
    scandir = os.scandir

    def deny(folder):
        if str(folder).endswith("sub-01/anat"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    assert run() == 1
    assert "ERROR: sub-01/anat: it cannot be read (Permission denied)" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob(MAPS))) == 2
    (failure,) = read_failures(tmp_path / "out")
    assert (failure.participant, failure.source) == ("sub-01", "sub-01/anat")
    monkeypatch.setattr(os, "scandir", scandir)
    assert run() == 0
    assert keep_newest(read_results(tmp_path / "out"), read_failures(tmp_path / "out"))[1] == []


def test_an_error_that_was_not_foreseen_fails_its_image_and_is_kept_in_the_log(
    run, tmp_path, capsys, monkeypatch
):
    write = pipeline.write_image

    def fail(outputs, *rest):
        if outputs.stem.startswith("sub-01"):
            raise ZeroDivisionError("by zero")
        return write(outputs, *rest)

    monkeypatch.setattr(pipeline, "write_image", fail)
    assert run() == 1
    said = capsys.readouterr()
    assert "unexpected ZeroDivisionError: by zero. This is a fault of the app" in said.out
    assert "Traceback" not in said.out + said.err
    assert len(list((tmp_path / "out").glob(MAPS))) == 2
    (log,) = (tmp_path / "out").glob("logs/*/run.log")
    assert "Traceback" in log.read_text()


def test_an_error_of_the_run_that_was_not_foreseen_is_one_line_and_kept_in_the_log(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(participant, "find_scans", lambda *_, **__: 1 / 0)
    assert run() == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: unexpected ZeroDivisionError")
    assert "workflow/participant.py, line" in line
    (log,) = (tmp_path / "out").glob("logs/*/run.log")
    assert "Traceback" in log.read_text()


def test_a_file_that_was_changed_is_made_again(run, tmp_path, capsys):
    chosen = ("--participant-label", "01", "--no-tta", "--folds", "0")
    assert run(*chosen) == 0
    (path,) = (tmp_path / "out").glob(MAPS)
    written = path.read_bytes()
    assert sidecar(path)["Files"][path.name]["Size"] == len(written)
    path.write_bytes(written[:100])
    capsys.readouterr()
    assert run(*chosen) == 0
    assert path.read_bytes() == written
    assert f"WARNING: sub-01/anat/{path.name}: changed or damaged" in capsys.readouterr().out


def test_an_image_replaced_by_a_broken_one_has_no_volumes_until_it_is_complete_again(
    run, bids, tmp_path
):
    def flags():
        assert cli.main([str(bids), str(out), "group"]) == 0
        header, line = (out / "group_volumes.tsv").read_text().splitlines()
        row = dict(zip(header.split("\t"), line.split("\t"), strict=True))
        return row["flags"], row["brainstem_mm3"]

    chosen = ("--participant-label", "01", "--no-tta", "--folds", "0")
    out, scan = tmp_path / "out", bids / "sub-01/anat/sub-01_T1w.nii.gz"
    good = scan.read_bytes()
    assert run(*chosen) == 0
    before = flags()
    scan.write_bytes(good[:1000])
    assert run(*chosen) == 1
    for _ in range(2):
        assert flags() == ("failed", "n/a")
        assert "Could not be processed" in (out / "sub-01.html").read_text()
        assert "viewer-library" not in (out / "sub-01.html").read_text()
        assert run("--reports-only") == 0
    written = times(out)
    scan.write_bytes(good)
    assert run(*chosen) == 0
    assert times(out) == written
    assert flags() == before
    assert "Could not be processed" not in (out / "sub-01.html").read_text()


@pytest.mark.parametrize("length", [205, 230])
def test_a_name_too_long_for_its_results_is_a_failure_of_that_image(
    run, bids, tmp_path, capsys, length
):
    scan = bids / "sub-01/anat/sub-01_T1w.nii.gz"
    shutil.copy(scan, scan.with_name(f"sub-01_acq-{'a' * length}_T1w.nii.gz"))
    assert run("--participant-label", "01", "--no-tta", "--folds", "0") == 1
    assert "its name is too long" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob(MAPS))) == 1


@pytest.mark.parametrize(
    "place",
    ["sub-01", "sub-02/ses-1", "sub-02/ses-1/anat", "sub-01/figures", "logs", "freesurfer"],
)
def test_nothing_is_written_through_a_link_out_of_the_output_folder(run, tmp_path, capsys, place):
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "out" / place
    elsewhere.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    assert run() == 6
    assert not list(elsewhere.iterdir())
    (line,) = capsys.readouterr().err.splitlines()
    assert "through a link" in line


@pytest.mark.parametrize("place", ["sub-01", "sub-01/figures"])
def test_pages_of_a_folder_behind_a_link_are_not_made_again(run, tmp_path, place):
    assert run() == 0
    inside, elsewhere = tmp_path / "out" / place, tmp_path / "elsewhere"
    inside.rename(elsewhere)
    inside.symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    assert run("--reports-only") == 6
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


def test_no_image_for_the_request_ends_with_3(run):
    assert run("--participant-label", "99") == 3


def test_a_missing_device_or_fold_ends_with_2_before_the_dataset_is_looked_at(
    run, monkeypatch, tmp_path, capsys
):
    for name in ("find_scans", "validate"):
        monkeypatch.setattr(participant, name, None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    options = [
        ("--device", "cuda:7"), ("--device", "openvino"), ("--folds", "7"), ("--folds", "0", "9"),
    ]  # fmt: skip
    for option, *values in options:
        assert run(option, *values) == 2
        assert f"{option} {values[-1]}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--dry-run"], ["--participant-label", "01"]])
def test_errors_of_the_dataset_are_warnings_in_the_validators_words(
    broken_dataset, model, tmp_path, capsys, options
):
    arguments = [str(broken_dataset), str(tmp_path / "out"), "participant", "--model", str(model)]
    assert cli.main([*arguments, *options, "--nprocs", "1"]) == 0
    said = capsys.readouterr().out
    assert said.count("WARNING: the BIDS validator found errors in the dataset") == 1
    assert "[ERROR] JSON_SCHEMA_VALIDATION_ERROR" in said
    assert "not validated" not in said


def test_a_run_says_that_nothing_was_validated(run, capsys):
    assert run("--dry-run") == 0
    assert "The dataset is not validated (--skip-bids-validation)" in capsys.readouterr().out


def test_a_run_that_ends_before_the_first_image_leaves_the_folder_to_any_dataset(
    run, flat_dataset, tmp_path
):
    assert run("--participant-label", "99") == 3
    assert run("--dry-run", bids_dir=flat_dataset) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["logs"]


def test_an_output_among_the_source_data_is_refused_at_each_level(run, bids):
    output = bids / "sub-01" / "out"
    assert run("--dry-run", output=output) == 2
    assert cli.main([str(bids), str(output), "group"]) == 2
    assert not output.exists()


def test_sigterm_ends_cleanly_and_the_next_run_goes_on(mixed_dataset, model, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "bids_app", str(mixed_dataset), str(output), "participant"]
    command += ["--model", str(model), "--skip-bids-validation", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(output.glob(MAPS)):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert not list(output.rglob(".*.tmp"))
    assert not list(output.rglob(".*.lock"))
    for path in output.glob(MAPS):
        assert sidecar(path)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    assert len(list(output.glob(MAPS))) == 4
