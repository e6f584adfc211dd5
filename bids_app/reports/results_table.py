"""The table of all results in the page of a dataset, and the data behind it.

The first `STATIC` results are in the page as HTML, for readers without JavaScript. With it,
``group.js`` shows all of them from the data, a page at a time, to sort, filter and rate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup
from pandas.api.types import is_numeric_dtype

from bids_app.bids.columns import GROUP, MEASURES, OUTLIERS, QUALITY
from bids_app.bids.labels import T1W
from bids_app.bids.outputs import ENTITIES
from bids_app.group.table import ALIKE
from bids_app.group.zscores import find_outliers
from bids_app.io.tables import NOT_AVAILABLE, Column
from bids_app.measures.flags import CHECKS
from bids_app.regions import PARTS, REGIONS
from bids_app.reports.page import measure_name, result_address, volume_heading

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from bids_app.group.table import GroupTables

    Floats = NDArray[np.float64]

STATIC = 200  # rows in the page without JavaScript
MOST = 50_000  # results whose data a page holds; of more, the flagged ones and then the first
LEAST_PEERS = 5  # results of a model, for a result to have a place among them
FURTHEST = "furthest_z"
_FIRST = {"flags": "flags", "participant_id": "participant", "rating": "rating"}
_HIDDEN = ("source", *_FIRST)
_IN_BATCH = ("site", "manufacturer", "scanner_model", "field_strength_t")  # shown as `batch`
_VOLUMES = tuple(f"{region}_mm3" for region in REGIONS)
_WHERE = {"outlier": "in the dataset", "outlier_in_batch": "at its site and scanner"}
_NAMES = {
    "etiv_mm3": "eTIV (ml)",
    "batch": "Site and scanner",
    "years_since_first": "Years since first",
    FURTHEST: "Furthest out (robust z)",
}


@dataclass(frozen=True)
class ResultsTable:
    """What the template shows.

    Attributes
    ----------
    columns : dict of str to str
        Headings after flags, participant and rating, with the kind of each column: ``text``,
        ``number`` or ``volume``.
    lines : list of dict
        The first rows.
    flags : list of str
        All flags that occur.
    explained : bool
        Whether a row says which regions are outliers.
    held, all : int
        Number of results in the data of the page, and in the table.
    data : Markup
        JSON for the script; it contains none of ``<>&``.
    """

    columns: dict[str, str]
    lines: list[dict[str, Any]]
    flags: list[str]
    explained: bool
    held: int
    all: int
    data: Markup


def results_table(tables: GroupTables) -> ResultsTable:
    """Make the table of all results, failed images first, then those with the most flags."""
    everything = tables.volumes
    flags = everything["flags"].fillna("")
    counts = np.where(flags == "", 0, flags.str.count(",") + 1)
    order = np.lexsort((-counts, flags != "failed"))[:MOST]
    rows = everything.iloc[order].assign(**{FURTHEST: lambda kept: _furthest(kept)})
    kinds = {column: _kind(rows, column) for column in rows if _is_shown(column, rows)}
    cells = [_texts(rows, column) for column in (*_FIRST, *kinds)]
    hidden = ("source", "session_id", "model", "model_version")
    cells += [rows[column].fillna(NOT_AVAILABLE).tolist() for column in hidden]
    reported = rows["participant_id"].isin(tables.reported).astype(int).tolist()
    why = _explanations(rows, tables.thresholds)
    places, peers = _places(everything, order)
    data = [list(row) for row in zip(*cells, reported, why, places, peers, strict=True)]
    content = {
        "columns": [{"name": n, "kind": kind} for n, kind in {**_FIRST, **kinds}.items()],
        "meanings": {check.name: check.explain(tables.thresholds) for check in CHECKS},
        "rows": data,
    }
    return ResultsTable(
        columns={_heading(column): kind for column, kind in kinds.items()},
        lines=[_line(row, kinds) for row in data[:STATIC]],
        flags=[
            str(flag) for flag in everything["flags"].dropna().str.split(",").explode().unique()
        ],
        explained=any(why),
        held=len(rows),
        all=len(everything),
        data=_script_json(content),
    )


def _script_json(content: object) -> Markup:
    """Write JSON that nothing in a dataset can end or leave."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - has none of the characters that HTML knows


def _line(row: list[Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """Describe a row of the data for the template."""
    (flags, participant, rating), rest = row[:3], row[3:]
    *_, source, _, model, version, reported, why, places, peers = row
    place = iter(places)
    cells = []
    for text, kind in zip(rest, kinds.values(), strict=False):
        among = next(place) if kind == "volume" else None
        cells.append((text, kind, f"{among:,} of {peers:,}" if among and peers else ""))
    return {
        "flags": [] if flags == NOT_AVAILABLE else flags.split(","),
        "why": why,
        "participant": participant,
        "address": result_address(participant, source, model, version) if reported else "",
        "rating": rating,
        "cells": cells,
    }


def _is_shown(column: str, rows: pd.DataFrame) -> bool:
    if column in _HIDDEN or column in OUTLIERS or column in _IN_BATCH:
        return False
    if column == "suffix":
        return bool(rows[column].fillna(T1W).ne(T1W).any())
    if column in MEASURES:
        return column in _VOLUMES or column == "voxel_size_mm"
    if column in QUALITY:
        return not column.startswith(PARTS)
    if column in ("session_id", "batch", "years_since_first", "failure", FURTHEST, *ENTITIES):
        return bool(rows[column].notna().any())
    return True


def _kind(rows: pd.DataFrame, column: str) -> str:
    if column in _VOLUMES:
        return "volume"
    return "number" if is_numeric_dtype(rows[column]) else "text"


def _texts(rows: pd.DataFrame, column: str) -> list[str]:
    values = rows[column].tolist()
    if column in _VOLUMES or column == "etiv_mm3":
        return [NOT_AVAILABLE if v != v else f"{v / 1000:.2f}" for v in values]
    if column == FURTHEST:
        return [NOT_AVAILABLE if v != v else f"{v:.2f}" for v in values]
    kind: Literal["float", "str"] = "float" if is_numeric_dtype(rows[column]) else "str"
    return GROUP.get(column, Column(column, kind, digits=None)).texts(values)


def _heading(column: str) -> str:
    if column in _VOLUMES:
        return volume_heading(column.removesuffix("_mm3"))
    return _NAMES.get(column) or measure_name(column.removesuffix("_id"))


def _furthest(rows: pd.DataFrame) -> Floats:
    """Give the robust z score furthest from 0 over all regions, shape (rows,)."""
    scores = rows[[f"{region}_robust_z" for region in REGIONS]].to_numpy(dtype=np.float64)
    furthest = np.where(np.isnan(scores), -1.0, np.abs(scores)).argmax(axis=1)
    values: Floats = scores[np.arange(len(scores)), furthest]
    return values


def _explanations(rows: pd.DataFrame, thresholds: Mapping[str, float]) -> list[str]:
    """Say for each row which regions are outliers, with their z scores; mostly empty."""
    texts = [""] * len(rows)
    flagged = np.flatnonzero(rows["flags"].str.contains("outlier", regex=False, na=False))
    records = rows[["flags", *OUTLIERS]].iloc[flagged].to_dict("records")
    for i, row in zip(flagged, records, strict=True):
        flags = row.pop("flags").split(",")
        found = find_outliers({str(c): z for c, z in row.items() if z == z}, thresholds)
        texts[i] = "; ".join(
            f"{found[flag]} {where}"
            for flag, where in _WHERE.items()
            if flag in found and flag in flags
        )
    return texts


def _places(rows: pd.DataFrame, order: NDArray[np.intp]) -> tuple[list[list[int]], list[int]]:
    """Place volumes among all of the same model, version and suffix, from the smallest.

    Returns
    -------
    places : list of list of int
        For each row of `order` and each region, 0 if there is no place.
    peers : list of int
        Number of results compared with, 0 if there are fewer than `LEAST_PEERS`.
    """
    flags = rows["flags"].fillna("").str.split(",")
    compared = rows[[not {"failed", "no_brainstem"} & set(found) for found in flags]]
    keys = [compared[name].fillna("") for name in ALIKE]
    volumes = compared[list(_VOLUMES)]
    ranks = volumes.groupby(keys).rank(method="average").reindex(rows.index).fillna(0)
    peers = compared.groupby(keys)["flags"].transform("size").reindex(rows.index).fillna(0)
    peers = peers.where(peers >= LEAST_PEERS, 0)
    places = np.floor(ranks.to_numpy())[order].astype(int)
    return places.tolist(), peers.to_numpy()[order].astype(int).tolist()
