"""Time the search for T1w images in a dataset of 1,000 participants with 2 sessions each.

    python benchmarks/finding.py > benchmarks/finding.txt

The files are empty. Each search is a process of its own, timed from its start, so that Python and
pybids are imported each time. Prints the machine and the date. Aimed at: one participant in 2 s,
all in 20 s, on a machine with nothing else to do.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from end_to_end import machine

PARTICIPANTS = 1000
SESSIONS = ("1", "2")
FILES = (
    *("anat/{}_T1w.nii.gz", "anat/{}_T1w.json", "anat/{}_T2w.nii.gz", "anat/{}_T2w.json"),
    *("func/{}_task-rest_bold.nii.gz", "func/{}_task-rest_bold.json"),
    *("func/{}_task-rest_events.tsv", "fmap/{}_phasediff.nii.gz", "fmap/{}_phasediff.json"),
)
SEARCH = """
import sys
from pathlib import Path
from bids_app.scans import find_scans
root, database, *participants = sys.argv[1:]
found = find_scans(
    Path(root), participants=participants, database_dir=Path(database) if database else None
)
print(len(found.scans))
"""


def main() -> None:
    """Make the dataset and search it in several ways."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}")
    with tempfile.TemporaryDirectory() as name:
        root, database = Path(name) / "data", str(Path(name) / "database")
        make_dataset(root)
        print(f"{'search':<34}{'images':>8}{'wall s':>8}{'CPU s':>8}")
        search("one participant", root, "", "0500")
        search("all", root, "")
        search("one participant, first database", root, database, "0500")
        search("one participant, database", root, database, "0500")
        search("another participant, database", root, database, "0600")
        search("all, database", root, database)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


def make_dataset(root: Path) -> None:
    """Write the empty files."""
    for number in range(PARTICIPANTS):
        for session in SESSIONS:
            stem = f"sub-{number:04}_ses-{session}"
            folder = root / stem.replace("_", "/")
            for kind in ("anat", "func", "fmap"):
                (folder / kind).mkdir(parents=True)
            for file in FILES:
                (folder / file.format(stem)).touch()
    (root / "dataset_description.json").write_text('{"Name": "Large", "BIDSVersion": "1.10.0"}')


def search(title: str, root: Path, database: str, *participants: str) -> None:
    """Search in a new process and print a row."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-c", SEARCH, str(root), database, *participants]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{title:<34}{done.stdout.strip():>8}{wall:>8.1f}{cpu:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
