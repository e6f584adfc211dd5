"""What becomes of runs that are killed or lack room: a table, a row for each kind.

    python tests/interruptions.py [--moments 20] [--seed 1] [KIND ...]

Kinds: kill, term, int, disk, size, memory, output. Real runs of three small heads with a small
network of random weights, each in a process of its own; full disks need root, for a small tmpfs. A
row is good if no run hangs, prints a traceback or ends with an undocumented exit code, if all that
is marked complete is complete, and if a run afterwards completes the rest to the same bytes and
leaves no temporary file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "test_data")]

import make_datasets  # noqa: E402
from make_fixture_model import write_random_model  # noqa: E402

from bids_app.models import install  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 300  # after which a run counts as hanging
DOCUMENTED = {0, 1, 2, 3, 4, 5, 6, 130, 143, -9}
LEVELS = ("participant", "group")


@dataclass
class Row:
    """One row of the table."""

    what: str
    codes: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{code} x {self.codes.count(code)}" for code in sorted(set(self.codes)))
        verdict = "; ".join(dict.fromkeys(self.problems)) or "good"
        return f"{self.what:<44}  {len(self.codes):>4}  {counts:<30}  {verdict}"


class Trial:
    """Runs of one dataset and model into one output folder."""

    def __init__(self, top: Path) -> None:
        self.bids = make_datasets.make_valid(top / "bids", coarser=3)
        trained = write_random_model(
            top / "trained", folds=1, spacing=(6.0, 6.0, 6.0), patch_size=(32, 40, 32)
        )
        self.model = install.import_model(trained, "quick", top / "models").folder
        self.top, self.out, self.temporary = top, top / "out", top / "tmp"
        self.temporary.mkdir()
        started = time.monotonic()
        row = Row("undisturbed")
        self.run(row, "participant")
        self.seconds = {"participant": time.monotonic() - started}
        started = time.monotonic()
        self.run(row, "group")
        self.seconds["group"] = time.monotonic() - started
        self.expected = self.digests()
        assert len(self.expected) > 10, row
        print(row, flush=True)

    def run(
        self,
        row: Row,
        level: str,
        *,
        limit: tuple[int, int] | None = None,
        after: tuple[float, int] | None = None,
        ending: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        """Run a level; note its exit code and what went wrong.

        Parameters
        ----------
        limit : tuple of int, optional
            A resource and its limit.
        after : tuple of float and int, optional
            Seconds, and the signal that is sent then.
        ending : str
            Of the shell's command, such as a pipe.
        """
        words = [sys.executable, "-m", "bids_app", str(self.bids), str(self.out), level, *options]
        if level == "participant":
            words += ["--model", str(self.model), "--nprocs", "1", "--no-tta"]
            words += ["--skip-bids-validation"]
        if ending:
            command = f'"$0" "$@" {ending}; exit ${{PIPESTATUS[0]}}'
            words = ["bash", "-c", command, *words]

        def limited() -> None:
            if limit is not None:
                resource.setrlimit(limit[0], (limit[1], limit[1]))

        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                words,
                cwd=REPOSITORY,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TMPDIR": str(self.temporary)},
                preexec_fn=(lambda: resource.setrlimit(limit[0], (limit[1],) * 2))
                if limit
                else None,
            )
            try:
                if after is not None:
                    try:
                        process.wait(after[0])
                    except subprocess.TimeoutExpired:
                        process.send_signal(after[1])
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                row.problems.append("it hangs")
                process.kill()
                process.wait()
            said.seek(0)
            text = said.read().decode(errors="replace")
        row.codes.append(process.returncode)
        if "Traceback" in text or "Exception ignored" in text:
            row.problems.append(f"traceback: {text.strip().splitlines()[-1][:90]}")
        if process.returncode not in DOCUMENTED:
            said_last = (text.strip().splitlines() or ["nothing"])[-1]
            row.problems.append(f"exit code {process.returncode}: {said_last[:90]}")
        self.check_complete(row)

    def check_complete(self, row: Row) -> None:
        """What a sidecar marks as complete must be there, as it says."""
        for sidecar in self.out.glob("sub-*/**/*_dseg.json"):
            try:
                files = json.loads(sidecar.read_bytes())["Files"]
                for name, known in files.items():
                    content = (sidecar.parent / name).read_bytes()
                    assert hashlib.sha256(content).hexdigest() == known["SHA256"]
            except (OSError, ValueError, KeyError, AssertionError) as error:
                row.problems.append(f"{sidecar.name} marks what is not complete ({error!r})")

    def check_rest(self, row: Row) -> None:
        """A run afterwards completes what is missing, to the same bytes, and cleans up."""
        for level in LEVELS:
            self.run(row, level)
            if row.codes.pop() != 0:
                row.problems.append(f"the run afterwards fails at the {level} level")
        if self.digests() != self.expected:
            row.problems.append("other bytes than those of an undisturbed run")
        left = [*self.out.rglob("*.tmp"), *self.out.rglob("*.lock"), *self.temporary.iterdir()]
        if left:
            row.problems.append(f"left: {left[0].name}")

    def clear(self) -> None:
        """Remove what earlier runs wrote."""
        for path in self.out.iterdir() if self.out.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def digests(self) -> dict[str, str]:
        """Digests of all files that do not hold times."""
        return {
            path.relative_to(self.out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.out.rglob("*"))
            if path.suffix in (".gz", ".tsv", ".png") and "logs" not in path.parts
        }


def signals(trial: Trial, number: int, moments: int) -> None:
    """Send a signal at random moments of each level."""
    for level in LEVELS:
        trial.clear()
        if level == "group":
            trial.run(Row(""), "participant")
        row = Row(f"{signal.Signals(number).name} at random moments, {level} level")
        for count in range(moments):
            moment = random.uniform(0.1, trial.seconds[level])
            options = ("--force",) if level == "participant" and count % 3 == 1 else ()
            trial.run(row, level, after=(moment, number), options=options)
        trial.check_rest(row)
        print(row, flush=True)


def full_disk(trial: Trial, sizes: tuple[int, ...] = (16, 64, 200, 400, 600, 1200)) -> None:
    """Write to a disk of so many kB, at each level."""
    for size in sizes:
        trial.clear()
        trial.out.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(trial.out)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            print(f"full disk: left out, {' '.join(mount)} is not allowed")
            return
        row = Row(f"disk of {size} kB")
        try:
            for level in LEVELS:
                trial.run(row, level)
            if left := [*trial.out.rglob("*.tmp"), *trial.out.rglob("*.lock")]:
                row.problems.append(f"left: {left[0].name}")
        finally:
            subprocess.run(["umount", str(trial.out)], check=False)
        print(row, flush=True)


def limits(trial: Trial, kind: int, sizes: dict[str, int]) -> None:
    """Run each level under limits of a resource."""
    for name, size in sizes.items():
        trial.clear()
        row = Row(name)
        for level in LEVELS:
            trial.run(row, level, limit=(kind, size))
        trial.check_rest(row)
        print(row, flush=True)


def closed_output(trial: Trial) -> None:
    """Run each level with an output that nobody reads."""
    for ending in ("| head -1", "2>&1 | head -1", ">&-", "<&- >&- 2>&-"):
        trial.clear()
        row = Row(f"output: {ending}")
        for level in LEVELS:
            trial.run(row, level, ending=ending)
        if set(row.codes) != {0} or trial.digests() != trial.expected:
            row.problems.append("not everything is done")
        print(row, flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("kinds", nargs="*")
    options = parser.parse_args()
    random.seed(options.seed)
    megabyte = 2**20
    kinds: dict[str, Callable[[Trial], None]] = {
        "kill": lambda trial: signals(trial, signal.SIGKILL, options.moments),
        "term": lambda trial: signals(trial, signal.SIGTERM, options.moments),
        "int": lambda trial: signals(trial, signal.SIGINT, options.moments),
        "disk": full_disk,
        "size": lambda trial: limits(
            trial,
            resource.RLIMIT_FSIZE,
            {f"files of {kb} kB at most": kb * 1024 for kb in (0, 1, 20, 100, 500, 2000)},
        ),
        "memory": lambda trial: limits(
            trial,
            resource.RLIMIT_AS,
            {f"{mb / 1024:g} GB of memory": mb * megabyte for mb in (512, 1024, 2048, 3072, 4096)},
        ),
        "output": closed_output,
    }
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':<44}  runs  exit codes                      verdict", flush=True)
        trial = Trial(Path(folder).resolve())
        for kind in options.kinds or kinds:
            kinds[kind](trial)


if __name__ == "__main__":
    main()
