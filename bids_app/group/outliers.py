"""Volumes that lie out: robust z within the dataset, and among images of one site and scanner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_app.bids.columns import OUTLIERS
from bids_app.group.table import flags_of, in_doubt
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.measures.flags import CHECKS, flags_again
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    Row = dict[str, str]

ENDINGS = ("robust_z", "batch_z")  # of the columns of z scores, each with a flag
LEAST = 10  # results, for a median and a spread
_TO_SIGMA = 0.6745  # median absolute deviation of a normal distribution of deviation 1


def robust_z(
    values: NDArray[np.float64], trusted: NDArray[np.bool_] | None = None, least: int = LEAST
) -> NDArray[np.float64]:
    """Tell how far each value lies from the median: 0.6745 (value - median) / MAD.

    The modified z score of Iglewicz and Hoaglin (1993), for which 3.5 is their limit.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Some may be nan.
    trusted : ndarray of bool, shape (N,), optional
        Values that median and MAD (median absolute deviation) are taken of, if there are at least
        `least`; else, and by default, all.
    least : int
        Values that are needed.

    Returns
    -------
    ndarray, shape (N,)
        All nan where there are fewer than `least` values, or where the MAD is 0.
    """
    finite = np.isfinite(values)
    among = values[finite if trusted is None else finite & trusted]
    if len(among) < least:
        among = values[finite]
    if len(among) < least:
        return np.full(len(values), np.nan)
    centre = np.median(among)
    spread = np.median(np.abs(among - centre))
    return _TO_SIGMA * (values - centre) / spread if spread else np.full(len(values), np.nan)


def add_outliers(rows: Sequence[Row], thresholds: Mapping[str, float]) -> None:
    """Fill in the columns of z scores, and flag the rows that lie out, in place.

    Parameters
    ----------
    rows : sequence of dict
        With the keys of `bids_app.bids.columns.GROUP`. Models and versions are looked at apart.
    thresholds : mapping of str to float
        By name of the flag, in place of those of `bids_app.measures.flags.CHECKS`.
    """
    _fill(rows, "robust_z", lambda row: (row["model"], row["model_version"]))
    _fill(
        [row for row in rows if row["batch"] != NOT_AVAILABLE],
        "batch_z",
        lambda row: (row["model"], row["model_version"], row["batch"]),
    )
    for row in rows:
        if scores := scores_of(row):
            sizes = {column: abs(z) for column, z in scores.items()}
            flags = flags_again(flags_of(row), sizes, thresholds)
            row["flags"] = ",".join(flags) or NOT_AVAILABLE


def scores_of(row: Row) -> dict[str, float]:
    """Give the z scores of a row by column, without those that are not available."""
    texts = {column: row.get(column, NOT_AVAILABLE) for column in OUTLIERS}
    return {column: float(text) for column, text in texts.items() if text != NOT_AVAILABLE}


def lying_out(scores: Mapping[str, float], thresholds: Mapping[str, float]) -> dict[str, str]:
    """Tell which regions raise the flags of this module, and how far each lies out.

    Parameters
    ----------
    scores : mapping of str to float
        Of `scores_of`.
    thresholds : mapping of str to float
        As for `add_outliers`.

    Returns
    -------
    dict of str to str
        By flag, regions with their z: ``pons +4.21, brainstem +3.80``.
    """
    told = {}
    for check in CHECKS:
        if check.measure in ENDINGS:
            regions = [
                f"{column.removesuffix(f'_{check.measure}')} {z:+.2f}"
                for column, z in scores.items()
                if check.raised({column: abs(z)}, thresholds)
            ]
            if regions:
                told[check.name] = ", ".join(regions)
    return told


def _fill(rows: Sequence[Row], ending: str, key: Callable[[Row], Hashable]) -> None:
    together: dict[Hashable, list[Row]] = {}
    for row in rows:
        together.setdefault(key(row), []).append(row)
    for alike in together.values():
        trusted = np.array([not in_doubt(row) for row in alike])
        for region in REGIONS:
            texts = [row[f"{region}_mm3"] for row in alike]
            values = np.array([float("nan" if t == NOT_AVAILABLE else t) for t in texts])
            for row, z in zip(alike, robust_z(values, trusted), strict=True):
                row[f"{region}_{ending}"] = f"{z:.2f}" if np.isfinite(z) else NOT_AVAILABLE
