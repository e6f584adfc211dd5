"""Prove the open model: agreement, self_consistency, atrophy, eTIV, flags, other training runs.

    python benchmarks/accuracy.py --data DATA --out benchmarks/accuracy.txt
        [--model M] [--second M] [--left-out ds011=M --left-out ds002748=M]
        [--registered FOLDER] [--kept FOLDER] [--pictures FOLDER] [--only PART ...]

Everything runs end to end as the app runs an image, on the heads of the test part of
`training/split.toml` (eTIV: on all whole heads). ``--registered`` holds the brain masks
that `accuracy_registered.py` made; the scores of plain registration are in
``accuracy_registered.tsv``. Results are kept in ``--kept``, so that a run that was stopped goes on;
with all parts about 240 images of 2 to 5 seconds each on one core. Writes the tables to ``--out``
and, with the part agreement, the volumes as a picture beside it (``..._volumes.png``).
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import accuracy_agreement as maps  # noqa: E402
import accuracy_volumes as volumes  # noqa: E402
import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import scipy  # noqa: E402
import torch  # noqa: E402
from accuracy_pictures import draw_contours, draw_volumes  # noqa: E402
from accuracy_proof import Proof  # noqa: E402
from accuracy_runs import PLAIN, Job, Places, load_model, read_head, run  # noqa: E402
from end_to_end import machine  # noqa: E402

from bids_app import __version__  # noqa: E402

# Title, the images it needs, and its lines.
PARTS = {
    "agreement": ("Agreement with the labels of docs/labels.md", maps.agreement_jobs),
    "self_consistency": ("Steadiness", volumes.self_consistency_jobs),
    "atrophy": ("Known atrophy", volumes.atrophy_jobs),
    "etiv": ("Estimated intracranial volume", volumes.etiv_jobs),
    "flags": ("Images without medulla or brainstem", volumes.flags_jobs),
    "second": ("Maps of two training runs", maps.second_jobs),
    "left-out": ("Datasets left out of training", maps.left_out_jobs),
    "cost": ("Seconds and memory an image", maps.agreement_jobs),
}
LINES = {
    "self_consistency": volumes.self_consistency_lines,
    "atrophy": volumes.atrophy_lines,
    "etiv": volumes.etiv_lines,
    "flags": volumes.flags_lines,
    "second": maps.second_lines,
    "left-out": maps.left_out_lines,
    "cost": maps.cost_lines,
}
WORST = 3


def main() -> None:
    """Run what is missing and write the tables."""
    options = parse()
    places = Places(options.data, options.registered, options.kept)
    left_out = dict(pair.split("=", 1) for pair in options.left_out)
    proof = Proof(options.model, options.second, left_out, tuple(options.heads or ()), places)
    chosen = [name for name in PARTS if name in (options.only or PARTS)]
    jobs = [job for name in chosen for job in PARTS[name][1](proof)]
    print(f"{len(set(jobs))} images")
    results = run(jobs, places, options.processes)
    lines = head_lines(proof)
    for name in chosen:
        lines += ["", f"== {PARTS[name][0]}"]
        if name == "agreement":
            scores = maps.score_heads(proof, results, proof.model)
            lines += maps.agreement_lines(proof, scores, maps.read_registered(proof))
            draw_volumes(
                {head: rows for head, rows in scores.items() if head in proof.sound},
                options.out.with_name(f"{options.out.stem}_volumes.png"),
            )
            if options.pictures:
                options.pictures.mkdir(parents=True, exist_ok=True)
                worst = sorted(proof.sound, key=lambda head: min(r["dice"] for r in scores[head]))
                for head in worst[:WORST]:
                    labels = results[Job(head, PLAIN, proof.model)].labels
                    path = options.pictures / f"{head}.png"
                    draw_contours(read_head(head, places.data), labels, path)
        else:
            lines += LINES[name](proof, results)
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data")
    parser.add_argument("--out", type=Path, required=True, help="text file to write")
    parser.add_argument("--model", default="open", help="name or folder; default: open")
    parser.add_argument("--second", default="", help="a model of another training run")
    parser.add_argument(
        "--left-out", action="append", default=[], metavar="SOURCE=FOLDER",
        help="a model trained without a dataset",
    )  # fmt: skip
    parser.add_argument("--registered", type=Path, help="what accuracy_registered.py made")
    parser.add_argument("--kept", type=Path, default=Path("accuracy_kept"), help="results")
    parser.add_argument("--pictures", type=Path, help="folder for the worst heads")
    parser.add_argument("--heads", nargs="+", help="limit all parts to these test heads")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="default: all parts")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")
    return parser.parse_args()


def head_lines(proof: Proof) -> list[str]:
    """Tell date, machine, versions and models."""
    versions = {"numpy": np, "scipy": scipy, "torch": torch, "nibabel": nib}
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}",
        f"bids_app {__version__}, "
        + ", ".join(f"{name} {module.__version__}" for name, module in versions.items()),
    ]
    asked = {"model": proof.model, "second": proof.second} | {
        f"without {source}": model for source, model in proof.left_out.items()
    }
    for role, name in asked.items():
        if name:
            model = load_model(name)
            lines.append(f"{role}: {model.label} {model.version}, SHA-256 {model.sha256}")
    lines.append("labels: training/labels_v1, by registration alone; made by no network")
    return lines


if __name__ == "__main__":
    main()
