"""Time the group level and its page on as many images as a user may have.

    python benchmarks/group.py BIDS_DIR --images 2000 40000 [--results OUT] [--browser chromium]

Runs the app on the heads of BIDS_DIR (or takes the results in OUT), copies their sidecars and
tables under other names, two sessions a participant, each participant's volumes scaled by a factor
of its own (standard deviation 8 %), and gives the copies scanners, sites, ages and dates. Then runs
the group level as a user does and opens its page in a headless browser. Prints machine and date.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from end_to_end import machine

from bids_app.bids.results import Result, read_results
from bids_app.io.tables import read_table, table

SESSIONS = 2
SITES = (("Basel", "Siemens", "Prisma", 3), ("Bern", "Philips", "Achieva", 3),
         ("Zurich", "GE", "Signa HDxt", 1.5))  # fmt: skip
DESCRIPTION = {"Name": "Copies", "BIDSVersion": "1.10.0", "License": "CC0"}


def main() -> None:
    """Do all sizes and print what they took."""
    options = parse()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        results = options.results
        if results is None:
            results = Path(folder, "results")
            segment(options.bids_dir, results)
        originals = list(read_results(results))
        print(f"copies of {len(originals)} images")
        for images in options.images:
            source, output = Path(folder, f"bids_{images}"), Path(folder, f"out_{images}")
            copy(originals, source, output, images)
            print(f"\n{images:,} images")
            seconds, cpu, gigabytes = run_group(source, output)
            print(f"  group level: {seconds:.1f} s ({cpu:.1f} of CPU), {gigabytes:.2f} GiB")
            for name in ("group_volumes.tsv", "group_longitudinal.tsv", "group.html"):
                print(f"  {name}: {(output / name).stat().st_size / 1e6:.1f} MB")
            if options.browser:
                open_page(options.browser, output / "group.html", images)
            if options.keep:
                (output / "group.html").replace(options.keep / f"group_{images}.html")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[2000])
    parser.add_argument("--results", type=Path, help="results of BIDS_DIR that are there")
    parser.add_argument("--browser", default="", help="command of Chromium or Chrome")
    parser.add_argument("--keep", type=Path, help="folder for the pages")
    return parser.parse_args()


def segment(bids_dir: Path, output: Path) -> None:
    """Run the participant level."""
    words = ["-m", "bids_app", str(bids_dir), str(output), "participant", "--skip-bids-validation"]
    subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr)


def copy(originals: list[Result], source: Path, output: Path, images: int) -> None:
    """Make a dataset and results of that many images, without their voxels."""
    rng = np.random.default_rng(0)
    people = -(-images // SESSIONS)
    for folder in (source, output):
        folder.mkdir()
    (source / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    described = DESCRIPTION | {
        "GeneratedBy": [{"Name": "brainstem BIDS App"}],
        "DatasetLinks": {"raw": os.path.relpath(source, output)},
    }
    (output / "dataset_description.json").write_text(json.dumps(described))
    contents = [(original.sidecar, read_table(original.outputs.volumes)) for original in originals]
    covariates = []
    for number in range(people):
        person = f"sub-{number:05d}"
        covariates.append([person, f"{rng.uniform(20, 80):.0f}", "FM"[number % 2]])
        factor = rng.normal(1, 0.08)
        sidecar, rows = contents[number % len(contents)]
        label = originals[number % len(contents)].label
        acquisition = dict(
            zip(("InstitutionName", "Manufacturer", "ManufacturersModelName",
                 "MagneticFieldStrength"), SITES[number % len(SITES)], strict=True)
        )  # fmt: skip
        for session in (f"ses-{i + 1}" for i in range(SESSIONS)):
            stem = f"{person}_{session}"
            raw = source / person / session / "anat"
            raw.mkdir(parents=True)
            (raw / f"{stem}_T1w.json").write_text(json.dumps(acquisition))
            date = datetime(2000, 1, 1) + timedelta(days=365 * int(session[-1]) + number % 300)
            lines = [[f"anat/{stem}_T1w.nii.gz", date.isoformat()]]
            (raw.parent / f"{stem}_scans.tsv").write_bytes(table(["filename", "acq_time"], lines))
            anat = output / person / session / "anat"
            anat.mkdir(parents=True)
            path = f"{person}/{session}/anat/{stem}_T1w.nii.gz"
            content = sidecar | {"Sources": [f"bids:raw:{path}"]}
            (anat / f"{stem}_seg-{label}_dseg.json").write_text(json.dumps(content, indent=2))
            scaled = [scale(row, factor * rng.normal(1, 0.01)) for row in rows]
            (anat / f"{stem}_seg-{label}_volumes.tsv").write_bytes(
                table(list(rows[0]), [list(row.values()) for row in scaled])
            )
        (output / f"{person}.html").write_text("<!DOCTYPE html><title>copy</title>")
    (source / "participants.tsv").write_bytes(table(["participant_id", "age", "sex"], covariates))


def scale(row: dict[str, str], factor: float) -> dict[str, str]:
    """Scale a region's volumes."""
    volumes = {
        column: f"{float(text) * factor:.3f}"
        for column, text in row.items()
        if column.endswith("volume_mm3") and text != "n/a"
    }
    return row | volumes


def run_group(source: Path, output: Path) -> tuple[float, float, float]:
    """Run the group level; its seconds, those of the CPU, and its most memory in GiB."""
    command = [
        sys.executable,
        "-m",
        "bids_app",
        source,
        output,
        "group",
        "--covariates",
        "age",
        "sex",
    ]
    start = time.perf_counter()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the group level ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, cpu, usage.ru_maxrss / 2**20


def open_page(browser: str, page: Path, images: int) -> None:
    """Open a page in a headless browser until it is drawn, and the same with an empty one."""
    with tempfile.TemporaryDirectory() as folder:
        common = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,3000"]
        common += [f"--user-data-dir={folder}/profile", f"--screenshot={folder}/page.png"]
        took, cpu = [], []
        for address in ("about:blank", "about:blank", page.resolve().as_uri()):
            start, before = time.perf_counter(), cpu_of_children()
            run_quietly([*common, address])
            took.append(time.perf_counter() - start)
            cpu.append(cpu_of_children() - before)
        dumped = [*common[:-1], "--dump-dom", page.resolve().as_uri()]
        dom = subprocess.run(dumped, capture_output=True, text=True, check=True).stdout
    drawn = f"{images:,} of {images:,} results" in dom
    print(
        f"  opened in {took[2] - took[1]:.1f} s ({cpu[2] - cpu[1]:.1f} of CPU), the browser's own "
        f"start of {took[1]:.1f} s ({cpu[1]:.1f}) not counted;",
        "all results there" if drawn else "NOT ALL RESULTS THERE",
        flush=True,
    )


def cpu_of_children() -> float:
    """Seconds of CPU that ended children took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_quietly(command: list[Any]) -> None:
    """Run a command, or say why not."""
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
