"""The one reader and writer of tables (TSV) and JSON.

A table is described by its columns (`Column`): each has a type, a number of digits, and an entry
of the data dictionary. ``n/a`` in a file is None in a row and NaN in a DataFrame.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from bids_app.errors import reason
from bids_app.io.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Value = str | int | float | None

NOT_AVAILABLE = "n/a"
_BREAKS = str.maketrans("\t\n\r", "   ")
_FORMULA = ("=", "+", "-", "@")
_APOSTROPHE = (
    "A text that begins with =, +, - or @ has an apostrophe before it, since spreadsheets "
    "would take it for a formula."
)
_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
        As in the first line of the file.
    dtype : {"str", "int", "float"}
    description : str
        For the data dictionary.
    units : str or None
        As BIDS writes units, such as ``mm^3``.
    digits : int or None
        Decimals of a float; None writes as many as it takes (six significant digits at most).
    levels : mapping of str to str
        Meaning of each value, where there are few.
    extra : mapping
        Further keys of the data dictionary.
    """

    name: str
    dtype: Literal["str", "int", "float"] = "str"
    description: str = ""
    units: str | None = None
    digits: int | None = 3
    levels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """Give the column's entry of the data dictionary, with the keys of BIDS."""
        parts = {"Description": self.description, "Units": self.units, "Levels": dict(self.levels)}
        return {key: part for key, part in parts.items() if part} | dict(self.extra)

    def text(self, value: Value) -> str:
        """Write a cell; None and NaN become ``n/a``."""
        return NOT_AVAILABLE if value is None or value != value else self._write(value)

    def parse(self, text: str | None) -> Value:
        """Read a cell; None for ``n/a``.

        Raises
        ------
        ValueError
            It is not a number, in a column of numbers.
        """
        if text is None or text == NOT_AVAILABLE:
            return None
        if self.dtype == "str":
            return _without_apostrophe(text)
        number = float(text)
        if math.isnan(number):
            return None
        if self.dtype == "int" and math.isinf(number):
            raise ValueError(f"{text!r} is not a whole number")
        return number if self.dtype == "float" else int(number)

    @property
    def _write(self) -> Callable[[Any], str]:
        if self.dtype == "str":
            return _cell
        if self.dtype == "int":
            return "{:.0f}".format
        return "{:g}".format if self.digits is None else f"{{:.{self.digits}f}}".format

    def texts(self, values: Iterable[Any]) -> list[str]:
        """Write all cells of the column, as `text` writes one."""
        write = self._write
        return [
            NOT_AVAILABLE if value is None or value != value else write(value) for value in values
        ]

    def rounded(self, value: float) -> float:
        """Round a number to the digits that are written; NaN stays NaN."""
        return value if self.digits is None else round(value, self.digits)

    def round(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Round an array, shape (N,), as `rounded` does a number; infinite becomes NaN."""
        import numpy as np

        finite = np.where(np.isfinite(values), values, np.nan)
        if self.digits is None:
            return finite
        # numpy.round goes through a product, which rounds some numbers otherwise than their text.
        return np.array([round(value, self.digits) for value in finite.tolist()], dtype=np.float64)


def _cell(value: Any) -> str:
    """Write a text in one cell: tabs and line breaks become spaces."""
    return as_text(str(value).translate(_BREAKS))


def as_text(cell: str) -> str:
    """Keep a spreadsheet from taking a text for a formula: an apostrophe goes before it.

    Numbers stay numbers. See https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{cell}" if _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    if not cell.lstrip().startswith(_FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _without_apostrophe(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and _is_formula(cell[1:]) else cell


Columns = dict[str, Column]


def by_name(columns: Iterable[Column]) -> Columns:
    """Key columns by their names, in their order."""
    return {column.name: column for column in columns}


def data_dictionary(
    columns: Mapping[str, Column], frame: pd.DataFrame | None = None
) -> dict[str, dict[str, Any]]:
    """Describe the columns of a table as the JSON file beside it does.

    Parameters
    ----------
    columns : mapping of str to Column
    frame : pandas.DataFrame, optional
        What the table holds: where `as_text` changes a cell, the description says so.
    """
    entries = {name: column.entry() for name, column in columns.items()}
    for name, column in columns.items():
        if frame is None or column.dtype != "str" or name not in frame:
            continue
        if any(isinstance(value, str) and _is_formula(value) for value in frame[name]):
            described = str(entries[name].get("Description", ""))
            entries[name]["Description"] = f"{described.rstrip('. ')}. {_APOSTROPHE}".lstrip(". ")
    return entries


# --- writing ------------------------------------------------------------------------------


def dump_json(content: Mapping[str, Any]) -> bytes:
    """Write JSON as all files of the dataset have it."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # half a surrogate pair, as JSON writes it


def table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> bytes:
    """Write texts as tab-separated values, UTF-8."""
    lines = ("\t".join(row) for row in (list(header), *rows))
    return ("\n".join(lines) + "\n").encode(errors="backslashreplace")


def dump_rows(rows: Iterable[Mapping[str, Value]], columns: Mapping[str, Column]) -> bytes:
    """Write rows of values as a table; a key that a row lacks becomes ``n/a``."""
    texts = ([column.text(row.get(name)) for name, column in columns.items()] for row in rows)
    return table(columns, texts)


def dump_frame(frame: pd.DataFrame, columns: Mapping[str, Column]) -> bytes:
    """Write a DataFrame as a table; a column that it lacks becomes ``n/a``."""
    absent = [NOT_AVAILABLE] * len(frame)
    texts = [
        column.texts(frame[name].tolist()) if name in frame else absent
        for name, column in columns.items()
    ]
    return table(columns, zip(*texts, strict=True))


def make_frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Column]) -> pd.DataFrame:
    """Make a DataFrame with the declared types from rows of values.

    Parameters
    ----------
    rows : sequence of mapping
        A key that a row lacks, or that has None, is missing.
    columns : mapping of str to Column

    Returns
    -------
    pandas.DataFrame, shape (len(rows), len(columns))
        Numbers are float64, also those of whole numbers, since any may be missing; texts are
        objects. NaN where there is no value.
    """
    import numpy as np
    import pandas as pd

    made = {}
    for name, column in columns.items():
        values = [row.get(name) for row in rows]
        if column.dtype == "str":
            texts = np.array([math.nan if v is None else v for v in values], dtype=object)
            made[name] = pd.Series(texts, dtype=object)
        else:
            made[name] = pd.Series(np.array(values, dtype=np.float64))
    return pd.DataFrame(made, columns=list(columns))


# --- reading ------------------------------------------------------------------------------


def parse_json(text: str | bytes) -> Any:
    """Read JSON, bytes as UTF-8 with or without a byte order mark.

    Raises
    ------
    ValueError
        It is not JSON; says why.
    """
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It holds no JSON object; says why.
    """
    content = parse_json(read_bytes(path))
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004 - as for any other content
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none that can be read."""
    try:
        return load_json(path)
    except (OSError, ValueError):
        return {}


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table that the app wrote, as texts.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        A row has more or fewer cells than the first line, or the text is not UTF-8.
    """
    lines = read_bytes(path).decode("utf-8").rstrip("\n").split("\n")
    header = lines[0].split("\t")
    return [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]


def read_rows(path: Path, columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Read the rows of a table that the app wrote, as values.

    Parameters
    ----------
    path : Path
        The table; columns of it that are not among `columns` are left out.
    columns : mapping of str to Column
        Those that the table lacks, as one of an earlier version, are None in each row.

    Returns
    -------
    list of dict
        With the names of `columns` as keys; None for ``n/a``.

    Raises
    ------
    OSError, ValueError
        As for `read_table`; or a cell is not of its column's type.
    """
    return [
        {name: column.parse(row.get(name)) for name, column in columns.items()}
        for row in read_table(path)
    ]


def read_user_table(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Read a user's table of tab-separated values in UTF-8, UTF-16 or Latin-1.

    Parameters
    ----------
    path : Path
        The table; its first line names the columns.

    Returns
    -------
    columns : list of str
    rows : list of dict
        A missing cell is None; surplus cells are left out. Blank lines are skipped.

    Raises
    ------
    ValueError
        It cannot be read, or commas or semicolons separate its columns; says which.
    """
    try:
        text = _decode(read_bytes(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read ({reason(error)}).") from None
    columns, *lines = [line.split("\t") for line in _LINE_END.split(text) if line] or [[]]
    rows = [dict(zip_longest(columns, cells[: len(columns)])) for cells in lines]
    if len(columns) == 1:
        for mark, name in ((",", "commas"), (";", "semicolons")):
            if mark in columns[0]:
                raise ValueError(
                    f"must be tab-separated (TSV), but {name} separate its columns. Save it as "
                    "tab-separated text."
                )
    return columns, rows


def _decode(content: bytes) -> str:
    """Decode a text that any program may have written, such as a spreadsheet."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # any byte is a character there
