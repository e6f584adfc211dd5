"""How volumes follow known changes of a head: harmless ones, atrophy, missing anatomy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.accuracy import tables
from benchmarks.accuracy.changes import atrophy, harmless, without_brainstem
from benchmarks.accuracy.deformation import DIRECTIONS
from benchmarks.accuracy.runs import ABOVE_MEDULLA, ODD, STRIPPED, UNCHANGED, Job
from benchmarks.accuracy.setup import REGIONS, Setup, job, yes_or_no
from training.cases import read_split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.accuracy.runs import Result

INTRACRANIAL = tuple(f"ds011_sub-{number:02}" for number in range(1, 9))
MILD = tuple(change.title for change in harmless() if change.mild)
EXACT = tuple(title for title in MILD if title.startswith("stored") or title.endswith("header"))


def harmless_jobs(setup: Setup) -> list[Job]:
    """List the changes that should leave all volumes as they are."""
    changes = [change.title for change in harmless()]
    jobs = [job(setup, head, title) for head in setup.varied for title in (UNCHANGED, *changes)]
    return jobs + [job(setup, head, STRIPPED) for head in setup.masked()]


def harmless_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return a table of how much volumes change with each change of the image."""

    def differences(title: str, heads: Sequence[str]) -> list[dict[str, float]]:
        return [
            tables.relative(results[job(setup, h, title)].ml, results[job(setup, h)].ml)
            for h in heads
        ]

    rows, mild = [], []
    for change in harmless():
        found = differences(change.title, setup.varied)
        # Those that must be exact would only dilute the median.
        mild += found if change.mild and change.title not in EXACT else []
        rows.append([change.title + " (mild)" * change.mild, *tables.change_row(found)])
    if stripped := setup.masked():
        title = f"{STRIPPED} ({len(stripped)} whole heads)"
        rows.append([title, *tables.change_row(differences(STRIPPED, stripped))])
    rows.append(["all mild ones except the exact", *tables.change_row(mild)])
    same = all(
        np.array_equal(results[job(setup, h, title)].labels, results[job(setup, h)].labels)
        for h in setup.varied
        for title in EXACT
    )
    return [
        "size of the change of volume, %: median (worst)",
        f"heads: {', '.join(setup.varied)}",
        *tables.table(["change", *REGIONS], rows),
        f"{', '.join(EXACT)} (exact): maps {'equal' if same else 'NOT equal'} voxel for voxel",
        "all 48 orders of axes give the same voxels: tests/benchmarks/accuracy/test_changes.py",
    ]


def atrophy_jobs(setup: Setup) -> list[Job]:
    """List the heads with a region shrunk."""
    shrunk = [
        c.title
        for direction in DIRECTIONS
        for region in REGIONS[:-1]
        for c in atrophy(region, direction)
    ]
    return [job(setup, head, title) for head in setup.real for title in (UNCHANGED, *shrunk)]


def atrophy_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return tables of measured against true change, and of the slopes."""
    rows, slopes = [], []
    for region in REGIONS[:-1]:
        fits: tuple[list[float], list[float]] = ([], [])
        points: dict[str, list[tuple[float, float]]] = {}
        for head in setup.real:
            base = results[job(setup, head)]
            found = {c.title: results[job(setup, head, c.title)] for c in atrophy(region)}
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
        slopes.append([region, *cells, yes_or_no(0.9 <= np.median(fits[0]) <= 1.1)])
    return [
        f"change of volume, %, medians; heads: {', '.join(setup.real)}",
        *tables.table(["", "true", "measured", "largest error"], rows),
        "",
        "slope of measured over true change: median over heads (range)",
        *tables.table(["", "voxels", "probabilities", "voxels 0.9 to 1.1"], slopes),
        "",
        *direction_lines(setup, results),
    ]


def direction_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return a table of atrophy across the brainstem only, and along it only.

    Across moves the outer surface; along moves the borders with neighbouring regions.
    """
    rows = []
    for region in REGIONS[:-1]:
        cells = [region]
        for direction in filter(None, DIRECTIONS):
            (title,) = [change.title for change in atrophy(region, direction)]
            slopes = []
            for head in setup.real:
                found, base = results[job(setup, head, title)], results[job(setup, head)]
                slopes.append((found.ml[region] / base.ml[region] - 1) / found.true_change)
            cells.append(f"{np.median(slopes):.3f} ({min(slopes):.2f} to {max(slopes):.2f})")
        rows.append(cells)
    return [
        "shrunk by 10 % in one direction: measured over true change, voxels, median (range)",
        *tables.table(["", *filter(None, DIRECTIONS)], rows),
    ]


def etiv_jobs(setup: Setup) -> list[Job]:
    """List the whole heads, and some of them after mild changes."""
    heads = setup.whole if setup.chosen else INTRACRANIAL
    mild = [job(setup, head, title) for head in setup.whole for title in MILD]
    return [job(setup, head) for head in heads] + mild


def etiv_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return tables of the intracranial volume, and of its change after mild changes."""
    tests = read_split()["test"]
    rows, changes = [], []
    for head in (wanted.head for wanted in etiv_jobs(setup) if wanted.change == UNCHANGED):
        litres = results[job(setup, head)].intracranial_ml / 1000
        cells = [f"{litres:.3f}", yes_or_no(1.1 <= litres <= 1.9)]
        rows.append([head + " (not a test head)" * (head not in tests), *cells])
    for title in MILD:
        found = [
            tables.relative(
                {"etiv": results[job(setup, head, title)].intracranial_ml},
                {"etiv": results[job(setup, head)].intracranial_ml},
            )
            for head in setup.whole
        ]
        changes.append([title, *tables.change_row(found)])
    return [
        *tables.table(["head", "litres", "1.1 to 1.9"], rows),
        "",
        f"its change, %; heads: {', '.join(setup.whole)}",
        *tables.table(["mild change", "median (worst)"], changes),
    ]


def flags_jobs(setup: Setup) -> list[Job]:
    """List images without medulla, and without brainstem."""
    cut = [head for head in setup.real if head.startswith("ds011")]
    nothing = [change.title for change in without_brainstem()]
    return [
        job(setup, ODD),
        *(job(setup, head, ABOVE_MEDULLA) for head in cut),
        *(job(setup, head, title) for title in nothing for head in setup.varied),
    ]


def flags_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return a table of flags, and whether they are as expected."""
    rows = []
    for wanted in flags_jobs(setup):
        found = results[wanted]
        expected = {"no_brainstem"}
        if wanted.change in (UNCHANGED, ABOVE_MEDULLA):
            expected |= {"out_of_view", "region_missing"}
            right = bool(expected & set(found.flags.split(", ")))
        else:
            right = "no_brainstem" in found.flags and not found.labels.any()
        cells = [
            wanted.change,
            f"{found.ml['brainstem']:.2f}",
            found.flags or "-",
            yes_or_no(right),
        ]
        rows.append([wanted.head, *cells])
    return tables.table(["head", "image", "found, ml", "flags", "as expected"], rows)
