"""A real SLURM cluster of two nodes on this machine, for tests: munge, slurmctld and two slurmd.

All run as the user of the tests, on loopback, with all files in one folder; nothing of the system's
own SLURM is used or changed. On Debian: apt-get install slurmctld slurmd slurm-client munge
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_min_interval=0,batch_sched_delay=1
MaxArraySize={largest}
ReturnToService=1
SlurmdParameters=config_overrides
KillWait=5
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=30
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=8000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=8000
PartitionName=short Nodes=node1,node2 Default=YES MaxTime=60 State=UP
"""


class Cluster:
    """A running cluster.

    Parameters
    ----------
    folder : Path
        Where all its files go; with a short path, since it holds a socket.
    largest : int
        MaxArraySize.
    """

    def __init__(self, folder: Path, largest: int = 1001) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        user = self.run("id", "-un").strip()
        (folder / "slurm.conf").write_text(
            _CONFIGURATION.format(
                host=socket.gethostname().split(".")[0],
                user=user,
                ports=_free_ports(3),
                folder=folder,
                largest=largest,
            )
        )

    def start(self) -> None:
        """Start the daemons, and wait for the nodes."""
        names = ("key-file", "socket", "pid-file", "log-file", "seed-file")
        munge = [f"--{name}={self.folder}/munge.{name.split('-')[0]}" for name in names]
        self._start("munged", "--foreground", "--force", *munge)
        _wait(lambda: (self.folder / "munge.socket").exists(), 10)
        self._start("slurmctld", "-D")
        for node in ("node1", "node2"):
            self._start("slurmd", "-D", "-N", node)
        _wait(lambda: self.run("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], 60)

    def _start(self, *words: str) -> None:
        with (self.folder / "daemons.txt").open("ab") as said:
            process = subprocess.Popen(words, env=self.environment, stdout=said, stderr=said)
        self._daemons.append(process)

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.run("scancel", f"--user={os.getuid()}", check=False)
        _wait(lambda: not self.run("squeue", "-h", check=False), 60)
        for process in reversed(self._daemons):
            process.terminate()
            process.wait(30)

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command with the cluster's configuration; give what it says."""
        done = subprocess.run(
            words, env=self.environment, check=False, capture_output=True, encoding="utf-8"
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait(self, seconds: float = 5400) -> None:
        """Wait until the queue is empty."""
        _wait(lambda: not self.run("squeue", "-h"), seconds)


def missing_programs() -> list[str]:
    """Programs of SLURM and munge that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def _wait(ready, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("the cluster did not get there in time")
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
