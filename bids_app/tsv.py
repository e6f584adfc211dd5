"""Tables that people write: tab-separated, and often saved with commas by a spreadsheet."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from bids_app.errors import reason

if TYPE_CHECKING:
    from pathlib import Path


def read_own_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a user's table of tab-separated values, UTF-8.

    Parameters
    ----------
    path : Path
        The table; its first line names the columns.

    Returns
    -------
    columns : list of str
    rows : list of dict
        As `csv.DictReader` gives them: a cell too few is None, those too many stand under None.

    Raises
    ------
    ValueError
        It cannot be read, or commas or semicolons stand between its columns; says which.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            columns, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot be read ({reason(error)}).") from None
    if len(columns) == 1:
        for mark, name in ((",", "commas"), (";", "semicolons")):
            if mark in columns[0]:
                raise ValueError(
                    f"must be tab-separated (TSV), but has {name} between its columns. Save it "
                    "as tab-separated text."
                )
    return columns, rows
