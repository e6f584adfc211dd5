"""How volumes follow known changes of a head: harmless ones, atrophy, missing anatomy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.accuracy import tables
from benchmarks.accuracy.changes import atrophy, harmless, simulated_scans, without_brainstem
from benchmarks.accuracy.deformation import DIRECTIONS
from benchmarks.accuracy.runs import ABOVE_MEDULLA, ODD, STRIPPED, UNCHANGED, Job
from benchmarks.accuracy.setup import REGIONS, Setup, job, yes_or_no
from training.cases import read_split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.accuracy.runs import Result

INTRACRANIAL = tuple(f"ds011_sub-{number:02}" for number in range(1, 9))
MILD = tuple(change.title for change in harmless() if change.mild)
STORED = tuple(title for title in MILD if title.startswith("stored"))
EXACT = (*STORED, *(title for title in MILD if title.endswith("header")))  # but for rounding
Kind = Callable[["Result"], "dict[str, float]"]
KINDS: dict[str, Kind] = {
    "volumes": lambda result: result.ml,
    "volumes of the voxels of the label map": lambda result: result.label_ml,
    "areas (mm2), diameters (mm) and the medulla's upper 20 mm": lambda result: result.shape,
}


def harmless_jobs(setup: Setup) -> list[Job]:
    """List the changes that should leave all volumes as they are."""
    changes = [change.title for change in harmless()]
    jobs = [job(setup, head, title) for head in setup.varied for title in (UNCHANGED, *changes)]
    return jobs + [job(setup, head, STRIPPED) for head in setup.masked()]


def harmless_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return a table of how much volumes change with each change of the image."""

    def differences(
        title: str, heads: Sequence[str], kind: Kind, found: Mapping[Job, Result]
    ) -> list[dict[str, float]]:
        return [
            tables.relative(kind(found[job(setup, h, title)]), kind(found[job(setup, h)]))
            for h in heads
        ]

    def table(kind: Kind) -> list[str]:
        rows: dict[str, list[list[str]]] = {}
        for found in versions:
            mild = []
            for change in harmless():
                here = differences(change.title, setup.varied, kind, found)
                # Those that must be exact would only dilute the median.
                mild += here if change.mild and change.title not in EXACT else []
                title = change.title + " (mild)" * change.mild
                rows.setdefault(title, []).append(tables.change_row(here))
            if stripped := setup.masked():
                title = f"{STRIPPED} ({len(stripped)} whole heads)"
                here = differences(STRIPPED, stripped, kind, found)
                rows.setdefault(title, []).append(tables.change_row(here))
            rows.setdefault("all mild ones except the exact", []).append(tables.change_row(mild))
        return tables.table(
            ["change", *beside(rows_of(kind, results), len(versions))],
            [
                [title, *chain.from_iterable(zip(*cells, strict=True))]
                for title, cells in rows.items()
            ],
        )

    versions = setup.versions(results)
    same = all(
        np.array_equal(results[job(setup, h, title)].labels, results[job(setup, h)].labels)
        for h in setup.varied
        for title in STORED
    )
    lines = [f"heads: {', '.join(setup.varied)}", "size of the change, %: median (worst)"]
    for title, kind in KINDS.items():
        lines += ["", f"-- {title}", *table(kind)]
    return [
        *lines,
        "",
        f"{', '.join(STORED)}: maps {'equal' if same else 'NOT equal'} voxel for voxel",
        "all 48 orders of axes give the same voxels: tests/benchmarks/accuracy/test_changes.py",
    ]


def beside(names: Sequence[str], versions: int) -> list[str]:
    """Return the heads of columns; each measure has one for each version of the app."""
    if versions == 1:
        return list(names)
    return [cell for name in names for cell in (f"before: {name}", "now")]


def rows_of(kind: Kind, results: Mapping[Job, Result]) -> list[str]:
    """Return the names of the measures of a kind."""
    return list(kind(next(iter(results.values()))))


def pairs_jobs(setup: Setup) -> list[Job]:
    """List the simulated scans of all real heads."""
    return [job(setup, head, scan.title) for head in setup.real for scan in simulated_scans()]


def pairs_lines(setup: Setup, results: Mapping[Job, Result]) -> list[str]:
    """Return a table of the change between two simulated scans of one head."""
    titles = [scan.title for scan in simulated_scans()]
    versions = setup.versions(results)
    rows = []
    for title, kind in KINDS.items():
        for name in rows_of(kind, results):
            cells = []
            for found in versions:
                pairs = [
                    [kind(found[job(setup, head, scan)])[name] for scan in pair]
                    for head in setup.real
                    for pair in zip(titles[::2], titles[1::2], strict=True)
                ]
                changes = np.array([100 * (second / first - 1) for first, second in pairs])
                known = changes[np.isfinite(changes)]
                worst = known[np.argmax(np.abs(known))]
                cells.append(
                    [f"{np.std(known, ddof=1):.2f}", f"{np.mean(known):+.2f}", f"{worst:+.2f}"]
                )
            rows.append([f"{title}: {name}", *chain.from_iterable(zip(*cells, strict=True))])
    names = ["standard deviation", "mean", "worst"]
    return [
        "each scan turned by up to 10 deg, shifted by part of a voxel, 3 % noise, 20 % bias, half "
        "with voxels of 0.7 to 1.2 mm",
        f"heads: {', '.join(setup.real)}; {len(titles) // 2} pairs each",
        "change from first to second scan, %",
        *tables.table(["", *beside(names, len(versions))], rows),
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
            soft = [f.ml[region] / base.ml[region] - 1 for f in found.values()]
            hard = [f.label_ml[region] / base.label_ml[region] - 1 for f in found.values()]
            for kind, measured in zip(fits, (soft, hard), strict=True):
                kind.append(tables.slope(true, measured))
            for title, pair in zip(found, zip(true, soft, strict=True), strict=True):
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
        *tables.table(["", "volumes", "voxels of the label map", "0.9 to 1.1"], slopes),
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
        "shrunk by 10 % in one direction: measured over true change, median (range)",
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
