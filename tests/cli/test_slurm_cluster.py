"""On a real SLURM cluster nothing is lost, whatever ends a task; the next call sends the rest."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import make_datasets
import nibabel as nib
import pytest
from slurm_cluster import PATH, PROGRAMS, Cluster, missing_programs

from bids_app.cli import slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"needs {', '.join(PROGRAMS)}: apt-get install slurmctld slurmd slurm-client munge",
    ),
]
GOOD = [f"sub-{number:02}" for number in range(1, 21) if number != 5]
BAD, KILLED, LOST = "sub-05", "sub-07", "sub-02"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder, largest=12)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _login(cluster, monkeypatch):
    monkeypatch.setenv("PATH", PATH)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Twenty participants with one head at 2 mm, one of them with a truncated file."""
    folder = make_datasets.make_flat(tmp_path_factory.mktemp("heads"))
    shutil.rmtree(folder / "sub-01")
    for participant in [*GOOD, BAD]:
        path = folder / participant / "anat" / f"{participant}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(make_datasets.head(), path)
        if participant == BAD:
            path.write_bytes(path.read_bytes()[:100_000])
    rows = "".join(f"{participant}\n" for participant in sorted([*GOOD, BAD]))
    (folder / "participants.tsv").write_text(f"participant_id\n{rows}")
    return folder


def send(heads, output, *options):
    asked = [
        "--mem",
        "2G",
        "--time",
        "10",
        "--partition",
        "short",
        "--nprocs",
        "1",
        "--max-jobs",
        "4",
    ]
    return slurm.main([str(heads), str(output), *asked, *options])


def complete(output):
    return sorted(path.name[:6] for path in output.rglob("*_dseg.json"))


def group_rows(output):
    with (output / "group_volumes.tsv").open() as stream:
        return {row["participant_id"]: row for row in csv.DictReader(stream, delimiter="\t")}


def process_of(participant, heads):
    """Wait for the task of a participant to run, and give its process."""
    end = time.monotonic() + 3600
    while time.monotonic() < end:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if {b"--participant-label", participant.encode(), str(heads).encode()} <= set(words):
                return int(path.parent.name)
        time.sleep(0.05)
    raise TimeoutError(f"no task of {participant}")


def running_on(cluster, node):
    """Participants of the tasks that run on a node; the task's number is the participant's."""
    return [f"sub-{int(n):02}" for n in cluster.run("squeue", "-h", "-w", node, "-o", "%K").split()]


def test_bad_images_killed_tasks_and_lost_nodes_cost_nothing_but_another_call(
    cluster, heads, tmp_path, capsys
):
    output = tmp_path / "out with space"
    assert send(heads, output) == 0
    said = capsys.readouterr().out
    assert "Images: 20 to do, 0 complete." in said
    assert "Submitted: array 1 " in said  # two arrays, since this cluster takes 11 tasks in one
    # A call while these jobs are there sends nothing.
    assert send(heads, output) == 2
    assert "not over: 1" in capsys.readouterr().err

    process_of(LOST, heads)
    node = next(node for node in ("node1", "node2") if LOST in running_on(cluster, node))
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    os.kill(process_of(KILLED, heads), signal.SIGKILL)
    cluster.wait()

    assert complete(output) == [name for name in GOOD if name != KILLED]
    assert set(group_rows(output)) == {*GOOD, BAD} - {KILLED}
    log = next(output.glob("logs/slurm/*/group_*.out")).read_text()
    assert f"to do     {BAD}/anat/{BAD}_T1w.nii.gz" in log
    assert f"to do     {KILLED}/anat/{KILLED}_T1w.nii.gz" in log
    assert "To submit what is left: cd " in log
    assert "&& brainstem-slurm " in log

    assert send(heads, output) == 0
    assert "Images: 2 to do, 18 complete." in capsys.readouterr().out
    cluster.wait()
    assert complete(output) == GOOD
    rows = group_rows(output)
    assert sorted(rows) == sorted([*GOOD, BAD])
    assert [name for name, row in rows.items() if row["flags"] == "failed"] == [BAD]
    assert len({rows[name]["brainstem_mm3"] for name in GOOD}) == 1
    last = max(output.glob("logs/slurm/*"))
    first = min(output.glob("logs/slurm/*"))
    requeued = (first / f"1_{int(LOST[4:])}.out").read_text()
    assert requeued.count(f"{LOST}\n") == 2
    assert f"ERROR: {BAD}/anat/{BAD}_T1w.nii.gz: " in "".join(
        path.read_text() for path in last.glob("*_1.out")
    )
    assert KILLED not in next(last.glob("group_*.out")).read_text().split("Not complete")[1]
    assert not list(output.rglob(".*.lock"))


def test_what_the_cluster_refuses_is_told_in_its_words_and_nothing_stays_sent(
    cluster, heads, tmp_path, capsys
):
    assert send(heads, tmp_path / "out", "--partition", "none_such") == 2
    assert "invalid partition" in capsys.readouterr().err
    assert not cluster.run("squeue", "-h")


def test_a_task_that_is_requeued_leaves_whole_results_alone(cluster, heads, tmp_path, capsys):
    output = tmp_path / "out"
    labels = ["--participant-label", "01", "02", "03", "--images-per-job", "3"]
    assert send(heads, output, *labels) == 0
    job = capsys.readouterr().out.split("array ")[1].split(",")[0]
    while not complete(output):
        time.sleep(0.1)
    kept = next(output.rglob("*_dseg.nii.gz")).stat().st_mtime_ns
    cluster.run("scontrol", "requeue", f"{job}_1")
    cluster.wait()
    assert complete(output) == ["sub-01", "sub-02", "sub-03"]
    assert output.joinpath("sub-01/anat/sub-01_seg-open1_dseg.nii.gz").stat().st_mtime_ns == kept
    assert send(heads, output, *labels) == 0
    assert "Nothing is left to submit" in capsys.readouterr().out


def test_a_task_that_runs_out_of_time_is_gone_on_with_by_the_next_call(
    cluster, heads, tmp_path, capsys
):
    output = tmp_path / "out"
    assert send(heads, output, "--images-per-job", "20", "--time", "1") == 0
    job = capsys.readouterr().out.split("array ")[1].split(",")[0]
    while not complete(output):
        time.sleep(0.1)
    # A minute is the shortest time that SLURM knows, and enough for all: the task has to hang.
    os.kill(process_of("sub-01", heads), signal.SIGSTOP)
    cluster.wait()
    states = cluster.run("squeue", "-h", "--states=all", f"--jobs={job}", "-o", "%T").split()
    assert states == ["TIMEOUT"]
    done = complete(output)
    assert done == GOOD[: len(done)]
    assert len(done) < len(GOOD)
    assert set(group_rows(output)) - {BAD} == set(done)
    log = next(output.glob("logs/slurm/*/group_*.out")).read_text()
    assert log.count("to do ") == 20 - len(done)
    # A map without its sidecar, which is written after it, is done again.
    kept = {path: path.stat().st_mtime_ns for path in output.rglob("*_dseg.json")}

    following = GOOD[len(done)]
    assert send(heads, output, "--participant-label", *done, following) == 0
    assert f"Images: 1 to do, {len(done)} complete." in capsys.readouterr().out
    cluster.wait()
    assert complete(output) == [*done, following]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(output.rglob(".*.lock"))
