"""Time the group level and its page on as many images as a user may have.

The participant level is run on the heads of BIDS_DIR, or its results are taken from --results.
Their sidecars and tables are copied under other names, two sessions per participant. Each
participant's volumes are scaled by a random factor (standard deviation 8 %), and the copies get
scanners, sites, ages and dates. Then the group level runs as a user starts it, and its page is
opened in a headless browser.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.app import Result, results_of
from benchmarks.common import BIDS_APP, Output, describe_dataset, header, run, write_tsv

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

SESSIONS = 2
SITES = (("Basel", "Siemens", "Prisma", 3), ("Bern", "Philips", "Achieva", 3),
         ("Zurich", "GE", "Signa HDxt", 1.5))  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[2000])
    parser.add_argument("--results", type=Path, help="existing results of BIDS_DIR")
    parser.add_argument("--browser", default="", help="command of Chromium or Chrome")
    parser.add_argument("--keep", type=Path, help="folder for the pages")


def main(options: argparse.Namespace) -> None:
    """Print what each size took."""
    with Output(options.out) as out, tempfile.TemporaryDirectory() as folder:
        results = options.results
        if results is None:
            results = Path(folder, "results")
            words = [options.bids_dir.resolve(), results, "participant", "--skip-bids-validation"]
            run([*BIDS_APP, *words])
        originals = results_of(results)
        models = sorted({original.model for original in originals})
        out(*header(", ".join(models), packages=("pandas",)))
        out(f"copies of {len(originals)} images")
        for images in options.images:
            source, output = Path(folder, f"bids_{images}"), Path(folder, f"out_{images}")
            copy_results(originals, source, output, images)
            out("", f"{images:,} images")
            words = [source, output, "group", "--covariates", "age", "sex"]
            cost = run([*BIDS_APP, *words])
            out(f"  group level: {cost.wall:.1f} s ({cost.cpu:.1f} of CPU), {cost.gib:.2f} GiB")
            for name in ("group_volumes.tsv", "group_longitudinal.tsv", "group.html"):
                out(f"  {name}: {(output / name).stat().st_size / 1e6:.1f} MB")
            if options.browser:
                open_page(out, options.browser, output / "group.html", images)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                page = (output / "group.html").read_bytes()
                (options.keep / f"group_{images}.html").write_bytes(page)


def copy_results(originals: Sequence[Result], source: Path, output: Path, images: int) -> None:
    """Make a dataset and results of that many images, without images.

    Parameters
    ----------
    originals : sequence of Result
        Results to copy, in turn.
    source, output : Path
        The dataset and the folder of results; both are made.
    images : int
        At least this number.
    """
    rng = np.random.default_rng(0)
    people = -(-images // SESSIONS)
    describe_dataset(source, "Copies")
    describe_dataset(
        output,
        "Copies",
        GeneratedBy=[{"Name": "brainstem BIDS App"}],
        DatasetLinks={"raw": os.path.relpath(source, output)},
    )
    covariates = []
    for number in range(people):
        person = f"sub-{number:05d}"
        covariates.append([person, f"{rng.uniform(20, 80):.0f}", "FM"[number % 2]])
        factor = rng.normal(1, 0.08)
        original = originals[number % len(originals)]
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
            write_tsv(raw.parent / f"{stem}_scans.tsv", ["filename", "acq_time"], lines)
            anat = output / person / session / "anat"
            anat.mkdir(parents=True)
            path = f"{person}/{session}/anat/{stem}_T1w.nii.gz"
            content = original.sidecar | {"Sources": [f"bids:raw:{path}"]}
            prefix = f"{stem}_seg-{original.label}"
            (anat / f"{prefix}_dseg.json").write_text(json.dumps(content, indent=2))
            scaled = [scale(row, factor * rng.normal(1, 0.01)) for row in original.volumes]
            cells = [list(row.values()) for row in scaled]
            write_tsv(anat / f"{prefix}_volumes.tsv", list(scaled[0]), cells)
        (output / f"{person}.html").write_text("<!DOCTYPE html><title>copy</title>")
    write_tsv(source / "participants.tsv", ["participant_id", "age", "sex"], covariates)


def scale(row: dict[str, str], factor: float) -> dict[str, str]:
    """Scale the volumes of a row."""
    volumes = {
        column: f"{float(text) * factor:.3f}"
        for column, text in row.items()
        if column.endswith("volume_mm3") and text != "n/a"
    }
    return row | volumes


def open_page(out: Output, browser: str, page: Path, images: int) -> None:
    """Time a headless browser until it has drawn a page; an empty page is subtracted."""
    with tempfile.TemporaryDirectory() as folder:
        common = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,3000"]
        common += [f"--user-data-dir={folder}/profile", f"--screenshot={folder}/page.png"]
        took, cpu = [], []
        for address in ("about:blank", "about:blank", page.resolve().as_uri()):
            start, before = time.perf_counter(), cpu_of_children()
            subprocess.run([*common, address], check=True, capture_output=True)
            took.append(time.perf_counter() - start)
            cpu.append(cpu_of_children() - before)
        dumped = [*common[:-1], "--dump-dom", page.resolve().as_uri()]
        dom = subprocess.run(dumped, capture_output=True, text=True, check=True).stdout
    drawn = f"{images:,} of {images:,} results" in dom
    out(
        f"  opened in {took[2] - took[1]:.1f} s ({cpu[2] - cpu[1]:.1f} of CPU), the browser's own "
        f"start of {took[1]:.1f} s ({cpu[1]:.1f}) not counted; "
        + ("all results there" if drawn else "NOT ALL RESULTS THERE")
    )


def cpu_of_children() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
