"""How volumes follow what is done to a head: self_consistency, atrophy, eTIV, flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import accuracy_tables as tables
import numpy as np
from accuracy_changes import atrophy, emptied, self_consistency
from accuracy_deformation import WAYS
from accuracy_proof import REGIONS, Proof, job, yes
from accuracy_runs import ABOVE_MEDULLA, ODD, PLAIN, STRIPPED, Job

from training.cases import read_split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accuracy_runs import Result

INTRACRANIAL = tuple(f"ds011_sub-{number:02}" for number in range(1, 9))
MILD = tuple(change.title for change in self_consistency() if change.mild)
EXACT = tuple(title for title in MILD if title.startswith("stored") or title.endswith("header"))


def self_consistency_jobs(proof: Proof) -> list[Job]:
    """List the changes that should change no volume."""
    changes = [change.title for change in self_consistency()]
    jobs = [job(proof, head, title) for head in proof.steady for title in (PLAIN, *changes)]
    return jobs + [job(proof, head, STRIPPED) for head in proof.strips()]


def self_consistency_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Set the change of volumes under each change of the image."""

    def moved(title: str, heads: Sequence[str]) -> list[dict[str, float]]:
        return [
            tables.relative(results[job(proof, h, title)].ml, results[job(proof, h)].ml)
            for h in heads
        ]

    rows, mild = [], []
    for change in self_consistency():
        found = moved(change.title, proof.steady)
        # Those that must be exact would only dilute the median.
        mild += found if change.mild and change.title not in EXACT else []
        rows.append([change.title + " (mild)" * change.mild, *tables.change_row(found)])
    if stripped := proof.strips():
        title = f"{STRIPPED} ({len(stripped)} whole heads)"
        rows.append([title, *tables.change_row(moved(STRIPPED, stripped))])
    rows.append(["all mild ones but the exact", *tables.change_row(mild)])
    same = all(
        np.array_equal(results[job(proof, h, title)].labels, results[job(proof, h)].labels)
        for h in proof.steady
        for title in EXACT
    )
    return [
        "size of the change of volume, %: median (worst)",
        f"heads: {', '.join(proof.steady)}",
        *tables.table(["change", *REGIONS], rows),
        f"{', '.join(EXACT)} (exact): maps {'equal' if same else 'NOT equal'} voxel for voxel",
        "all 48 orders of axes are read as the same voxels: tests/test_accuracy.py",
    ]


def atrophy_jobs(proof: Proof) -> list[Job]:
    """Heads with a region shrunk."""
    shrunk = [c.title for way in WAYS for region in REGIONS[:-1] for c in atrophy(region, way)]
    return [job(proof, head, title) for head in proof.real for title in (PLAIN, *shrunk)]


def atrophy_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Set measured against true change, and the slopes."""
    rows, slopes = [], []
    for region in REGIONS[:-1]:
        fits: tuple[list[float], list[float]] = ([], [])
        points: dict[str, list[tuple[float, float]]] = {}
        for head in proof.real:
            base = results[job(proof, head)]
            found = {c.title: results[job(proof, head, c.title)] for c in atrophy(region)}
            true = [f.true_change for f in found.values()]
            hard = [f.ml[region] / base.ml[region] - 1 for f in found.values()]
            soft = [f.soft_ml[region] / base.soft_ml[region] - 1 for f in found.values()]
            for kind, measured in zip(fits, (hard, soft), strict=True):
                kind.append(tables.slope(true, measured))
            for title, pair in zip(found, zip(true, hard, strict=True), strict=True):
                points.setdefault(title, []).append(pair)
        for title, pairs in points.items():
            middle = [f"{100 * np.median(values):+.2f}" for values in zip(*pairs, strict=True)]
            away = max((measured - real for real, measured in pairs), key=abs)
            rows.append([title, *middle, f"{100 * away:+.2f}"])
        cells = [f"{np.median(f):.3f} ({min(f):.2f} to {max(f):.2f})" for f in fits]
        slopes.append([region, *cells, yes(0.9 <= np.median(fits[0]) <= 1.1)])
    return [
        f"change of volume, %, medians; heads: {', '.join(proof.real)}",
        *tables.table(["", "true", "measured", "furthest off"], rows),
        "",
        "slope of measured over true change: median over heads (range)",
        *tables.table(["", "voxels", "probabilities", "voxels 0.9 to 1.1"], slopes),
        "",
        *one_way_lines(proof, results),
    ]


def one_way_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Tell what is followed across and along the brainstem: its surface, and its other borders."""
    rows = []
    for region in REGIONS[:-1]:
        cells = [region]
        for way in filter(None, WAYS):
            (title,) = [change.title for change in atrophy(region, way)]
            slopes = []
            for head in proof.real:
                found, base = results[job(proof, head, title)], results[job(proof, head)]
                slopes.append((found.ml[region] / base.ml[region] - 1) / found.true_change)
            cells.append(f"{np.median(slopes):.3f} ({min(slopes):.2f} to {max(slopes):.2f})")
        rows.append(cells)
    return [
        "shrunk by 10 % one way: measured over true change, voxels, median over heads (range)",
        *tables.table(["", *filter(None, WAYS)], rows),
    ]


def etiv_jobs(proof: Proof) -> list[Job]:
    """All whole heads as they are, and some after mild changes."""
    heads = proof.whole if proof.chosen else INTRACRANIAL
    mild = [job(proof, head, title) for head in proof.whole for title in MILD]
    return [job(proof, head) for head in heads] + mild


def etiv_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Set the volume of the inside of the skull and how steady it is."""
    tests = read_split()["test"]
    rows, changes = [], []
    for head in (wanted.head for wanted in etiv_jobs(proof) if wanted.change == PLAIN):
        litres = results[job(proof, head)].intracranial_ml / 1000
        cells = [f"{litres:.3f}", yes(1.1 <= litres <= 1.9)]
        rows.append([head + " (not a test head)" * (head not in tests), *cells])
    for title in MILD:
        found = [
            tables.relative(
                {"etiv": results[job(proof, head, title)].intracranial_ml},
                {"etiv": results[job(proof, head)].intracranial_ml},
            )
            for head in proof.whole
        ]
        changes.append([title, *tables.change_row(found)])
    return [
        *tables.table(["head", "litres", "1.1 to 1.9"], rows),
        "",
        f"its change, %; heads: {', '.join(proof.whole)}",
        *tables.table(["mild change", "median (worst)"], changes),
    ]


def flags_jobs(proof: Proof) -> list[Job]:
    """Images without medulla, and without brainstem."""
    cut = [head for head in proof.real if head.startswith("ds011")]
    nothing = [change.title for change in emptied()]
    return [
        job(proof, ODD),
        *(job(proof, head, ABOVE_MEDULLA) for head in cut),
        *(job(proof, head, title) for title in nothing for head in proof.steady),
    ]


def flags_lines(proof: Proof, results: Mapping[Job, Result]) -> list[str]:
    """Set what is flagged, and whether it should be."""
    rows = []
    for wanted in flags_jobs(proof):
        found = results[wanted]
        expected = {"no_brainstem"}
        if wanted.change in (PLAIN, ABOVE_MEDULLA):
            expected |= {"out_of_view", "region_missing"}
            right = bool(expected & set(found.flags.split(", ")))
        else:
            right = "no_brainstem" in found.flags and not found.labels.any()
        cells = [wanted.change, f"{found.ml['brainstem']:.2f}", found.flags or "-", yes(right)]
        rows.append([wanted.head, *cells])
    return tables.table(["head", "image", "found, ml", "flags", "as it should"], rows)
