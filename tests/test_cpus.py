"""The default number of threads is what the process gets, not what the machine has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bids_app.cpus import cpu_limit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Write the files that the kernel shows a process."""
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        # v2: in a container, where the path is that of its namespace
        ("0::/", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "10000 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        # v2: on the host, where a group above may hold the quota
        (
            "0::/slurm/job_7/step_0",
            {
                "sys/fs/cgroup/slurm/job_7/cpu.max": "400000 100000",
                "sys/fs/cgroup/slurm/job_7/step_0/cpu.max": "max 100000",
            },
            4,
        ),
        # v1, also where the host's path is not mounted in the container
        (
            "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (
            "1:cpu:/a/b",
            {
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "10000",
                "sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us": "10000",
            },
            5,
        ),
        # nothing that can be read
        ("", {}, 16),
        ("nonsense", {}, 16),
        ("0::/../../x", {"sys/fs/cgroup/cpu.max": "0 0"}, 16),
    ],
)
def test_a_quota_bounds_the_number_of_cpus(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: int
) -> None:
    count, name = cpu_limit(system(tmp_path, cgroup, files), {})
    assert count == expected
    assert name == ("CPU affinity" if expected == 16 else "cgroup quota")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", (3, "SLURM_CPUS_PER_TASK")),
        ("0", (1, "SLURM_CPUS_PER_TASK")),
        ("64", (16, "CPU affinity")),
        ("", (16, "CPU affinity")),
        ("two", (16, "CPU affinity")),
    ],
)
def test_slurm_bounds_the_number_of_cpus(
    tmp_path: Path, text: str, expected: tuple[int, str]
) -> None:
    assert cpu_limit(tmp_path, {"SLURM_CPUS_PER_TASK": text}) == expected


def test_the_lowest_limit_counts(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/", {"sys/fs/cgroup/cpu.max": "200000 100000"})
    assert cpu_limit(root, {"SLURM_CPUS_PER_TASK": "4"}) == (2, "cgroup quota")
    assert cpu_limit(root, {"SLURM_CPUS_PER_TASK": "1"}) == (1, "SLURM_CPUS_PER_TASK")
