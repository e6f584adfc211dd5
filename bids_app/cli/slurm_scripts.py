"""The scripts for a SLURM cluster: one for a task, one for the group job, one that submits both.

They are plain bash. All words from outside are quoted for the shell, and no path stands in an
option of sbatch, where ``%`` has a meaning: everything runs in the folder of the scripts.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TASKS, SENT = "tasks.txt", "jobs.txt"

_PARTICIPANT = """\
#!/bin/bash
# One task of the array: segments the participants on one line of {tasks}. The task's number
# counts from the line given as argument. If interrupted or submitted again, it resumes with the
# images that are not complete. Written by brainstem-slurm {version}.
set -euo pipefail
line=$(( $1 + SLURM_ARRAY_TASK_ID ))
read -r -a participants <<< "$(sed -n "${{line}}p" {tasks})"
echo "$(date -u +%FT%TZ) job $SLURM_JOB_ID on $(hostname): ${{participants[*]}}"
exec {command} \\
    --participant-label "${{participants[@]}}"
"""

_GROUP = """\
#!/bin/bash
# After the array, however it ended: makes the group table and lists the images that are not
# complete. Exits with 1 if there are any. Written by brainstem-slurm {version}.
set -uo pipefail
status=0
{group} || status=$?
states=$({states}) || {{ echo "$states"; exit $(( status ? status : 1 )); }}
if missing=$(grep '^to do ' <<< "$states"); then
    echo
    echo 'Not complete (why: the last lines of the logs beside this one):'
    echo "$missing"
    echo {again}
    exit $(( status ? status : 1 ))
fi
echo 'All images are complete.'
exit "$status"
"""

_SUBMIT = """\
#!/bin/bash
# Submits the array and the group job, which starts after it. If sbatch refuses one of them, those
# already submitted are cancelled. Written by brainstem-slurm {version}.
set -Eeuo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
sent=()
trap 'if (( ${{#sent[@]}} )); then scancel "${{sent[@]}}"; fi' ERR
send() {{
    local id
    id=$(sbatch --parsable --requeue --open-mode=append "$@")
    sent+=("${{id%%;*}}")
}}
{sends}
printf '%s\\n' "${{sent[@]}}" > {sent}
echo "Submitted: array {number}, then group job ${{sent[-1]}}."
echo "To see them: squeue --jobs=$(IFS=,; echo "${{sent[*]}}")"
"""


@dataclass(frozen=True)
class Request:
    """What each job requests from the cluster.

    Attributes
    ----------
    common : dict of str to str
        Options of sbatch for both kinds of job, by name without dashes.
    gres : str or None
        Generic resources of a task of the array, such as ``gpu:1``.
    cpus : int
        CPUs of a task of the array.
    max_jobs : int or None
        Largest number of tasks that run at a time.
    largest : int
        The cluster's MaxArraySize.
    """

    common: Mapping[str, str]
    gres: str | None
    cpus: int
    max_jobs: int | None
    largest: int


def write_scripts(
    commands: Mapping[str, Sequence[str]], again: Sequence[str], request: Request, tasks: int
) -> dict[str, str]:
    """Write all scripts.

    Parameters
    ----------
    commands : mapping of str to sequence of str
        Words of the commands ``participant``, ``group`` and ``states`` (lists the images).
    again : sequence of str
        The command that submits what is left, from the current folder.
    request : Request
        What the jobs request.
    tasks : int
        Number of tasks.

    Returns
    -------
    dict of str to str
        Text of each script, by name.
    """
    quoted = {name: _in_lines(words) for name, words in commands.items()}
    # The paths among the words may be relative to here.
    advice = f"To submit what is left: cd {shlex.quote(str(Path.cwd()))} && {shlex.join(again)}"
    sends = list(_sends(request, tasks))
    return {
        "participant.sh": _PARTICIPANT.format(
            version=__version__, tasks=TASKS, command=quoted["participant"]
        ),
        "group.sh": _GROUP.format(
            version=__version__,
            group=quoted["group"],
            states=quoted["states"],
            again=shlex.quote(advice),
        ),
        "submit.sh": _SUBMIT.format(
            version=__version__,
            sends="\n".join(sends),
            sent=SENT,
            number="${sent[*]:0:" + str(len(sends) - 1) + "}",
        ),
    }


def _sends(request: Request, tasks: int) -> Iterator[str]:
    """Write a call for each array, none larger than the cluster allows, and for the group job."""
    common = [f"--{name}={value}" for name, value in request.common.items()]
    array = [*common, f"--cpus-per-task={request.cpus}"]
    if request.gres:
        array.append(f"--gres={request.gres}")
    at_a_time = "" if request.max_jobs is None else f"%{request.max_jobs}"
    step = max(1, request.largest - 1)  # MaxArraySize is one more than the highest index
    for done in range(0, tasks, step):
        words = [*array, "--job-name=brainstem", "--output=%A_%a.out"]
        words.append(f"--array=1-{min(step, tasks - done)}{at_a_time}")
        # The limit holds per array, so several arrays must run one after the other.
        after = " --dependency=afterany:${sent[-1]}" if at_a_time and done else ""
        yield f"send {shlex.join(words)}{after} participant.sh {done}"
    words = [*common, "--cpus-per-task=1", "--job-name=brainstem-group", "--output=group_%j.out"]
    before = '$(IFS=:; echo "${sent[*]}")'
    yield f'send {shlex.join(words)} --dependency="afterany:{before}" group.sh'


def _in_lines(words: Sequence[str]) -> str:
    """Quote a command, with a line for each option, so that it is easy to read."""
    breaks = [" \\\n    " if word.startswith("--") else " " for word in words]
    parts = zip(breaks, words, strict=True)
    return "".join(f"{space}{shlex.quote(word)}" for space, word in parts).lstrip()
