"""How many CPUs this process may use: affinity, quotas of cgroups, and SLURM.

A container or a batch job often sees all CPUs of the machine but gets the time of a few. More
threads than that slow each other down. Quotas are read as the kernel documents them:
https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.max``) and
https://docs.kernel.org/scheduler/sched-bwc.html (``cpu.cfs_quota_us``).
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SLURM = "SLURM_CPUS_PER_TASK"


def available_cpus() -> int:
    """Count the CPUs that this process may use, at least 1."""
    return cpu_limit()[0]


def cpu_limit(
    root: Path = Path("/"), environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Find the lowest limit on the CPUs of this process.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc`` and ``sys``.
    environment : mapping of str to str, optional
        Environment variables; those of the process by default.

    Returns
    -------
    int
        Number of CPUs, at least 1; a quota is rounded up.
    str
        What sets the limit, such as ``"cgroup quota"``; the first of several that agree.
    """
    environment = os.environ if environment is None else environment
    limits = [(_affinity(), "CPU affinity")]
    limits += [(math.ceil(quota), "cgroup quota") for quota in _quotas(root)]
    if (asked := environment.get(_SLURM, "")).isdecimal():
        limits.append((int(asked), _SLURM))
    return min(((max(count, 1), name) for count, name in limits), key=lambda limit: limit[0])


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Read the quotas of the cgroups of this process and of those above them, in CPUs."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # Inside a container the path may be that on the host, and the mount begins further down.
        groups = [PurePosixPath("/"), *_upwards(PurePosixPath(path))]
        if number == "0" and not controllers:
            mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu"]
        else:
            continue
        for mount in mounts:
            for group in groups:
                yield from _quota(root / mount / group.relative_to("/"))


def _upwards(path: PurePosixPath) -> list[PurePosixPath]:
    if not path.is_absolute() or ".." in path.parts:
        return []  # outside the namespace of this process
    return [path, *path.parents]


def _quota(group: Path) -> Iterator[float]:
    """Read the quota of one cgroup: ``max 100000``, or two files of which -1 means none."""
    texts = _read(group / "cpu.max").split() or [
        _read(group / "cpu.cfs_quota_us").strip(),
        _read(group / "cpu.cfs_period_us").strip(),
    ]
    if len(texts) == 2 and all(text.isdecimal() for text in texts) and int(texts[1]) > 0:
        yield int(texts[0]) / int(texts[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
