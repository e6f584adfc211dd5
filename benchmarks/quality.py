"""How well measures of quality find bad results: heads made worse on purpose, and ROC curves.

    python benchmarks/quality.py --data DATA --out benchmarks/quality.txt [--model M] [--kept DIR]

Heads are worsened in known ways (`quality_faults.py`). A result is bad if its Dice to the result of
the undisturbed head, mean over the three regions, is below 0.9. Thresholds are set on heads of the
training and validation parts of `bids_app/training/split.toml` and tested on those of the test part
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
from quality_faults import all_faults  # noqa: E402
from quality_runs import UNDISTURBED, Run, run  # noqa: E402

from bids_app import __version__  # noqa: E402
from bids_app.columns import PARTS  # noqa: E402
from bids_app.quality import CHECKS, flags_again, steadiness  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

TUNING = ("ds011_sub-01", "ds002748_sub-01", "ds011_sub-05", "ds002748_sub-12", "ds002748_sub-05")
TESTED = (
    "ds011_sub-06", "ds011_sub-07", "ds011_sub-08", "ds002748_sub-14", "ds002748_sub-15",
    "ds002748_sub-16", "ds002748_sub-17", "ds002748_sub-18", "pumi_sub-001",
)  # fmt: skip
BAD = 0.9
MAIN = "steadiness"
PREVALENCES = (0.01, 0.05, 0.2)
RESAMPLED = 2000


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
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")
    return parser.parse_args()


def judged(runs: Sequence[Run]) -> list[Run]:
    """Keep worsened images that the app did not refuse."""
    return [r for r in runs if r.kind != UNDISTURBED and not r.refused]


def overlap(found: Run) -> float:
    """Give the Dice to the undisturbed result, mean over regions; absent ones count 0."""
    return float(np.nanmean([found.dice[name] for name in PARTS]))


def bad(runs: Sequence[Run]) -> NDArray[np.bool_]:
    """Tell which results are bad."""
    return np.array([overlap(r) < BAD for r in runs])


def lowest(ending: str) -> Callable[[Run], float]:
    """Take the worst region's measure; 0 where a region is missing."""
    return lambda found: min(found.quality.get(f"{name}_{ending}", 0.0) for name in PARTS)


def average(ending: str) -> Callable[[Run], float]:
    """Take the mean of the regions' measure; 0 where a region is missing."""
    return lambda found: sum(found.quality.get(f"{name}_{ending}", 0.0) for name in PARTS) / 3


MEASURES: dict[str, Callable[[Run], float]] = {
    MAIN: lambda found: steadiness(found.quality) or 0.0,
    "lowest mirror_dice": lowest("mirror_dice"),
    "mean soft_dice": average("soft_dice"),
    "lowest soft_dice": lowest("soft_dice"),
    "lowest symmetry": lowest("symmetry"),
    "lowest largest_share": lowest("largest_share"),
    "locator_confidence": lambda found: found.quality.get("locator_confidence", 0.0),
    "border_contrast": lambda found: found.quality.get("border_contrast", 0.0),
    "contrast_to_noise": lambda found: found.quality.get("contrast_to_noise", 0.0),
}


def area(scores: NDArray[np.float64], is_bad: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of low scores for bad results; ties count half."""
    low, high = scores[is_bad], scores[~is_bad]
    if not (len(low) and len(high)):
        return float("nan")
    less = (low[:, None] < high).sum() + 0.5 * (low[:, None] == high).sum()
    return float(less) / (len(low) * len(high))


def interval(runs: Sequence[Run], measure: Callable[[Run], float]) -> tuple[float, float]:
    """Give the 95 % interval of the area, heads drawn with replacement."""
    rng = np.random.default_rng(0)
    heads = sorted({r.head for r in runs})
    scores, is_bad = np.array([measure(r) for r in runs]), bad(runs)
    of_head = [np.array([i for i, r in enumerate(runs) if r.head == head]) for head in heads]
    areas = []
    for _ in range(RESAMPLED):
        drawn = np.concatenate([of_head[i] for i in rng.integers(len(heads), size=len(heads))])
        areas.append(area(scores[drawn], is_bad[drawn]))
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return float(low), float(high)


def best_threshold(scores: NDArray[np.float64], is_bad: NDArray[np.bool_]) -> float:
    """Choose the threshold below which to warn: sensitivity plus specificity are largest there.

    Halfway between two scores, rounded to hundredths.
    """
    values = np.unique(scores)
    middles = (values[1:] + values[:-1]) / 2
    gains = [(scores[is_bad] < t).mean() - (scores[~is_bad] < t).mean() for t in middles]
    return round(float(middles[int(np.argmax(gains))]), 2)


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
    for name in (MAIN, "mean soft_dice", "locator_confidence"):
        measure = MEASURES[name]
        limit = best_threshold(np.array([measure(r) for r in tuning]), bad(tuning))
        warned = np.array([measure(r) for r in tested]) < limit
        lines.append(f"{name} < {limit:.2f}\t{told(warned, is_bad)}")
    return lines


def told(warned: NDArray[np.bool_], is_bad: NDArray[np.bool_]) -> str:
    """Write sensitivity, specificity, and predictive values where some part of images is bad."""
    found, false = float(warned[is_bad].mean()), float(warned[~is_bad].mean())
    values = [p * found / (p * found + (1 - p) * false or np.nan) for p in PREVALENCES]
    return "\t".join([f"{found:.2f}", f"{1 - false:.2f}", *(f"{v:.0%}" for v in values)])


def flag_lines(tested: Sequence[Run]) -> list[str]:
    """Tell how often each flag is right, with the thresholds of `bids_app.quality.CHECKS`."""
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


def head_lines(undisturbed: Sequence[Run]) -> list[str]:
    """Tell the main measure of the heads as they are."""
    values = sorted(MEASURES[MAIN](r) for r in undisturbed)
    return [
        "",
        f"{MAIN} of the {len(values)} heads as they are: {values[0]:.3f} to {values[-1]:.3f}",
    ]


if __name__ == "__main__":
    main()
