"""Agreement of label maps with the labels, with another training run, on datasets left out."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy import tables
from benchmarks.accuracy.runs import UNCHANGED, Job, read_head
from benchmarks.accuracy.setup import REGIONS, Setup, job, yes_or_no
from benchmarks.common import OUTPUTS
from training.evaluate import VALUES, dice, score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.accuracy.runs import Result

MEASURES = {
    "Dice, all voxels": ("dice", 3),
    "Dice without the voxels in doubt": ("dice_sure", 3),
    "95 % Hausdorff distance, mm": ("hd95_mm", 2),
    "signed distance of the borders, mm (positive: outside the label)": ("outwards_mm", 2),
}
AIMED_DICE, LOWEST_DICE = (0.90, 0.90, 0.90, 0.93), 0.80
GROUPS = {
    "ds011": "ds011_",
    "ds002748": "ds002748_",
    "real heads": "ds",
    "maps": "synthseg_",
    "all": "",
}


def agreement_jobs(setup: Setup) -> list[Job]:
    """List the test heads, unchanged."""
    return [job(setup, head) for head in setup.tests]


def score_heads(setup: Setup, results: Mapping[Job, Result], model: str) -> dict[str, Any]:
    """Score the test heads that a model was run on; return rows of `score` by head."""
    found = {}
    for name in setup.tests:
        if (wanted := Job(name, UNCHANGED, model)) in results:
            head = read_head(name, setup.folders.data)
            labels = results[wanted].labels
            found[name] = score(labels, head.truth, head.loose, head.volume.voxel_size)
    return found


def read_registered(setup: Setup) -> dict[str, Any]:
    """Read the scores of labels propagated from other heads; return rows by head."""
    found: dict[str, Any] = {}
    with (OUTPUTS / "accuracy_registered.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["head"] in setup.tests:
                scores = {key: float(row[key]) for key, _ in MEASURES.values()}
                found.setdefault(row["head"], []).append(scores)
    return found


def agreement_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return tables of the scores of all heads, of plain registration, and of the medians."""
    scores, plain = score_heads(setup, results, setup.model), read_registered(setup)
    lines = [
        "plain: labels of a training head of the same source, propagated by a single registration",
        "(python -m benchmarks accuracy register). They share definition and method with the",
        "labels that they are scored against, which favours them over any network.",
        "-: no labels were propagated to this head",
    ]
    for title, (key, digits) in MEASURES.items():
        rows = []
        for name in scores:
            cells = [f"{row[key]:.{digits}f}" for row in scores[name]]
            other = (
                [f"{row[key]:.{digits}f}" for row in plain[name]] if name in plain else ["-"] * 4
            )
            rows.append([setup.marked(name), *cells, *other])
        head = ["head", *REGIONS, *(f"plain {name}" for name in REGIONS)]
        lines += ["", title, *tables.table(head, rows)]
    rows = [
        [setup.marked(name), *(f"{row['found_ml']:.2f} / {row['label_ml']:.2f}" for row in found)]
        for name, found in scores.items()
    ]
    lines += ["", "volumes, ml: model / label", *tables.table(["head", *REGIONS], rows)]
    for name in scores.keys() & setup.faulty.keys():
        lines += [
            "",
            f"* the labels of {name} fail their own check ({setup.faulty[name]}); its row is shown "
            "but does not count in any median",
        ]
    lines += ["", "medians over heads [95 % bootstrap interval] worst"]
    rows = []
    for title, (key, digits) in MEASURES.items():
        for group, start in GROUPS.items():
            for who, rated in (("model", scores), ("plain", plain)):
                heads = [n for n in rated if n in setup.sound and n.startswith(start)]
                if heads:
                    kind = f"{title.split(' (')[0]}: {group} ({len(heads)}), {who}"
                    rows.append([kind, *median_cells(rated, heads, key, digits)])
    lines += tables.table(["", *REGIONS], rows)
    return [*lines, "", *aims(scores, setup.sound)]


def aims(scores: Mapping[str, Any], heads: Sequence[str]) -> list[str]:
    """Return a table of the aims for Dice on all voxels, met or not."""
    columns = np.array([[row["dice"] for row in scores[name]] for name in heads])
    rows = [
        [
            name,
            f"{aim:.2f}",
            yes_or_no(np.median(column) >= aim),
            yes_or_no(column.min() >= LOWEST_DICE),
        ]
        for name, aim, column in zip(REGIONS, AIMED_DICE, columns.T, strict=True)
    ]
    return tables.table(["Dice, all voxels", "aim", "median", f"no head below {LOWEST_DICE}"], rows)


def median_cells(
    scores: Mapping[str, Any], heads: Sequence[str], key: str, digits: int
) -> list[str]:
    """Return the median over heads for each region."""
    columns = [[scores[name][i][key] for name in heads] for i in range(len(REGIONS))]
    lowest = key.startswith("dice")
    return [tables.median_row(column, digits, lowest=lowest) for column in columns]


def second_jobs(setup: Setup) -> list[Job]:
    """List the test heads with both models."""
    models = (setup.model, setup.second) if setup.second else ()
    return [Job(head, UNCHANGED, model) for head in setup.tests for model in models]


def second_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return a table of the overlap of two models' maps."""
    if not setup.second:
        return ["not run: no --second"]
    rows, columns = [], []
    for head in setup.tests:
        a, b = (results[Job(head, UNCHANGED, m)].labels for m in (setup.model, setup.second))
        everywhere = np.ones(a.shape, bool)
        found = [dice(np.isin(a, v), np.isin(b, v), everywhere) for v in VALUES.values()]
        rows.append([head, *(f"{value:.3f}" for value in found)])
        columns.append(found)
    medians = [tables.median_row(values, 3) for values in zip(*columns, strict=True)]
    return tables.table(["Dice", *REGIONS], [*rows, ["median [95 % interval] lowest", *medians]])


def left_out_jobs(setup: Setup) -> list[Job]:
    """List the test heads of each dataset, with the model that was trained without it."""
    return [
        Job(head, UNCHANGED, model)
        for source, model in setup.left_out.items()
        for head in setup.tests
        if head.startswith(f"{source}_")
    ]


def left_out_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return a table of Dice on each dataset that was left out."""
    if not setup.left_out:
        return ["not run: no --left-out"]
    rows = []
    for source, model in setup.left_out.items():
        scores = score_heads(setup, results, model)
        own = {name: found for name, found in scores.items() if name.startswith(f"{source}_")}
        for name, found in own.items():
            pairs = [f"{row['dice']:.3f} ({row['dice_sure']:.3f})" for row in found]
            rows.append([setup.marked(name), *pairs])
        if sound := [name for name in own if name in setup.sound]:
            rows += [
                [f"{source} median, {key}", *median_cells(own, sound, key, 3)]
                for key in ("dice", "dice_sure")
            ]
    return [
        "Dice on all voxels (without those in doubt); median [95 % interval] lowest",
        *tables.table(["head", *REGIONS], rows),
    ]


def cost_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return the seconds of the runs above, and those of the whole command."""
    seconds = [results[wanted].seconds for wanted in agreement_jobs(setup)]
    timed = (OUTPUTS / "end_to_end.txt").read_text().splitlines()
    return [
        f"CPU time from voxels to labels on one thread: median {np.median(seconds):.1f} s, "
        f"{min(seconds):.1f} to {max(seconds):.1f} ({len(seconds)} images)",
        "the whole command on two cores, from end_to_end.txt:",
        *(
            f"  {line}"
            for line in timed
            if line.startswith(("2", "bids_app", "model", "start", "CPU"))
        ),
    ]
