"""Time the search for T1-weighted images in a dataset of 1,000 participants, 2 sessions each.

The files are empty. Each search is a process of its own and is timed from its start, so that the
imports of Python and pybids count. Aim, on a machine without other work: one participant in 2 s,
all in 20 s.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import REPOSITORY, Output, describe_dataset, header, load

if TYPE_CHECKING:
    import argparse

SESSIONS = ("1", "2")
FILES = (
    *("anat/{}_T1w.nii.gz", "anat/{}_T1w.json", "anat/{}_T2w.nii.gz", "anat/{}_T2w.json"),
    *("func/{}_task-rest_bold.nii.gz", "func/{}_task-rest_bold.json"),
    *("func/{}_task-rest_events.tsv", "fmap/{}_phasediff.nii.gz", "fmap/{}_phasediff.json"),
)
SEARCH = """
import sys
from pathlib import Path
from bids_app.bids.scans import find_scans
root, database, *participants = sys.argv[1:]
found = find_scans(
    Path(root), participants=participants, database_dir=Path(database) if database else None
)
print(len(found.scans))
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--participants", type=int, default=1000, help="default: %(default)s")


def main(options: argparse.Namespace) -> None:
    """Make the dataset and search it in several ways."""
    with Output(options.out) as out, tempfile.TemporaryDirectory() as name:
        out(*header("none", packages=("pybids",)))
        root, database = Path(name) / "data", str(Path(name) / "database")
        make_dataset(root, options.participants)
        out(f"{'search':<34}{'images':>8}{'wall s':>8}{'CPU s':>8}")
        one, other = (f"{n:04}" for n in (options.participants // 2, options.participants // 2 + 1))
        search(out, "one participant", root, "", one)
        search(out, "all", root, "")
        search(out, "one participant, first database", root, database, one)
        search(out, "one participant, database", root, database, one)
        search(out, "another participant, database", root, database, other)
        search(out, "all, database", root, database)
        out(load("end"))


def make_dataset(root: Path, participants: int) -> None:
    """Write the empty files."""
    for number in range(participants):
        for session in SESSIONS:
            stem = f"sub-{number:04}_ses-{session}"
            folder = root / stem.replace("_", "/")
            for kind in ("anat", "func", "fmap"):
                (folder / kind).mkdir(parents=True)
            for file in FILES:
                (folder / file.format(stem)).touch()
    describe_dataset(root, "Large")


def search(out: Output, title: str, root: Path, database: str, *participants: str) -> None:
    """Search in a new process and print a row."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-c", SEARCH, str(root), database, *participants]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    out(f"{title:<34}{done.stdout.strip():>8}{wall:>8.1f}{cpu:>8.1f}")
