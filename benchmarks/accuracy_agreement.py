"""How far maps agree: with the labels, with another training run, on datasets left out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accuracy_tables as tables
import numpy as np
from accuracy_proof import REGIONS, Proof, job, yes
from accuracy_runs import PLAIN, Job, read_head

from training.evaluate import VALUES, dice, score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accuracy_runs import Result

MEASURES = {
    "Dice, all voxels": ("dice", 3),
    "Dice without the voxels in doubt": ("dice_sure", 3),
    "95 % Hausdorff distance, mm": ("hd95_mm", 2),
    "signed distance of the borders, mm (positive: outside the label)": ("outwards_mm", 2),
}
AIMED_DICE, LEAST_DICE = (0.90, 0.90, 0.90, 0.93), 0.80
GROUPS = {
    "ds011": "ds011_",
    "ds002748": "ds002748_",
    "real heads": "ds",
    "maps": "synthseg_",
    "all": "",
}


def agreement_jobs(proof: Proof) -> list[Job]:
    """Test heads as they are."""
    return [job(proof, head) for head in proof.tests]


def score_heads(proof: Proof, results: Mapping[Job, Result], model: str) -> dict[str, Any]:
    """Score the test heads that a model was run on; rows of `score` by head."""
    found = {}
    for name in proof.tests:
        if (wanted := Job(name, PLAIN, model)) in results:
            head = read_head(name, proof.places.data)
            labels = results[wanted].labels
            found[name] = score(labels, head.truth, head.loose, head.volume.voxel_size)
    return found


def read_registered(proof: Proof) -> dict[str, Any]:
    """Read the scores of the labels that were carried over from other heads; rows by head."""
    found: dict[str, Any] = {}
    with Path(__file__).with_name("accuracy_registered.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["head"] in proof.tests:
                scores = {key: float(row[key]) for key, _ in MEASURES.values()}
                found.setdefault(row["head"], []).append(scores)
    return found


def agreement_lines(proof: Proof, scores: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    """Set the scores of all heads, model and plain propagation side by side, and the medians."""
    lines = [
        "plain: the labels of a training head of the same source, carried over by one registration",
        "(accuracy_registered.py). They share the definition of the labels that they are scored",
        "against, and registration as the method, which favours them beside any network.",
        "-: no labels were carried over to this one",
    ]
    for title, (key, digits) in MEASURES.items():
        rows = []
        for name in scores:
            cells = [f"{row[key]:.{digits}f}" for row in scores[name]]
            other = (
                [f"{row[key]:.{digits}f}" for row in plain[name]] if name in plain else ["-"] * 4
            )
            rows.append([proof.marked(name), *cells, *other])
        head = ["head", *REGIONS, *(f"plain {name}" for name in REGIONS)]
        lines += ["", title, *tables.table(head, rows)]
    rows = [
        [proof.marked(name), *(f"{row['found_ml']:.2f} / {row['label_ml']:.2f}" for row in found)]
        for name, found in scores.items()
    ]
    lines += ["", "volumes, ml: model / label", *tables.table(["head", *REGIONS], rows)]
    for name in scores.keys() & proof.faulty.keys():
        lines += [
            "",
            f"* the labels of {name} fail their own check ({proof.faulty[name]}); its row",
        ]
        lines[-1] += " is shown and counts in no median"
    lines += ["", "medians over heads [95 % bootstrap interval] worst"]
    rows = []
    for title, (key, digits) in MEASURES.items():
        for group, start in GROUPS.items():
            for who, rated in (("model", scores), ("plain", plain)):
                heads = [n for n in rated if n in proof.sound and n.startswith(start)]
                if heads:
                    kind = f"{title.split(' (')[0]}: {group} ({len(heads)}), {who}"
                    rows.append([kind, *median_cells(rated, heads, key, digits)])
    lines += tables.table(["", *REGIONS], rows)
    return [*lines, "", *aims(scores, proof.sound)]


def aims(scores: Mapping[str, Any], heads: Sequence[str]) -> list[str]:
    """Tell whether the aims for Dice on all voxels are met."""
    columns = np.array([[row["dice"] for row in scores[name]] for name in heads])
    rows = [
        [name, f"{aim:.2f}", yes(np.median(column) >= aim), yes(column.min() >= LEAST_DICE)]
        for name, aim, column in zip(REGIONS, AIMED_DICE, columns.T, strict=True)
    ]
    return tables.table(["Dice, all voxels", "aim", "median", f"no head below {LEAST_DICE}"], rows)


def median_cells(
    scores: Mapping[str, Any], heads: Sequence[str], key: str, digits: int
) -> list[str]:
    """Write the median of each region over heads."""
    columns = [[scores[name][i][key] for name in heads] for i in range(len(REGIONS))]
    least = key.startswith("dice")
    return [tables.median_row(column, digits, least=least) for column in columns]


def second_jobs(proof: Proof) -> list[Job]:
    """Test heads with both models."""
    models = (proof.model, proof.second) if proof.second else ()
    return [Job(head, PLAIN, model) for head in proof.tests for model in models]


def second_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Set the overlap of two models' maps."""
    if not proof.second:
        return ["not run: no --second"]
    rows, columns = [], []
    for head in proof.tests:
        a, b = (results[Job(head, PLAIN, m)].labels for m in (proof.model, proof.second))
        everywhere = np.ones(a.shape, bool)
        found = [dice(np.isin(a, v), np.isin(b, v), everywhere) for v in VALUES.values()]
        rows.append([head, *(f"{value:.3f}" for value in found)])
        columns.append(found)
    medians = [tables.median_row(values, 3) for values in zip(*columns, strict=True)]
    return tables.table(["Dice", *REGIONS], [*rows, ["median [95 % interval] least", *medians]])


def left_out_jobs(proof: Proof) -> list[Job]:
    """Test heads of a dataset with the model that was trained without it."""
    return [
        Job(head, PLAIN, model)
        for source, model in proof.left_out.items()
        for head in proof.tests
        if head.startswith(f"{source}_")
    ]


def left_out_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Set Dice on the dataset that was left out."""
    if not proof.left_out:
        return ["not run: no --left-out"]
    rows = []
    for source, model in proof.left_out.items():
        scores = score_heads(proof, results, model)
        own = {name: found for name, found in scores.items() if name.startswith(f"{source}_")}
        for name, found in own.items():
            pairs = [f"{row['dice']:.3f} ({row['dice_sure']:.3f})" for row in found]
            rows.append([proof.marked(name), *pairs])
        if sound := [name for name in own if name in proof.sound]:
            rows += [
                [f"{source} median, {key}", *median_cells(own, sound, key, 3)]
                for key in ("dice", "dice_sure")
            ]
    return [
        "Dice on all voxels (without those in doubt); medians [95 % interval] least",
        *tables.table(["head", *REGIONS], rows),
    ]


def cost_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Tell the seconds of the runs above, and what the whole command was measured to take."""
    seconds = [results[wanted].seconds for wanted in agreement_jobs(proof)]
    timed = Path(__file__).with_name("end_to_end.txt").read_text().splitlines()
    return [
        f"processor time from voxels to labels on one thread: median {np.median(seconds):.1f} s, "
        f"{min(seconds):.1f} to {max(seconds):.1f} ({len(seconds)} images)",
        "the whole command on two cores, from end_to_end.txt:",
        *(f"  {line}" for line in timed if line.startswith(("2", "bids_app", "start", "CPU"))),
    ]
