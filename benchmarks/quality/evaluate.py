"""How well quality measures find bad results: heads made worse on purpose, and ROC curves.

Heads are worsened in known ways (`benchmarks.quality.faults`). A result is bad if its Dice with the
result of the undisturbed head, mean over the three regions, is below 0.9. Thresholds are set on
heads of the training and validation parts of `training/split.toml`, and tested on heads of the test
part and one head of no part. Results are kept in ``--kept``: re-run the same command to resume.
About 320 images of 2 to 4 seconds each on one core. Images that the app refuses are counted apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.app import CHECKS, reapply_thresholds
from benchmarks.common import Output, header, model_version
from benchmarks.quality.curves import (
    BAD,
    MAIN,
    MEASURES,
    PREVALENCES,
    accepted,
    area,
    bad,
    interval,
    overlap,
    rates,
    warned_by,
)
from benchmarks.quality.faults import all_faults
from benchmarks.quality.runs import UNDISTURBED, Run, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

TUNING = ("ds011_sub-01", "ds002748_sub-01", "ds011_sub-05", "ds002748_sub-12", "ds002748_sub-05")
TESTED = (
    "ds011_sub-06", "ds011_sub-07", "ds011_sub-08", "ds002748_sub-14", "ds002748_sub-15",
    "ds002748_sub-16", "ds002748_sub-17", "ds002748_sub-18", "pumi_sub-001",
)  # fmt: skip
MARKS = "<!-- made by python -m benchmarks quality -->", "<!-- until here -->"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data")
    parser.add_argument("--model", default="open", help="name or folder; default: open")
    parser.add_argument("--kept", type=Path, default=Path("quality_kept"), help="kept results")
    parser.add_argument("--tuning", nargs="+", default=TUNING, help="heads for thresholds")
    parser.add_argument("--tested", nargs="+", default=TESTED, help="heads to test on")
    parser.add_argument("--docs", type=Path, help="Markdown page whose table is replaced")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")


def main(options: argparse.Namespace) -> None:
    """Run what is missing, and print the tables."""
    torch.set_num_threads(1)
    tuning, tested = (
        run(heads, options.model, options.data, options.kept, options.processes)
        for heads in (options.tuning, options.tested)
    )
    undisturbed = [r for r in (*tuning, *tested) if r.kind == UNDISTURBED]
    with Output(options.out) as out:
        out(*header(model_version(options.model)))
        out(f"thresholds set on: {', '.join(options.tuning)}")
        out(f"tested on: {', '.join(options.tested)}")
        out(*prevalence_lines(tested))
        out(*curve_lines(accepted(tuning), accepted(tested)))
        out(*threshold_lines(accepted(tuning), accepted(tested)))
        out(*flag_lines(accepted(tested)))
        out(*undisturbed_lines(undisturbed))
    if options.docs:
        replace_table(options.docs, docs_lines(accepted(tuning), accepted(tested)))


# --- tables -------------------------------------------------------------------------------


def prevalence_lines(runs: Sequence[Run]) -> list[str]:
    """Return a table of how often results are bad, by fault."""
    lines = ["", "== Bad results by fault, heads tested on",
             "fault\timages\trefused\tbad\tDice, median\tself_consistency, median"]  # fmt: skip
    for fault in all_faults():
        found = [r for r in runs if (r.kind, r.step) == (fault.kind, fault.step)]
        kept = accepted(found)
        middle = [np.median([value(r) for r in kept]) if kept else np.nan
                  for value in (overlap, MEASURES[MAIN])]  # fmt: skip
        lines.append(
            f"{fault.title}\t{len(found)}\t{len(found) - len(kept)}\t{int(bad(kept).sum())}\t"
            f"{middle[0]:.3f}\t{middle[1]:.3f}"
        )
    kept = accepted(runs)
    worsened = [r for r in runs if r.kind != UNDISTURBED]
    share = bad(kept).mean()
    lines.append(
        f"all\t{len(worsened)}\t{len(worsened) - len(kept)}\t{int(bad(kept).sum())} ({share:.0%})"
    )
    return lines


def curve_lines(tuning: Sequence[Run], tested: Sequence[Run]) -> list[str]:
    """Return the area under the curve of each measure, and by kind of fault for the main one."""
    lines = ["", f"== Area under the ROC curve for a Dice below {BAD}",
             "measure\ton heads for thresholds\ttested\t95 % interval over heads"]  # fmt: skip
    for name, measure in MEASURES.items():
        areas = [area(np.array([measure(r) for r in runs]), bad(runs)) for runs in (tuning, tested)]
        low, high = interval(tested, measure)
        lines.append(f"{name}\t{areas[0]:.3f}\t{areas[1]:.3f}\t{low:.3f} to {high:.3f}")
    lines += ["", f"{MAIN} by kind, heads tested on (nan: all or none of the results are bad)"]
    for kind in dict.fromkeys(fault.kind for fault in all_faults()):
        runs = [r for r in tested if r.kind == kind]
        of_kind = area(np.array([MEASURES[MAIN](r) for r in runs]), bad(runs))
        lines.append(f"{kind}\t{of_kind:.3f}\t{int(bad(runs).sum())} of {len(runs)} bad")
    return lines


def threshold_lines(tuning: Sequence[Run], tested: Sequence[Run]) -> list[str]:
    """Return a table of thresholds set on some heads and tested on others."""
    lines = ["", "== Thresholds set on other heads than tested",
             "warning if\tsensitivity\tspecificity\t"
             + "\t".join(f"truly bad if {p:.0%} are bad" for p in PREVALENCES)]  # fmt: skip
    is_bad = bad(tested)
    for name in (MAIN, "mean soft_dice", "localizer_confidence"):
        limit, warned = warned_by(name, tuning, tested)
        lines.append(f"{name} < {limit:.3f}\t{rates(warned, is_bad)}")
    return lines


def flag_lines(tested: Sequence[Run]) -> list[str]:
    """Return a table of how often each flag is raised, with the thresholds of `CHECKS`."""
    is_bad = bad(tested)
    raised = [
        reapply_thresholds(r.flags, r.quality | {MAIN: MEASURES[MAIN](r)}, {}) for r in tested
    ]
    lines = ["", "== Flags, with the app's thresholds, heads tested on",
             "flag\tof the bad\tof the others"]  # fmt: skip
    names = [check.name for check in CHECKS if any(check.name in flags for flags in raised)]
    chosen: dict[str, set[str]] = {name: {name} for name in names}
    chosen["any but no_etiv"] = set(names) - {"no_etiv"}
    for name, any_of in chosen.items():
        warned = np.array([bool(any_of & set(flags)) for flags in raised])
        lines.append(f"{name}\t{warned[is_bad].mean():.0%}\t{warned[~is_bad].mean():.0%}")
    return lines


def docs_lines(tuning: Sequence[Run], tested: Sequence[Run]) -> list[str]:
    """Return the main results as Markdown."""
    heads, is_bad = sorted({r.head for r in tested}), bad(tested)
    lines = [f"| worsened by | images | bad | {MAIN}, median of the bad | of the others |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for kind in (*dict.fromkeys(fault.kind for fault in all_faults()), "all"):
        runs = [r for r in tested if kind in (r.kind, "all")]
        scores, worse = np.array([MEASURES[MAIN](r) for r in runs]), bad(runs)
        middles = [f"{np.median(s):.2f}" if len(s) else "" for s in (scores[worse], scores[~worse])]
        lines.append(f"| {kind} | {len(runs)} | {worse.mean():.0%} | {' | '.join(middles)} |")
    scores = np.array([MEASURES[MAIN](r) for r in tested])
    low, high = interval(tested, MEASURES[MAIN])
    limit, warned = warned_by(MAIN, tuning, tested)
    cells = rates(warned, is_bad).split("\t")
    values = ", ".join(
        f"{value} if {share:.0%} of results are bad"
        for value, share in zip(cells[2:], PREVALENCES, strict=True)
    )
    return [
        *lines,
        "",
        f"{len(heads)} heads. Area under the ROC curve of `{MAIN}`: **{area(scores, is_bad):.3f}** "
        f"({low:.3f} to {high:.3f}, 95 % over heads). Below {limit:.3f}, the best threshold on "
        f"{len({r.head for r in tuning})} other heads, it finds {float(cells[0]):.0%} of the bad "
        f"results and flags {1 - float(cells[1]):.0%} of the others. The share of flagged results "
        f"that are truly bad is {values}.",
    ]


def replace_table(page: Path, lines: Sequence[str]) -> None:
    """Replace what is between the marks of a page."""
    before, rest = page.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]))


def undisturbed_lines(undisturbed: Sequence[Run]) -> list[str]:
    """Return the range of the main measure on the undisturbed heads."""
    values = sorted(MEASURES[MAIN](r) for r in undisturbed)
    return [
        "",
        f"{MAIN} of the {len(values)} undisturbed heads: {values[0]:.3f} to {values[-1]:.3f}",
    ]
