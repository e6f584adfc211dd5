"""Evaluate the open model: agreement, robustness, atrophy, eTIV, flags, other training runs.

Images are segmented as the app does, on the heads of the test part of `training/split.toml` (eTIV:
on all whole heads). ``--registered`` is the folder with the brain masks of ``accuracy register``;
the scores of plain registration are read from ``accuracy_registered.tsv``. Results are kept in
``--kept``: re-run the same command to resume. All parts together take about 240 images of 2 to 5
seconds each on one core. Beside ``--out``, the part "agreement" writes a figure of the volumes
(``..._volumes.png``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy import agreement, robustness
from benchmarks.accuracy.figures import draw_contours, draw_volumes
from benchmarks.accuracy.runs import UNCHANGED, Folders, Job, Result, read_head, read_kept, run
from benchmarks.accuracy.setup import Setup
from benchmarks.app import find_model
from benchmarks.common import Output, header

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

# Part: title, the images that it needs, and its lines.
PARTS: dict[
    str,
    tuple[
        str,
        Callable[[Setup], list[Job]],
        Callable[[Setup, Mapping[Job, Result]], list[str]],
    ],
] = {
    "agreement": (
        "Agreement with the labels of docs/labels.md",
        agreement.agreement_jobs,
        agreement.agreement_lines,
    ),
    "robustness": (
        "Robustness to changes that should leave volumes as they are",
        robustness.harmless_jobs,
        robustness.harmless_lines,
    ),
    "pairs": (
        "Pairs of simulated scans of one head",
        robustness.pairs_jobs,
        robustness.pairs_lines,
    ),
    "atrophy": ("Known atrophy", robustness.atrophy_jobs, robustness.atrophy_lines),
    "etiv": ("Estimated intracranial volume", robustness.etiv_jobs, robustness.etiv_lines),
    "flags": (
        "Images without medulla or brainstem",
        robustness.flags_jobs,
        robustness.flags_lines,
    ),
    "second": ("Maps of two training runs", agreement.second_jobs, agreement.second_lines),
    "left-out": (
        "Datasets left out of training",
        agreement.left_out_jobs,
        agreement.left_out_lines,
    ),
    "cost": ("Seconds and memory per image", agreement.agreement_jobs, agreement.cost_lines),
}
WORST = 3  # heads to draw


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data")
    parser.add_argument("--model", default="open", help="name or folder; default: open")
    parser.add_argument("--second", default="", help="a model from another training run")
    parser.add_argument(
        "--left-out", action="append", default=[], metavar="SOURCE=MODEL",
        help="a model trained without a dataset; may be repeated",
    )  # fmt: skip
    parser.add_argument("--registered", type=Path, help="folder of `accuracy register --maps`")
    parser.add_argument("--kept", type=Path, default=Path("accuracy_kept"), help="kept results")
    parser.add_argument(
        "--before", type=Path, help="results kept by another version of the app, to show beside"
    )
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the worst heads")
    parser.add_argument("--heads", nargs="+", help="limit all parts to these test heads")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="default: all parts")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")


def main(options: argparse.Namespace) -> None:
    """Run what is missing, and print the tables."""
    folders = Folders(options.data, options.registered, options.kept)
    left_out = dict(pair.split("=", 1) for pair in options.left_out)
    setup = Setup(options.model, options.second, left_out, tuple(options.heads or ()), folders)
    chosen = [name for name in PARTS if name in (options.only or PARTS)]
    jobs = [job for name in chosen for job in PARTS[name][1](setup)]
    print(f"{len(set(jobs))} images")
    results = run(jobs, folders, options.processes)
    if options.before:
        setup = replace(setup, before=read_kept(set(jobs), folders, options.before))
    with Output(options.out) as out:
        out(*header_lines(setup))
        for name in chosen:
            title, _, lines = PARTS[name]
            out("", f"== {title}", *lines(setup, results))
    if "agreement" in chosen:
        scores = agreement.score_heads(setup, results, setup.model)
        if options.out:
            draw_volumes(
                {head: rows for head, rows in scores.items() if head in setup.sound},
                options.out.with_name(f"{options.out.stem}_volumes.png"),
            )
        if options.pictures:
            draw_worst(setup, scores, results, options.pictures)


def draw_worst(
    setup: Setup,
    scores: Mapping[str, Sequence[Mapping[str, Any]]],
    results: Mapping[Job, Result],
    folder: Path,
) -> None:
    """Draw the heads with the lowest Dice of a region."""
    folder.mkdir(parents=True, exist_ok=True)
    worst = sorted(setup.sound, key=lambda head: min(row["dice"] for row in scores[head]))
    for head in worst[:WORST]:
        labels = results[Job(head, UNCHANGED, setup.model)].labels
        draw_contours(read_head(head, setup.folders.data), labels, folder / f"{head}.png")


def header_lines(setup: Setup) -> list[str]:
    """Return date, machine, versions and models."""
    roles = {"": setup.model, "second: ": setup.second} | {
        f"without {source}: ": model for source, model in setup.left_out.items()
    }
    models = []
    for role, name in roles.items():
        if name:
            model = find_model(name)
            models.append(f"{role}{model.label} {model.version}, SHA-256 {model.sha256}")
    packages = ("numpy", "scipy", "torch", "nibabel")
    return [
        *header("\n".join(models), packages=packages),
        "labels: training/labels_v1, by registration alone, without any network",
    ]
