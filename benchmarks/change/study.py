"""Compare estimators of change on simulated scans with known atrophy.

Each head gets three scans without a change and five with one. All are resampled: turned by up to
10 degrees, shifted, with 3 % noise and a bias field of 20 %, half of them with voxels of 0.7 to
1.2 mm. By default heads of training and validation, since the table chooses an estimator.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.change.boundary import boundary_volumes
from benchmarks.change.scans import NAMES, Simulated, run
from benchmarks.common import Output, header, model_version
from bids_app.measures.change import deformed_volumes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

HEADS = ("ds011_sub-05", "ds002748_sub-12", "ds002748_sub-01", "ds011_sub-01")
UNCHANGED = 3
SEED = 100
SERIES = (
    *(Simulated("none", 0, "", "", SEED + k) for k in range(UNCHANGED)),
    *(Simulated("smooth", 0.05, name, "", SEED + 3 + k) for k, name in enumerate(NAMES)),
    *(Simulated("sharp", share, "", "", SEED + 6 + k) for k, share in enumerate((0.03, 0.08))),
)
# Title, and the weight of each measure.
ESTIMATORS: Mapping[str, Mapping[str, float]] = {
    "a  own frames": {"alone": 1},
    "b  middle": {"shared": 1},
    "c  boundary shift": {"boundary": 1},
    "d  Jacobian": {"jacobian": 1},
    "b/2 + d/2": {"shared": 0.5, "jacobian": 0.5},
    "0.3 c + 0.8 d": {"boundary": 0.3, "jacobian": 0.8},
    "0.3 b + 0.45 c + 0.5 d": {"shared": 0.3, "boundary": 0.45, "jacobian": 0.5},
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder of the public datasets")
    parser.add_argument("--kept", type=Path, required=True, help="folder of results; to resume")
    parser.add_argument("--model", default="open", help="name or folder of the model")
    parser.add_argument("--heads", nargs="+", default=HEADS, help="names as in the split")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")


def main(options: argparse.Namespace) -> None:
    """Run the benchmark."""
    options.kept.mkdir(parents=True, exist_ok=True)
    work = partial(
        run, series=list(SERIES), data=options.data, kept=options.kept, model=options.model
    )
    with ProcessPoolExecutor(options.processes) as pool:
        files = list(pool.map(work, options.heads))
        found = list(pool.map(measure, files))
    with Output(options.out) as out:
        out(*header(model_version(options.model), packages=("torch", "SimpleITK")), "")
        out(*describe(options.heads, found))


def measure(file: Path) -> tuple[dict[str, Floats], Floats]:
    """Measure kept scans by each estimator.

    Returns
    -------
    changes : dict of str to ndarray, shape (N, 3)
        By measure, change in per cent of the mean of the unchanged scans.
    truth : ndarray, shape (N, 3)
        True change in per cent.
    """
    with np.load(file) as kept:
        mean = kept["maps"].mean(axis=0)
        base = kept["shared"][:UNCHANGED].mean(axis=0)
        volumes = {
            "alone": kept["alone"],
            "shared": kept["shared"],
            "boundary": boundary_volumes(kept["matched"], mean),
            "jacobian": deformed_volumes(kept["matched"], mean),
        }
        truth = 100 * kept["truth"]
    changes = {name: 100 * (v - v[:UNCHANGED].mean(axis=0)) / base for name, v in volumes.items()}
    return changes, truth


def describe(
    heads: Sequence[str], found: Sequence[tuple[Mapping[str, Floats], Floats]]
) -> list[str]:
    """Write the tables: noise and slope per region, of all heads and of each."""
    lines = [
        f"{len(heads)} heads: {', '.join(heads)}",
        f"Each: {UNCHANGED} scans without a change; {', '.join(s.title for s in SERIES[3:])}",
        "(kind, region, share lost, seed; a sharp loss takes all three regions).",
        "noise: standard deviation in % of the change between two scans where there is none,",
        f"       from {UNCHANGED} scans a head, so of {len(heads) * (UNCHANGED - 1)} degrees of "
        "freedom",
        "smooth, sharp: slope of the change shown over the true one, through the origin",
    ]
    groups = {"all heads": list(found)}
    groups |= {head: [one] for head, one in zip(heads, found, strict=True)}
    for title, some in groups.items():
        lines += ["", f"{title:<24}" + "".join(f"{n:^24}" for n in NAMES)]
        lines.append(f"{'':<24}" + f"{'noise':>8}{'smooth':>8}{'sharp':>8}" * len(NAMES))
        for name, weights in ESTIMATORS.items():
            cells = [score(some, weights, k) for k in range(len(NAMES))]
            lines.append(f"{name:<24}" + "".join(f"{v:8.2f}" for cell in cells for v in cell))
    return lines


def score(
    found: Sequence[tuple[Mapping[str, Floats], Floats]], weights: Mapping[str, float], region: int
) -> tuple[float, float, float]:
    """Compute noise, slope of smooth losses and slope of sharp losses of a region."""
    variances, smooth, sharp = [], [], []
    for changes, truth in found:
        shown = sum(weight * changes[name] for name, weight in weights.items())
        values = np.asarray(shown)[:, region]
        variances.append(2 * values[:UNCHANGED].var(ddof=1))
        pairs = np.column_stack([truth[:, region], values])
        sharp += [p for p, what in zip(pairs, SERIES, strict=True) if what.kind == "sharp"]
        smooth += [p for p, what in zip(pairs, SERIES, strict=True) if what.region == NAMES[region]]
    return float(np.sqrt(np.mean(variances))), _slope(smooth), _slope(sharp)


def _slope(pairs: Sequence[Floats]) -> float:
    true, shown = np.array(pairs).T
    return float((true @ shown) / (true @ true))
