"""Time the participant level as a user starts it: start-up, each image, peak memory.

    python benchmarks/end_to_end.py BIDS_DIR [options of bids_app ...]

Start-up is the time from the command to the line that names the device, when models are loaded and
the dataset is known. Runs in a temporary output folder. Prints the machine and the date.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path


def main() -> int:
    """Run the app once and print what it took."""
    bids_dir, *options = sys.argv[1:]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}")
    print("bids_app", Path(bids_dir).name, "OUT participant", *options)
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "bids_app", bids_dir, output, "participant", *options]
        start = time.perf_counter()
        startup = float("nan")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("Device:"):
                    startup = time.perf_counter() - start
                if line.startswith(("Device:", "[")):
                    print(f"{time.perf_counter() - start:7.1f} s  {line.rstrip()}")
        total = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    print(f"start-up {startup:.1f} s, after it {total - startup:.1f} s, in all {total:.1f} s")
    print(f"CPU {cpu:.1f} s, peak memory {usage.ru_maxrss / 2**20:.2f} GiB")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    return process.returncode


def machine() -> str:
    """Name the processor and how many of it there are."""
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor()}, {platform.system()}"


if __name__ == "__main__":
    sys.exit(main())
