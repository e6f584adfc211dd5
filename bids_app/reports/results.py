"""The table of all results in a dataset's page: what is shown of each, and the data behind it.

The first `STATIC` results stand in the page as they are, for readers without JavaScript. With it,
``group.js`` shows all of them from the data, a page at a time, to sort, filter and rate.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bids_app.bids.columns import MEASURES, OUTLIERS, QUALITY
from bids_app.bids.outputs import ENTITIES, RATINGS, report_name
from bids_app.group.table import flags_of
from bids_app.group.zscores import find_outliers, scores_of
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.regions import PARTS, REGIONS
from bids_app.reports.markup import Markup, element, foreign
from bids_app.reports.page import (
    anchor,
    badges,
    heads,
    measure_name,
    millilitres,
    table,
    volume_head,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = dict[str, str]

STATIC = 200  # results that stand in the page without JavaScript
MOST = 50_000  # results whose data a page holds; of more, the flagged ones and then the first
VOLUME = "_mm3"
FURTHEST = "furthest_z"
WHY = "why"  # which regions lie out, and how far; told beside the flags
_OWN = ("participant_id", "flags", "rating", "source", WHY)  # have places of their own, or none
_BEHIND = ("site", "manufacturer", "scanner_model", "field_strength_t")  # are in `batch`
_AMONG = {"outlier": "in the dataset", "outlier_in_batch": "at its site and scanner"}
_NAMES = {
    "etiv_mm3": "eTIV (ml)",
    "batch": "Site and scanner",
    "years_since_first": "Years since first",
    FURTHEST: "Furthest out (robust z)",
}


def results_section(
    rows: Sequence[Row],
    reported: set[str],
    meanings: Mapping[str, str],
    thresholds: Mapping[str, float],
) -> Markup:
    """Make the section with the table of all results.

    Parameters
    ----------
    rows : sequence of dict
        Of the group table.
    reported : set of str
        Participants that have a page.
    meanings : mapping of str to str
        By flag.
    thresholds : mapping of str to float
        By flag, in place of those of `bids_app.measures.flags.CHECKS`.
    """
    for row in rows:
        row[FURTHEST] = _furthest(row)
        row[WHY] = _why(row, thresholds)
    columns = {column: _kind(column, rows) for column in rows[0] if _is_shown(column, rows)}
    if any(row[FURTHEST] != NOT_AVAILABLE for row in rows):
        columns[FURTHEST] = "number"
    else:
        columns.pop(FURTHEST, None)
    # Stable: else as in the table.
    ordered = sorted(rows, key=lambda row: (row["flags"] != "failed", -len(flags_of(row))))
    kept = ordered[:MOST]
    head = heads("Flags", "Participant", "Rating")
    for column, kind in columns.items():
        head += heads(_head(column), class_=None if kind == "text" else "number")
    lines = [_line(row, columns, reported, meanings) for row in ordered[:STATIC]]
    cut = (
        f"This page holds {len(kept):,} of {len(rows):,} results: those with flags, then the first "
        "of the table. "
        if len(kept) < len(rows)
        else None
    )
    shown = (
        element("noscript", f"Without JavaScript the first {STATIC} are shown. ")
        if len(rows) > STATIC
        else None
    )
    return element(
        "section",
        element("h2", "Results", id="results"),
        element(
            "p",
            "Images that failed come first, then results with the most flags. "
            if any(row["flags"] == "failed" for row in rows)
            else "Results with the most flags come first. ",
            "Beside outlier stand the regions that lie out, each with its robust z. "
            if any(row[WHY] for row in rows)
            else None,
            cut,
            shown,
            "All columns, also those left out here, are in the table beside this page; its JSON "
            "file explains them.",
            class_="lead",
        ),
        _controls(rows),
        table("All results", head, lines, class_="results"),
        element("div", id="pages", hidden=True, class_="pages"),
        _data(kept, columns, reported, meanings),
        aria_labelledby="results",
    )


def is_volume(column: str) -> bool:
    """Tell whether a column holds volumes of the label map."""
    return column.endswith(VOLUME) and column.removesuffix(VOLUME) in REGIONS


def address(row: Row, reported: set[str]) -> str:
    """Address of a row's report, beside this page; empty where there is none."""
    if row["participant_id"] not in reported:
        return ""
    place = anchor(row["source"], row["model"], row["model_version"])
    return f"{report_name(row['participant_id'])}#{place}"


def _controls(rows: Sequence[Row]) -> Markup:
    """Make what filters and rates; the script shows it."""
    found = dict.fromkeys(flag for row in rows for flag in flags_of(row))
    choices = [
        element("option", "all results", value="all"),
        element("option", "with a flag", value="flagged"),
        element("option", "without a flag", value="unflagged"),
        element("option", "not rated", value="unrated"),
        element("option", "rated pass", value="pass"),
        element("option", "rated fail", value="fail"),
        *(element("option", flag, value=f"flag:{flag}") for flag in found),
    ]
    return element(
        "div",
        element("p", element("label", "Find ", element("input", type="search", id="find"))),
        element("p", element("label", "Show ", element("select", *choices, id="show"))),
        element("p", id="count", role="status"),
        element(
            "p",
            element("button", "Export ratings", type="button", id="export"),
            element("label", "Import ratings ", element("input", type="file", id="import")),
            class_="ratings",
        ),
        element(
            "p",
            "Ratings stay in this browser until they are exported. Put the exported ",
            element("code", RATINGS),
            " into the output folder and run the group level with the same options: the table then "
            "holds them.",
            class_="note",
        ),
        id="controls",
        hidden=True,
        class_="sieve",
    )


def _line(
    row: Row, columns: Mapping[str, str], reported: set[str], meanings: Mapping[str, str]
) -> Markup:
    flags = flags_of(row)
    name = foreign(row["participant_id"])
    if place := address(row, reported):
        name = element("a", name, href=place)
    return element(
        "tr",
        element("td", badges(flags, meanings), element("small", row[WHY]) if row[WHY] else None),
        element("th", name, scope="row"),
        element("td", row["rating"]),
        *(_cell(column, row[column], kind) for column, kind in columns.items()),
        class_="flagged" if flags else None,
    )


def _cell(column: str, value: str, kind: str) -> Markup:
    if kind == "text":
        return element("td", foreign(value))
    return element("td", _shown(column, value), class_="number")


def _shown(column: str, value: str) -> str:
    return millilitres(value) if is_volume(column) or column == "etiv_mm3" else value


def _data(
    rows: Sequence[Row],
    columns: Mapping[str, str],
    reported: set[str],
    meanings: Mapping[str, str],
) -> Markup:
    """Write what the script shows, as a JSON block; nothing in it can end the block."""
    kinds = {"flags": "flags", "participant_id": "participant", "rating": "rating", **columns}
    content = {
        "columns": [{"name": name, "kind": kind} for name, kind in kinds.items()],
        "meanings": meanings,
        "rows": [
            [
                *(_shown(name, row[name]) for name in kinds),
                row["source"],
                row["session_id"],
                row["model"],
                row["model_version"],
                int(row["participant_id"] in reported),
                row[WHY],
            ]
            for row in rows
        ],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return element("script", Markup(safe), type="application/json", id="data")


def _kind(column: str, rows: Sequence[Row]) -> str:
    """Tell ``number`` of a column where all that is there is numbers, else ``text``."""
    try:
        for row in rows:
            float("nan" if row[column] == NOT_AVAILABLE else row[column])
    except ValueError:
        return "text"
    return "number"


def _is_shown(column: str, rows: Sequence[Row]) -> bool:
    if column in _OWN or column in OUTLIERS or column in _BEHIND:
        return False
    if column in MEASURES:
        return is_volume(column) or column == "voxel_size_mm"
    if column in QUALITY:
        return not column.startswith(PARTS)
    if column in ("session_id", "batch", "years_since_first", "failure", *ENTITIES):
        return any(row[column] != NOT_AVAILABLE for row in rows)
    return True


def _furthest(row: Row) -> str:
    """Give the robust z that lies furthest out, of all regions."""
    scores = [row.get(f"{region}_robust_z", NOT_AVAILABLE) for region in REGIONS]
    return max((z for z in scores if z != NOT_AVAILABLE), key=_size, default=NOT_AVAILABLE)


def _why(row: Row, thresholds: Mapping[str, float]) -> str:
    """Tell which regions make a row outlying, and how far each lies out; empty if none does."""
    flags = flags_of(row)
    told = find_outliers(scores_of(row), thresholds)
    return "; ".join(f"{told[f]} {text}" for f, text in _AMONG.items() if f in told and f in flags)


def _size(text: str) -> float:
    return abs(float(text))


def _head(column: str) -> str:
    if column in _NAMES:
        return _NAMES[column]
    if is_volume(column):
        return volume_head(column.removesuffix(VOLUME))
    return measure_name(column.removesuffix("_id"))
