"""What all benchmarks share: the header of an output, timed processes, small datasets.

Nothing here imports the app at the top, so that a benchmark can time its start.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent
OUTPUTS = Path(__file__).resolve().parent  # where the committed outputs are
SAMPLING_SECONDS = 0.2  # between two looks at a process's memory

BIDS_APP = (sys.executable, "-m", "bids_app")
_CALL = "import sys; from bids_app.cli.{} import main; sys.exit(main())"
BRAINSTEM_SEGMENT = (sys.executable, "-c", _CALL.format("segment"))
BRAINSTEM_MODELS = (sys.executable, "-c", _CALL.format("models"))


# --- outputs ------------------------------------------------------------------------------


def out_option() -> argparse.ArgumentParser:
    """Return a parent parser with the option ``--out``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--out", type=Path, help="text file to write; always printed, too")
    return parser


class Output:
    """Lines of an output: printed as they come, written to a file when all are there.

    Parameters
    ----------
    path : Path, optional
        The file. It is left as it is if the benchmark fails.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path and kind is None:
            self._path.write_text("\n".join(self._lines) + "\n")

    def __call__(self, *lines: str) -> None:
        """Add lines."""
        for line in lines:
            print(line, flush=True)
        self._lines += [part for line in lines for part in line.split("\n")]


def header(model: str, *, device: str = "", packages: Sequence[str] = ("torch",)) -> list[str]:
    """Return the first lines of an output: date, machine, versions and model.

    Parameters
    ----------
    model : str
        What was run: `model_version` of a model, or words such as "random weights".
    device : str
        Name of the GPU; without one the CPU is named.
    packages : sequence of str
        Distributions whose versions matter.
    """
    from bids_app.version import __version__

    versions = [f"bids_app {__version__}", *(f"{name} {version(name)}" for name in packages)]
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, {device + ', ' if device else ''}{machine()}",
        ", ".join(versions),
        f"model: {model}",
    ]


def model_version(name: str = "open") -> str:
    """Return name, version and the start of the SHA-256 of an installed model."""
    from benchmarks.app import find_model

    model = find_model(name)
    return f"{model.name} {model.version} (SHA-256 {model.sha256[:12]})"


def machine() -> str:
    """Return number and name of the processors, and the operating system."""
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor()}, {platform.system()}"


def load(when: str) -> str:
    """Return a line with the load average of the last minute; `when` is "start" or "end"."""
    return f"load of the machine at the {when}: {os.getloadavg()[0]:.1f}"


# --- timed processes ----------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a process took.

    Attributes
    ----------
    wall, cpu : float
        Seconds of the wall clock, and of all CPUs together.
    memory : int
        Highest memory in bytes, summed over all of its processes; shared pages count once.
    """

    wall: float
    cpu: float
    memory: int

    def __add__(self, other: Cost) -> Cost:
        memory = max(self.memory, other.memory)
        return Cost(self.wall + other.wall, self.cpu + other.cpu, memory)

    @property
    def gib(self) -> float:
        """Memory in GiB."""
        return self.memory / 2**30


def run(
    command: Sequence[object],
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Cost:
    """Run a command in the repository's root and measure it.

    Parameters
    ----------
    command : sequence
        Words; anything that is not a str is converted, such as a Path.
    environment : mapping of str to str, optional
        Variables added to the environment.
    on_line : callable, optional
        Called with each line of standard output and error as soon as it is written.

    Raises
    ------
    SystemExit
        The command failed; the message ends with the last lines of its output.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=REPOSITORY,
            env=os.environ | dict(environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        memory, position = 0, 0
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if on_line:
                position = _read_lines(output.fileno(), position, on_line)
            if done:
                break
            memory = max(memory, _group_memory(process.pid))
            time.sleep(SAMPLING_SECONDS)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            last = output.read()[-2000:]
            raise SystemExit(f"{last}\n{' '.join(map(str, command))}: {process.returncode}")
    # Between two looks a short process may have grown; the kernel knows the largest one's peak.
    memory = max(memory, usage.ru_maxrss * 1024)
    return Cost(wall, usage.ru_utime + usage.ru_stime, memory)


def _read_lines(file: int, position: int, on_line: Callable[[str], None]) -> int:
    """Pass on the whole lines after a position; return the position of what is left."""
    content = os.pread(file, 2**20, position)
    end = content.rfind(b"\n") + 1
    for line in content[:end].decode(errors="replace").splitlines():
        on_line(line)
    return position + end


def _group_memory(group: int) -> int:
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


def alternate(variants: Mapping[str, Callable[[], T]], turns: int) -> dict[str, list[T]]:
    """Run variants in turns, so that other work on the machine meets all of them.

    Parameters
    ----------
    variants : mapping of str to callable
    turns : int
        How often each runs.

    Returns
    -------
    dict of str to list
        What each variant returned, by turn.
    """
    found: dict[str, list[T]] = {name: [] for name in variants}
    for _ in range(turns):
        for name, variant in variants.items():
            found[name].append(variant())
    return found


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Return the median of wall and CPU seconds, each by itself, and the highest memory."""
    return Cost(
        median(cost.wall for cost in costs),
        median(cost.cpu for cost in costs),
        max(cost.memory for cost in costs),
    )


# --- datasets -----------------------------------------------------------------------------


def t1w_images(dataset: Path) -> list[Path]:
    """Return the T1-weighted images of a BIDS dataset without sessions, sorted."""
    found = sorted(dataset.resolve().glob("sub-*/anat/*_T1w.nii.gz"))
    if not found:
        raise SystemExit(f"{dataset} has no image sub-*/anat/*_T1w.nii.gz.")
    return found


def describe_dataset(folder: Path, name: str, **fields: object) -> None:
    """Write the ``dataset_description.json`` of a dataset; make its folder where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"Name": name, "BIDSVersion": "1.10.0", "License": "CC0", **fields}
    (folder / "dataset_description.json").write_text(json.dumps(content))


def image_path(dataset: Path, participant: str) -> Path:
    """Return the path of a participant's T1-weighted image; make its folder."""
    folder = dataset / f"sub-{participant}" / "anat"
    folder.mkdir(parents=True)
    return folder / f"sub-{participant}_T1w.nii.gz"


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a tab-separated table."""
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([header, *rows])
