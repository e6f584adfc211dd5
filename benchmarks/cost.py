"""What a command costs: seconds on the wall and of all CPUs, memory of all its processes."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Cost:
    """What a run took: seconds on the wall and of all CPUs, bytes of memory."""

    wall: float
    cpu: float
    memory: int

    def __add__(self, other: Cost) -> Cost:
        memory = max(self.memory, other.memory)
        return Cost(self.wall + other.wall, self.cpu + other.cpu, memory)


def run(command: Sequence[str | Path], settings: Mapping[str, str], folder: Path) -> Cost:
    """Run a command in a folder, with settings added to its environment.

    Memory is the highest sum over all of its processes, shared pages counted once.

    Raises
    ------
    SystemExit
        It failed; the end of what it wrote is the reason.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | dict(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        memory = 0
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            memory = max(memory, group_memory(process.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            told = output.read()[-2000:]
            raise SystemExit(f"{told}\n{' '.join(map(str, command))}: {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, memory)


def group_memory(group: int) -> int:
    """Sum the memory of all processes of a group, in bytes."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            continue  # it has ended
    return total * 1024
