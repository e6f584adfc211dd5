"""z scores against a user's own table of norms; none is shipped.

A row of the table is a stratum of a measure: ``measure`` (a column of the group table), ``mean``
and ``sd``, and what rows it is for. ``<column>_min`` and ``<column>_max`` bound a number, the
upper bound left out; any other column must be equal. An empty cell or n/a asks for nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_app.errors import UsageError
from bids_app.io.tables import NOT_AVAILABLE, read_own_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    Row = Mapping[str, str]

ENDING = "_norm_z"
_NEEDED = ("measure", "mean", "sd")
_NOTHING = ("", NOT_AVAILABLE)


@dataclass(frozen=True)
class Stratum:
    """One row of a table of norms.

    Attributes
    ----------
    mean, sd : float
        Of the measure, in the group table's unit.
    equal : dict of str to str
        Columns and the text that they must have.
    between : dict of str to (float, float)
        Columns and the bounds of their number, the upper one left out.
    """

    mean: float
    sd: float
    equal: Mapping[str, str]
    between: Mapping[str, tuple[float, float]]

    def fits(self, row: Row) -> bool:
        """Tell whether a row of the group table belongs to the stratum."""
        return all(row[column] == text for column, text in self.equal.items()) and all(
            low <= number(row[column]) < high for column, (low, high) in self.between.items()
        )


def read_norms(path: Path, columns: Collection[str]) -> dict[str, list[Stratum]]:
    """Read a table of norms (TSV).

    Parameters
    ----------
    path : Path
        The table.
    columns : collection of str
        Those of the group table.

    Returns
    -------
    dict of str to list of Stratum
        By measure.

    Raises
    ------
    UsageError
        The table cannot be read, or names a column that is not there; says which.
    """
    try:
        _, lines = read_own_table(path)
    except ValueError as error:
        raise UsageError(f"--norms {path}: {error}") from None
    norms: dict[str, list[Stratum]] = {}
    for count, line in enumerate(lines, start=2):
        try:
            measure, stratum = _stratum(line, columns)
        except ValueError as error:
            raise UsageError(f"--norms {path}, line {count}: {error}") from None
        norms.setdefault(measure, []).append(stratum)
    if not norms:
        raise UsageError(f"--norms {path}: it has no row.")
    return norms


def _stratum(line: dict[str, str], columns: Collection[str]) -> tuple[str, Stratum]:
    if None in line or None in line.values():
        raise ValueError("it has more or fewer cells than the head of the table.")
    texts = {column: text.strip() for column, text in line.items()}
    if missing := [column for column in _NEEDED if texts.get(column, "") in _NOTHING]:
        raise ValueError(f"{missing[0]} is missing. Each row needs {', '.join(_NEEDED)}.")
    measure = texts.pop("measure")
    mean, sd = (_bound(texts.pop(column), column) for column in ("mean", "sd"))
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
            bound = _bound(text, column)
            between[name] = (bound, high) if end == "min" else (low, bound)
        else:
            equal[column] = text
    for column in (measure, *equal):
        if column not in columns:
            raise ValueError(
                f"the group table has no column {column}. Columns of participants.tsv are joined "
                "by --covariates."
            )
    return measure, Stratum(mean, sd, equal, between)


def add_norm_scores(rows: Iterable[dict[str, str]], norms: Mapping[str, list[Stratum]]) -> None:
    """Add a column ``<measure>_norm_z`` for each measure, in place; n/a where no stratum fits.

    Raises
    ------
    UsageError
        Two strata fit one row.
    """
    for row in rows:
        for measure, strata in norms.items():
            fitting = [stratum for stratum in strata if stratum.fits(row)]
            if len(fitting) > 1:
                raise UsageError(
                    f"--norms: {len(fitting)} rows for {measure} fit {row['source']}. Bounds and "
                    "groups must not overlap (an upper bound is left out)."
                )
            z = (number(row[measure]) - fitting[0].mean) / fitting[0].sd if fitting else math.nan
            row[measure + ENDING] = NOT_AVAILABLE if math.isnan(z) else f"{z:.2f}"


def describe(norms: Iterable[str]) -> dict[str, dict[str, str]]:
    """Give the entries of the data dictionary."""
    return {
        measure + ENDING: {
            "Description": f"{measure} less the mean of the norms given, over their standard "
            "deviation; n/a where they have no row for it"
        }
        for measure in norms
    }


def number(text: str) -> float:
    """Read a cell as a number; nan where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _bound(text: str, column: str) -> float:
    value = number(text)
    if math.isnan(value):
        raise ValueError(f"{column} is {text!r}, which is no number.")
    return value
