"""``brainstem-slurm``: the participant level as an array of SLURM jobs, then the group level.

The images to do are those that ``bids_app ... participant --dry-run`` lists, run with the same
interpreter or container image as the tasks. Nothing keeps running on the login node. A participant
is never split, so that no two tasks write the same report.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from bids_app.bids.dataset import check_owner, claim
from bids_app.cli.options import (
    DEVICES,
    NPROCS,
    add_folders,
    add_options,
    as_words,
    guarded,
    make_settings,
    positive,
)
from bids_app.cli.slurm_scripts import SENT, TASKS, Request, write_scripts
from bids_app.cli.slurm_tasks import (
    can_start,
    find_states,
    folders,
    for_elsewhere,
    here,
    pack,
    starter,
)
from bids_app.errors import UsageError
from bids_app.io.files import read_text, write_atomic
from bids_app.settings import Settings
from bids_app.workflow.log import new_run_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DESCRIPTION = """
Segments a BIDS dataset on a SLURM cluster: submits an array of tasks for the images that are not
complete yet, and a group job that starts when the array has ended. Re-run the same command to
submit what is left. Scripts and logs: OUTPUT_DIR/logs/slurm/<run id>. With --dry-run the scripts
are written and nothing is submitted; their submit.sh submits them later.
"""
_EPILOG = """
All options of bids_app are passed to the tasks; --covariates, --flag-threshold and --norms are
passed to the group job. For anything else set sbatch's own variables, such as SBATCH_ACCOUNT and
SBATCH_QOS. Exit codes are those of bids_app; a job that the cluster refuses gives 2.
"""
_CPUS = 2
_LARGEST_ARRAY = 1001  # SLURM's default of MaxArraySize


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Command line without the program's name; that of the process by default.

    Returns
    -------
    int
        Exit code; see `bids_app.errors`.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = make_parser().parse_args(words)
    return guarded(lambda: _run(arguments, ["brainstem-slurm", *words]))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser: the options of the cluster, and those of ``bids_app`` except the level."""
    parser = argparse.ArgumentParser(
        prog="brainstem-slurm",
        usage="%(prog)s BIDS_DIR OUTPUT_DIR [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    add_folders(parser)
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--image",
        metavar="SIF|none",
        default="none",
        help="Apptainer image of the app that the tasks run (default: none, which runs this "
        "installation; all nodes must see it)",
    )
    cluster.add_argument(
        "--images-per-job",
        type=positive,
        default=1,
        metavar="K",
        help="smallest number of T1w images per task; participants are not split (default: 1)",
    )
    cluster.add_argument(
        "--max-jobs",
        type=positive,
        metavar="P",
        default=None,
        help="largest number of tasks that run at a time",
    )
    cluster.add_argument("--time", default=None, help="time limit of a job, such as 1:00:00")
    cluster.add_argument("--mem", default="4G", help="memory of a job (default: %(default)s)")
    cluster.add_argument(
        "--gres",
        default=None,
        metavar="GRES",
        help="other resources of a task, such as gpu:1; without it no GPU is requested or used",
    )
    cluster.add_argument(
        "--partition", default=None, help="partition for all jobs (default: the cluster's)"
    )
    add_options(parser)
    _add_changed(
        parser.add_argument_group("like the options of bids_app, with another meaning or default")
    )
    return parser


def _add_changed(group: argparse._ArgumentGroup) -> None:
    """Add options that replace those of ``bids_app`` of the same name."""
    group.add_argument(
        *NPROCS, type=positive, metavar="N", help=f"CPUs of a task (default: {_CPUS})"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="write the scripts, and submit nothing"
    )
    group.add_argument(
        "--model",
        action="append",
        metavar="NAME|FOLDER",
        help="name or folder of the model (default: open)",
    )
    group.add_argument(
        "--device",
        metavar=DEVICES,
        help="where the network runs (default: cpu, or auto if --gres has a GPU); "
        "openvino: the CPU with OpenVINO, which is faster and must be installed (docs/speed.md)",
    )
    group.add_argument(
        "--reports-only", action="store_true", help="not available here: run bids_app for it"
    )


def _run(arguments: argparse.Namespace, typed: list[str]) -> int:
    names = {field.name for field in fields(Settings)} | {"config_file"}
    options = {key: value for key, value in vars(arguments).items() if key in names}
    settings = make_settings(options | {"level": "participant"}, cpus=_CPUS)
    if settings.reports_only:
        raise UsageError("--reports-only: run bids_app for it; that takes seconds.")
    settings = for_elsewhere(settings, arguments.image, arguments.gres)
    if not settings.dry_run:
        _check_cluster(settings.output_dir)
    check_owner(settings.output_dir, settings.bids_dir)
    start = starter(arguments.image, settings)
    listing = starter(arguments.image, settings, there=True) if can_start(start) else here()
    status, left, complete = find_states(listing, settings.for_participants())
    if status:
        return status
    print(f"Images: {len(left)} to do, {complete} complete.")
    if not left:
        command = [*start, *folders(settings), "group"]
        print(f"Nothing is left to submit. To make the group table: {shlex.join(command)}")
        return 0
    claim(settings.output_dir, settings.bids_dir)
    folder = settings.output_dir / "logs" / "slurm" / new_run_id()
    tasks = pack(left, arguments.images_per_job)
    scripts = _scripts(settings, arguments, start, typed, len(tasks))
    scripts[TASKS] = "".join(" ".join(task) + "\n" for task in tasks)
    for name, text in scripts.items():
        write_atomic(folder / name, text.encode())
    print(f"Tasks: {len(tasks)}. Scripts and logs: {folder}")
    if settings.dry_run:
        print(f"Nothing was submitted. To submit: bash {shlex.quote(str(folder / 'submit.sh'))}")
        return 0
    _submit(folder)
    return 0


def _check_cluster(output_dir: Path) -> None:
    """Check that jobs can be submitted, and that no earlier one for this folder still exists."""
    if shutil.which("sbatch") is None:
        raise UsageError(
            "There is no sbatch here. Run this on a login node; --dry-run writes the scripts."
        )
    sent = {
        number
        for path in output_dir.glob(f"logs/slurm/*/{SENT}")
        for number in read_text(path, errors="replace").split()
    }
    queue = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F"]
    try:
        queued = _ask(queue)
    except (OSError, UsageError) as error:
        why = str(error).rsplit("squeue: ", 1)[-1]  # the last line has the reason
        raise UsageError(
            f"The cluster does not answer ({why}). Run this on a login node; --dry-run writes the "
            "scripts."
        ) from None
    alive = sorted(sent & set(queued.split()))
    if alive:
        raise UsageError(
            f"Jobs of an earlier call for this output folder still exist: {', '.join(alive)}. "
            f"Wait for them (squeue), or cancel them: scancel {' '.join(alive)}"
        )


def _scripts(
    settings: Settings,
    arguments: argparse.Namespace,
    start: Sequence[str],
    typed: list[str],
    tasks: int,
) -> dict[str, str]:
    # The dataset was validated by the dry run, once for all tasks.
    participant = settings.for_participants()
    task = replace(participant, dry_run=False, participant_label=(), skip_bids_validation=True)
    group = Settings(
        settings.bids_dir,
        settings.output_dir,
        "group",
        covariates=settings.covariates,
        flag_threshold=settings.flag_threshold,
        norms=settings.norms,
    )
    check = replace(participant, dry_run=True, force=False, skip_bids_validation=True)
    commands = {
        "participant": [*start, *folders(settings), "participant", *as_words(task)],
        "group": [*start, *folders(settings), "group", *as_words(group)],
        "states": [*start, *folders(settings), "participant", *as_words(check)],
    }
    wanted: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("partition", "time", "mem")
    }
    request = Request(
        {name: value for name, value in wanted.items() if value is not None},
        arguments.gres,
        settings.nprocs,
        arguments.max_jobs,
        _largest_array(),
    )
    # With --force the same call would process all images again, not only those left.
    again = [word for word in typed if word not in {"--dry-run", "--force"}]
    return write_scripts(commands, again, request, tasks)


def _largest_array() -> int:
    """Ask the cluster for MaxArraySize; if none answers, take SLURM's default."""
    try:
        configuration = _ask(["scontrol", "show", "config"])
    except (OSError, UsageError):
        return _LARGEST_ARRAY
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", configuration, re.MULTILINE)
    return int(found[1]) if found else _LARGEST_ARRAY


def _ask(words: Sequence[str]) -> str:
    done = subprocess.run(  # noqa: S603
        words, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise UsageError(f"{words[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def _submit(folder: Path) -> None:
    print(_ask(["bash", str(folder / "submit.sh")]), end="")
