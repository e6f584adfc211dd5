"""z scores of volumes: robust ones within the dataset, and those relative to a table of norms.

Robust z scores are computed over all results of a model and a suffix, and over those of one site
and scanner; the flags ``outlier`` and ``outlier_in_batch`` compare them with the thresholds of
`bids_app.measures.flags.CHECKS`.

No norms are shipped. Each row of a user's table of norms defines one stratum for one measure:
``measure`` (a column of the group table), ``mean`` and ``sd``, and conditions on rows.
``<column>_min`` (included) and ``<column>_max`` (excluded) bound a number; any other column must be
equal. An empty cell or n/a sets no condition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bids_app.bids.columns import GROUP, OUTLIERS
from bids_app.errors import UsageError
from bids_app.group.table import ALIKE, in_doubt, shows_brainstem, split_flags
from bids_app.io.tables import NOT_AVAILABLE, Column, Columns
from bids_app.measures.flags import CHECKS, reapply_thresholds
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

ENDINGS = ("robust_z", "batch_z")  # of the columns of robust z scores, each with a flag
LEAST = 10  # results, for a median and a spread
_TO_SIGMA = 0.6745  # median absolute deviation of a normal distribution with standard deviation 1


# --- within the dataset -------------------------------------------------------------------


def robust_z(
    values: NDArray[np.float64], trusted: NDArray[np.bool_] | None = None, least: int = LEAST
) -> NDArray[np.float64]:
    """Compute robust z scores: 0.6745 (value - median) / MAD.

    The modified z score of Iglewicz and Hoaglin (1993).

    Parameters
    ----------
    values : ndarray, shape (N,)
        Some may be NaN.
    trusted : ndarray of bool, shape (N,), optional
        Values from which median and MAD (median absolute deviation) are computed, if there are at
        least `least`; otherwise, and by default, from all.
    least : int
        Number of values that are needed.

    Returns
    -------
    ndarray, shape (N,)
        All NaN if there are fewer than `least` values, or if the MAD is 0.
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


def add_outliers(volumes: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Compute robust z scores, and flag outliers.

    Parameters
    ----------
    volumes : pandas.DataFrame
        Columns of `bids_app.bids.columns.GROUP`. Models, versions and suffixes are treated
        separately; rows
        without a brainstem get no score.
    thresholds : mapping of str to float
        By name of the flag, in place of those of `bids_app.measures.flags.CHECKS`.

    Returns
    -------
    pandas.DataFrame
        With the columns of `bids_app.bids.columns.OUTLIERS` and ``flags`` filled in.
    """
    shown = shows_brainstem(volumes).to_numpy()
    trusted = ~in_doubt(volumes).to_numpy()
    alike = list(ALIKE)
    filled = _scores(volumes, alike, "robust_z", shown, trusted)
    filled |= _scores(volumes, [*alike, "batch"], "batch_z", shown, trusted)
    scores = np.abs(np.column_stack([filled[column] for column in OUTLIERS]))
    known = np.isfinite(scores)
    flags: list[object] = volumes["flags"].tolist()
    names = np.array(list(OUTLIERS))
    for place in np.flatnonzero(known.any(axis=1)):
        there = known[place]
        sizes = dict(zip(names[there].tolist(), scores[place, there].tolist(), strict=True))
        found = reapply_thresholds(split_flags(flags[place]), sizes, thresholds)
        flags[place] = ",".join(found) or math.nan
    filled["flags"] = pd.Series(flags, index=volumes.index, dtype=object)
    return volumes.assign(**filled)


def _scores(
    volumes: pd.DataFrame,
    keys: list[str],
    ending: str,
    shown: NDArray[np.bool_],
    trusted: NDArray[np.bool_],
) -> dict[str, Any]:
    """Give the columns of z scores, shape (len(volumes),) each, among rows with equal keys."""
    names = [f"{region}_{ending}" for region in REGIONS]
    filled = {name: np.full(len(volumes), np.nan) for name in names}
    # pandas 2 has groups of rows that lack a key.
    groups = volumes[shown].dropna(subset=keys).groupby(keys, sort=False).groups
    for index in groups.values():
        places = volumes.index.get_indexer(index)
        for region, name in zip(REGIONS, names, strict=True):
            values = volumes[f"{region}_mm3"].to_numpy(np.float64)[places]
            filled[name][places] = GROUP[name].round(robust_z(values, trusted[places]))
    return filled


def scores_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Give the robust z scores of a row by column, without those that are not available."""
    known = {column: row.get(column) for column in OUTLIERS}
    numbers = {
        column: float(value)
        for column, value in known.items()
        if value is not None and value != NOT_AVAILABLE
    }
    return {column: z for column, z in numbers.items() if math.isfinite(z)}


def find_outliers(scores: Mapping[str, float], thresholds: Mapping[str, float]) -> dict[str, str]:
    """Find the regions that raise the flags of outliers.

    Parameters
    ----------
    scores : mapping of str to float
        From `scores_of`.
    thresholds : mapping of str to float
        As for `add_outliers`.

    Returns
    -------
    dict of str to str
        By flag, regions with their z scores: ``pons +4.21, brainstem +3.80``.
    """
    found = {}
    for check in CHECKS:
        if check.measure in ENDINGS:
            regions = [
                f"{column.removesuffix(f'_{check.measure}')} {z:+.2f}"
                for column, z in scores.items()
                if check.raised({column: abs(z)}, thresholds)
            ]
            if regions:
                found[check.name] = ", ".join(regions)
    return found


# --- by a user's norms --------------------------------------------------------------------

NORM_ENDING = "_norm_z"
_NEEDED = ("measure", "mean", "sd")
_NOTHING = ("", NOT_AVAILABLE)


@dataclass(frozen=True)
class Stratum:
    """One row of a table of norms.

    Attributes
    ----------
    mean, sd : float
        Of the measure, in the unit of the group table.
    equal : dict of str to str
        Columns and the text that they must have.
    between : dict of str to (float, float)
        Columns and the bounds of their number, the upper one excluded.
    """

    mean: float
    sd: float
    equal: Mapping[str, str]
    between: Mapping[str, tuple[float, float]]

    def fits(self, volumes: pd.DataFrame, columns: Columns) -> NDArray[np.bool_]:
        """Select the rows that belong to the stratum, shape (len(volumes),)."""
        fitting = np.ones(len(volumes), dtype=bool)
        for name, text in self.equal.items():
            texts = columns[name].texts(volumes[name].tolist())
            fitting &= np.array([cell == text for cell in texts], dtype=bool)
        for name, (low, high) in self.between.items():
            numbers = pd.to_numeric(volumes[name], errors="coerce").to_numpy(np.float64)
            fitting &= (numbers >= low) & (numbers < high)
        return fitting


def parse_norms(
    rows: Sequence[Mapping[str, str]], columns: Collection[str], place: str
) -> dict[str, list[Stratum]]:
    """Parse a user's table of norms.

    Parameters
    ----------
    rows : sequence of mapping
        As `bids_app.io.tables.read_user_table` gives them.
    columns : collection of str
        Those of the group table.
    place : str
        Path of the table, for messages.

    Returns
    -------
    dict of str to list of Stratum
        By measure.

    Raises
    ------
    UsageError
        A row is wrong, or uses a column that the group table lacks; says which.
    """
    norms: dict[str, list[Stratum]] = {}
    for count, row in enumerate(rows, start=2):
        try:
            measure, stratum = _stratum(row, columns)
        except ValueError as error:
            raise UsageError(f"--norms {place}, line {count}: {error}") from None
        norms.setdefault(measure, []).append(stratum)
    if not norms:
        raise UsageError(f"--norms {place}: it has no row.")
    return norms


def _stratum(row: Mapping[str, str], columns: Collection[str]) -> tuple[str, Stratum]:
    if None in row or None in row.values():
        raise ValueError("it has more or fewer cells than the first line of the table.")
    texts = {column: text.strip() for column, text in row.items()}
    if missing := [column for column in _NEEDED if texts.get(column, "") in _NOTHING]:
        raise ValueError(f"{missing[0]} is missing. Each row needs {', '.join(_NEEDED)}.")
    measure = texts.pop("measure")
    mean, sd = (_number(texts.pop(column), column) for column in ("mean", "sd"))
    if not sd > 0:
        raise ValueError("sd is not above 0.")
    equal: dict[str, str] = {}
    between: dict[str, tuple[float, float]] = {}
    for column, text in texts.items():
        if text in _NOTHING:
            continue
        name, _, end = column.rpartition("_")
        if end in ("min", "max") and name in columns:
            low, high = between.get(name, (-math.inf, math.inf))
            bound = _number(text, column)
            between[name] = (bound, high) if end == "min" else (low, bound)
        else:
            equal[column] = text
    for column in (measure, *equal):
        if column not in columns:
            raise ValueError(
                f"the group table has no column {column}. --covariates joins columns of "
                "participants.tsv."
            )
    return measure, Stratum(mean, sd, equal, between)


def _number(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError(f"{column} is {text!r}, which is not a number.")
    return value


def add_norm_scores(
    volumes: pd.DataFrame, norms: Mapping[str, list[Stratum]], columns: Columns
) -> pd.DataFrame:
    """Add a column ``<measure>_norm_z`` for each measure; NaN where no stratum fits.

    Parameters
    ----------
    volumes : pandas.DataFrame
    norms : mapping of str to list of Stratum
        From `parse_norms`.
    columns : mapping of str to Column
        Of `volumes`.

    Raises
    ------
    UsageError
        Two strata fit one row.
    """
    shown = shows_brainstem(volumes).to_numpy()
    added = {}
    for measure, strata in norms.items():
        values = pd.to_numeric(volumes[measure], errors="coerce").to_numpy(np.float64)
        fitting = np.array([stratum.fits(volumes, columns) & shown for stratum in strata])
        if (twice := np.flatnonzero(fitting.sum(axis=0) > 1)).size:
            raise UsageError(
                f"--norms: {fitting[:, twice[0]].sum()} rows for {measure} fit "
                f"{volumes['source'].iloc[twice[0]]}. Bounds and groups must not overlap (an upper "
                "bound is excluded)."
            )
        z = np.full(len(volumes), np.nan)
        for stratum, rows in zip(strata, fitting, strict=True):
            z[rows] = (values[rows] - stratum.mean) / stratum.sd
        column = _norm_column(measure)
        added[column.name] = column.round(z)
    return volumes.assign(**added)


def norm_columns(norms: Iterable[str]) -> Columns:
    """Describe the columns that `add_norm_scores` adds."""
    return {measure + NORM_ENDING: _norm_column(measure) for measure in norms}


def _norm_column(measure: str) -> Column:
    return Column(
        measure + NORM_ENDING,
        "float",
        f"z score by the given norms: ({measure} - mean) / standard deviation; n/a if the norms "
        "have no row for it",
        digits=2,
    )
