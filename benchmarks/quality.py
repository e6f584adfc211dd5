"""How well measures of quality find bad results: heads made worse on purpose, and ROC curves.

    python benchmarks/quality.py --data DATA --out benchmarks/quality.txt --docs docs/quality.md
        [--model M] [--kept FOLDER]

Heads are worsened in known ways (`quality_faults.py`). A result is bad if its Dice to the result of
the undisturbed head, mean over the three regions, is below 0.9. Thresholds are set on heads of the
training and validation parts of `training/split.toml` and tested on those of the test part
and on one of no part. Results are kept in ``--kept``, so that a run that was stopped goes on; about
320 images of 2 to 4 seconds each on one core. Images that the app refuses are counted apart.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from accuracy_runs import load_model  # noqa: E402
from end_to_end import machine  # noqa: E402
from quality_curves import (  # noqa: E402
    BAD,
    MAIN,
    MEASURES,
    PREVALENCES,
    area,
    bad,
    interval,
    judged,
    overlap,
    test_of,
    told,
)
from quality_faults import all_faults  # noqa: E402
from quality_runs import UNDISTURBED, Run, run  # noqa: E402

from bids_app import __version__  # noqa: E402
from bids_app.measures.flags import CHECKS, flags_again  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

TUNING = ("ds011_sub-01", "ds002748_sub-01", "ds011_sub-05", "ds002748_sub-12", "ds002748_sub-05")
TESTED = (
    "ds011_sub-06", "ds011_sub-07", "ds011_sub-08", "ds002748_sub-14", "ds002748_sub-15",
    "ds002748_sub-16", "ds002748_sub-17", "ds002748_sub-18", "pumi_sub-001",
)  # fmt: skip
MARKS = "<!-- made by benchmarks/quality.py -->", "<!-- until here -->"


def main() -> None:
    """Run what is missing and write the tables."""
    options = parse()
    torch.set_num_threads(1)
    tuning, tested = (
        run(heads, options.model, options.data, options.kept, options.processes)
        for heads in (options.tuning, options.tested)
    )
    model = load_model(options.model)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}",
        f"bids_app {__version__}, torch {torch.__version__}, "
        f"model {model.name} {model.version} ({model.sha256[:12]})",
        f"thresholds set on: {', '.join(options.tuning)}",
        f"tested on: {', '.join(options.tested)}",
        *prevalence_lines(tested),
        *curve_lines(judged(tuning), judged(tested)),
        *threshold_lines(judged(tuning), judged(tested)),
        *flag_lines(judged(tested)),
        *head_lines([r for r in (*tuning, *tested) if r.kind == UNDISTURBED]),
    ]
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if options.docs:
        put_into(options.docs, docs_lines(judged(tuning), judged(tested)))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data")
    parser.add_argument("--out", type=Path, required=True, help="text file to write")
    parser.add_argument("--model", default="open", help="name or folder; default: open")
    parser.add_argument("--kept", type=Path, default=Path("quality_kept"), help="results")
    parser.add_argument("--tuning", nargs="+", default=TUNING, help="heads for thresholds")
    parser.add_argument("--tested", nargs="+", default=TESTED, help="heads to test on")
    parser.add_argument("--docs", type=Path, help="Markdown page to renew the table of")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")
    return parser.parse_args()


# --- tables -------------------------------------------------------------------------------


def prevalence_lines(runs: Sequence[Run]) -> list[str]:
    """Tell for each fault how often its results are bad."""
    lines = ["", "== Bad results by fault, heads tested on",
             "fault\timages\trefused\tbad\tDice, median\tsteadiness, median"]  # fmt: skip
    for fault in all_faults():
        found = [r for r in runs if (r.kind, r.step) == (fault.kind, fault.step)]
        fine = judged(found)
        middle = [np.median([value(r) for r in fine]) if fine else np.nan
                  for value in (overlap, MEASURES[MAIN])]  # fmt: skip
        lines.append(
            f"{fault.title}\t{len(found)}\t{len(found) - len(fine)}\t{int(bad(fine).sum())}\t"
            f"{middle[0]:.3f}\t{middle[1]:.3f}"
        )
    fine = judged(runs)
    all_ = [r for r in runs if r.kind != UNDISTURBED]
    share = bad(fine).mean()
    lines.append(f"all\t{len(all_)}\t{len(all_) - len(fine)}\t{int(bad(fine).sum())} ({share:.0%})")
    return lines


def curve_lines(tuning: Sequence[Run], tested: Sequence[Run]) -> list[str]:
    """Tell the area under the curve of each measure, and by kind of fault for the main one."""
    lines = ["", f"== Area under the ROC curve for a Dice below {BAD}",
             "measure\ton heads for thresholds\ttested\t95 % interval over heads"]  # fmt: skip
    for name, measure in MEASURES.items():
        areas = [area(np.array([measure(r) for r in runs]), bad(runs)) for runs in (tuning, tested)]
        low, high = interval(tested, measure)
        lines.append(f"{name}\t{areas[0]:.3f}\t{areas[1]:.3f}\t{low:.3f} to {high:.3f}")
    lines += ["", f"{MAIN} by kind, heads tested on (nan: all or none of its results are bad)"]
    for kind in dict.fromkeys(fault.kind for fault in all_faults()):
        runs = [r for r in tested if r.kind == kind]
        of_kind = area(np.array([MEASURES[MAIN](r) for r in runs]), bad(runs))
        lines.append(f"{kind}\t{of_kind:.3f}\t{int(bad(runs).sum())} of {len(runs)} bad")
    return lines


def threshold_lines(tuning: Sequence[Run], tested: Sequence[Run]) -> list[str]:
    """Set thresholds on some heads and test them on others."""
    lines = ["", "== Thresholds set on other heads than tested",
             "warn where\tsensitivity\tspecificity\t"
             + "\t".join(f"bad of the warned, {p:.0%} bad" for p in PREVALENCES)]  # fmt: skip
    is_bad = bad(tested)
    for name in (MAIN, "mean soft_dice", "localizer_confidence"):
        limit, warned = test_of(name, tuning, tested)
        lines.append(f"{name} < {limit:.3f}\t{told(warned, is_bad)}")
    return lines


def flag_lines(tested: Sequence[Run]) -> list[str]:
    """Tell how often each flag is right, with the thresholds of `bids_app.measures.flags.CHECKS`."""
    is_bad = bad(tested)
    raised = [flags_again(r.flags, r.quality | {MAIN: MEASURES[MAIN](r)}, {}) for r in tested]
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
    """Write the main figures as Markdown."""
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
    limit, warned = test_of(MAIN, tuning, tested)
    rates = told(warned, is_bad).split("\t")
    values = ", ".join(
        f"{value} where {share:.0%} of images are bad"
        for value, share in zip(rates[2:], PREVALENCES, strict=True)
    )
    return [
        *lines,
        "",
        f"{len(heads)} heads. Area under the ROC curve of `{MAIN}`: **{area(scores, is_bad):.3f}** "
        f"({low:.3f} to {high:.3f}, 95 % over heads). Below {limit:.3f}, the best threshold on "
        f"{len({r.head for r in tuning})} other heads, it finds {float(rates[0]):.0%} of the bad "
        f"results and warns of {1 - float(rates[1]):.0%} of the others. A warned result is truly "
        f"bad with {values}.",
    ]


def put_into(page: Path, lines: Sequence[str]) -> None:
    """Put lines between the marks of a page."""
    before, rest = page.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]))


def head_lines(undisturbed: Sequence[Run]) -> list[str]:
    """Tell the main measure of the heads as they are."""
    values = sorted(MEASURES[MAIN](r) for r in undisturbed)
    return [
        "",
        f"{MAIN} of the {len(values)} heads as they are: {values[0]:.3f} to {values[-1]:.3f}",
    ]


if __name__ == "__main__":
    main()
