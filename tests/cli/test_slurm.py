"""The scripts for a cluster hold what was asked for, and what is complete is not sent again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bids_app.cli import main as cli
from bids_app.cli import options, slurm
from bids_app.cli.slurm_scripts import Request, write_scripts
from bids_app.settings import Settings


@pytest.fixture
def bids(coarse_dataset, tmp_path):
    """Three images of two participants, in a folder whose name the shell would take apart."""
    return Path(shutil.copytree(coarse_dataset, tmp_path / "it's $HOME & co"))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out --put"


@pytest.fixture
def write(bids, output, capsys):
    def write_(*options):
        code = slurm.main([str(bids), str(output), "--skip-bids-validation", "--dry-run", *options])
        assert code == 0, capsys.readouterr().err
        folder = max(output.glob("logs/slurm/*"))
        return {path.name: path.read_text() for path in folder.iterdir()}

    return write_


def sends(script):
    return [shlex.split(line)[1:] for line in script.splitlines() if line.startswith("send ")]


def test_the_scripts_are_sound_bash(write, output):
    write("--gres", "gpu:1", "--max-jobs", "2", "--covariates", "age")
    scripts = list(output.glob("logs/slurm/*/*.sh"))
    assert {script.name for script in scripts} >= {"participant.sh", "group.sh", "submit.sh"}
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_task_segments_just_its_participants(write, bids, output):
    write("--nprocs", "1")
    folder = next(output.glob("logs/slurm/*"))
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "7"}
    task = subprocess.run(
        ["bash", "participant.sh", "0"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    assert "sub-01/anat/sub-01_T1w.nii.gz: brainstem" in task.stdout
    assert [path.name for path in output.rglob("*_dseg.json")] == ["sub-01_seg-open1_dseg.json"]

    group = subprocess.run(
        ["bash", "group.sh"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert group.returncode == 1
    assert (output / "group_volumes.tsv").read_text().count("sub-01\t") == 1
    missing = group.stdout.split("Not complete")[1]
    assert "sub-01" not in missing
    assert "to do     sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz" in missing
    again = f"cd {shlex.quote(str(Path.cwd()))} && brainstem-slurm {shlex.quote(str(bids))}"
    assert again in missing


def test_a_participant_is_one_task_and_tasks_can_hold_more(write):
    assert write()["tasks.txt"] == "sub-01\nsub-02\n"
    assert write("--images-per-job", "3")["tasks.txt"] == "sub-01 sub-02\n"


def test_no_gpu_is_asked_for_or_used_unless_told(write):
    scripts = write()
    assert "gres" not in scripts["submit.sh"]
    assert "--device=cpu" in scripts["participant.sh"]
    scripts = write("--gres", "gpu:1")
    array, group = sends(scripts["submit.sh"])
    assert "--gres=gpu:1" in array
    assert "--gres=gpu:1" not in group
    assert "--device" not in scripts["participant.sh"]


def test_options_of_the_cluster_and_of_the_app_arrive(write):
    scripts = write(
        *("--time", "2:00:00", "--mem", "3G", "--partition", "long", "--max-jobs", "5"),
        *("--nprocs", "4", "--no-tta", "--covariates", "age"),
        *("--flag-threshold", "wrong_order=8", "low_resolution=3"),
    )
    array, group = sends(scripts["submit.sh"])
    for job in (array, group):
        assert {"--time=2:00:00", "--mem=3G", "--partition=long"} <= set(job)
    assert {"--cpus-per-task=4", "--array=1-2%5"} <= set(array)
    assert "--no-tta" in scripts["participant.sh"]
    assert "--nprocs=4" in scripts["participant.sh"]
    assert "--flag-threshold wrong_order=8 low_resolution=3" in scripts["group.sh"]
    group_level, states = scripts["group.sh"].split(") ||")[0].split("states=")
    assert "--covariates age" in group_level
    assert "--covariates" not in states + scripts["participant.sh"]


def test_errors_of_the_dataset_are_shown_and_the_rest_is_sent(bids, output, capfd):
    (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": 3}')
    assert slurm.main([str(bids), str(output), "--dry-run"]) == 0
    assert "the BIDS validator found" in capfd.readouterr().out
    assert output.exists()


def test_the_group_job_takes_all_participants(write):
    scripts = write("--participant-label", "01")
    assert scripts["tasks.txt"] == "sub-01\n"
    group, states = scripts["group.sh"].split("states=")
    assert "--participant-label" not in group
    assert "--participant-label 01" in states


def test_more_tasks_than_an_array_may_hold_are_sent_in_several():
    commands = {name: ["app"] for name in ("participant", "group", "states")}
    request = Request({}, None, 2, None, largest=1001)
    scripts = write_scripts(commands, ["again"], request, tasks=2500)
    arrays = [job for job in sends(scripts["submit.sh"]) if "participant.sh" in job]
    assert [(job[-3], job[-1]) for job in arrays] == [
        ("--array=1-1000", "0"),
        ("--array=1-1000", "1000"),
        ("--array=1-500", "2000"),
    ]


def test_a_limit_on_running_tasks_holds_over_several_arrays():
    commands = {name: ["app"] for name in ("participant", "group", "states")}
    scripts = write_scripts(commands, ["again"], Request({}, None, 2, 10, 1001), tasks=1500)
    first, second, _ = sends(scripts["submit.sh"])
    assert not any(word.startswith("--dependency") for word in first)
    assert "--dependency=afterany:${sent[-1]}" in second


def test_the_image_sees_what_it_needs_and_writes_the_output_alone(write, bids, output, tmp_path):
    image = tmp_path / "app.sif"
    image.touch()
    filter_file = tmp_path / "filter.json"
    filter_file.write_text(json.dumps({"t1w": {}}))
    scripts = write("--image", str(image), "--bids-filter-file", str(filter_file))
    command = shlex.split(scripts["participant.sh"].replace("\\\n", "").split("exec ")[1])
    assert command[1:4] == ["run", "--containall", "--cleanenv"]
    assert "--nv" not in command
    assert {f"--bind={bids}:{bids}:ro", f"--bind={filter_file}:{filter_file}:ro"} <= set(command)
    assert f"--bind={output}:{output}" in command
    assert command[command.index(str(image)) + 1 :][:3] == [str(bids), str(output), "participant"]
    assert "--nv" in write("--image", str(image), "--gres", "gpu:1")["participant.sh"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--image", "none_such.sif"], 2, "no such file"),
        (["--reports-only"], 2, "--reports-only"),
        (["--model", "none_such"], 5, ""),
        (["--participant-label", "none"], 3, ""),
        ([], 2, "There is no sbatch here"),
    ],
)
def test_what_cannot_be_sent_ends_with_the_code_of_the_app(
    bids, output, capfd, monkeypatch, options, code, message
):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + ":/usr/bin/none")
    dry = ["--dry-run"] if options else []
    base = [str(bids), str(output), "--skip-bids-validation"]
    assert slurm.main([*base, *dry, *options]) == code
    assert message in capfd.readouterr().err
    assert not output.exists()


def test_the_call_for_what_is_left_does_not_do_all_again(write):
    scripts = write("--force")
    assert "--force" in scripts["participant.sh"]
    assert "--force" not in scripts["group.sh"]


def test_settings_become_the_words_that_give_them_again(tmp_path):
    settings = Settings(
        tmp_path / "a b", tmp_path / "out", "group", model=("x", "y"), covariates=("age", "sex"),
        no_tta=True, verbose=2, nprocs=3, omp_nthreads=2, work_dir=tmp_path / "w",
    )  # fmt: skip
    words = [str(settings.bids_dir), str(settings.output_dir), "group", *options.as_words(settings)]
    assert cli.parse(words) == settings


def test_an_image_that_is_done_again_by_force_is_listed_as_to_do(bids, output, capfd):
    base = [str(bids), str(output), "participant", "--skip-bids-validation", "--dry-run"]
    assert cli.main([*base, "--force"]) == 0
    assert capfd.readouterr().out.count("to do ") == 3


def test_a_cluster_that_does_not_answer_is_told_in_one_line(
    bids, output, capsys, monkeypatch, tmp_path
):
    for name, line in (("sbatch", "exit 0"), ("squeue", "echo no controller >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert slurm.main([str(bids), str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no controller" in line
    assert line.endswith("--dry-run writes the scripts.")
    assert not output.exists()


def test_the_help_of_options_is_that_of_the_cluster():
    printed = " ".join(slurm.make_parser().format_help().split())
    assert "CPUs of a task (default: 2)" in printed
    assert "write the scripts, and submit nothing" in printed
    assert "the CPUs that are there" not in printed
    assert "and do nothing" not in printed
