"""Tables (TSV) and JSON: those of the derivative dataset, and those that users write."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from bids_app.errors import reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOT_AVAILABLE = "n/a"


def dump_json(content: dict[str, Any]) -> bytes:
    """Write JSON as all files of the dataset have it."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def number(value: float | None, digits: int = 3) -> str:
    """Write a number for a table; ``n/a`` where there is none."""
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Write a table as tab-separated values, UTF-8."""
    lines = ("\t".join(row) for row in (header, *rows))
    return ("\n".join(lines) + "\n").encode()


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table that `table` wrote."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    header = lines[0].split("\t")
    return [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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
