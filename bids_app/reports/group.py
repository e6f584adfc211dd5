"""The page of a whole dataset: which results to look at, and how the volumes are spread."""

from __future__ import annotations

import csv
from statistics import median
from typing import TYPE_CHECKING

from bids_app.columns import MEASURES, PARTS, QUALITY, REGIONS
from bids_app.derivatives import (
    ENTITIES,
    GROUP_REPORT,
    GROUP_TABLE,
    NOT_AVAILABLE,
    report_name,
)
from bids_app.errors import NoScanError
from bids_app.files import write_atomic
from bids_app.models.store import region
from bids_app.quality import FLAGS
from bids_app.reports.markup import element, foreign
from bids_app.reports.page import (
    anchor,
    badges,
    heads,
    measure_name,
    millilitres,
    page,
    swatch,
    table,
    title_block,
    volume_head,
)
from bids_app.reports.plots import Point, distribution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bids_app.reports.markup import Markup

    Row = dict[str, str]

WHOLE_COLOR = "#8A939B"
MOST_GROUPS = 12  # bands in one drawing
_VOLUME = "_mm3"
_SHOWN = ("voxel_size_mm",)  # of the measures beside volumes; the others are in the table alone


def write_group_report(output_dir: Path) -> Path:
    """Write the page of a dataset from its table of volumes.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset, with `GROUP_TABLE`.

    Returns
    -------
    Path
        The page: one file, the same bytes for the same table.

    Raises
    ------
    NoScanError
        There is no table, or it has no row.
    OutputError
        The page cannot be written.
    """
    rows = _read(output_dir / GROUP_TABLE)
    reported = {row["participant_id"] for row in rows}
    reported = {name for name in reported if (output_dir / report_name(name)).is_file()}
    flagged = sum(bool(_flags(row)) for row in rows)
    sections = {
        "Flags": _flag_counts(rows) if flagged else None,
        "Volumes": _distributions(rows, reported),
        "Results": _results(rows, reported),
    }
    links = [
        element("li", element("a", name, href=f"#{name.lower()}"))
        for name, section in sections.items()
        if section
    ]
    main = [
        title_block("All participants", output_dir, len(rows), flagged),
        element("nav", element("ul", *links), aria_label="On this page"),
        *sections.values(),
    ]
    path = output_dir / GROUP_REPORT
    write_atomic(path, page("All participants: brainstem", main, script="sort.js"))
    return path


def _read(path: Path) -> list[Row]:
    rows: list[Row] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows:
        raise NoScanError(f"{path}: no results. Run the participant level, then the group level.")
    return rows


def _flag_counts(rows: Sequence[Row]) -> Markup:
    counts: dict[str, int] = {}
    for row in rows:
        for flag in _flags(row):
            counts[flag] = counts.get(flag, 0) + 1
    lines = [
        element(
            "tr",
            element("th", badges([flag]), scope="row"),
            element("td", f"{number:,}", class_="number"),
            element("td", FLAGS.get(flag, "")),
        )
        for flag, number in sorted(counts.items(), key=lambda item: -item[1])
    ]
    heading = element("h2", "Flags", id="flags")
    content = table(
        "What the flags say",
        [*heads("Flag"), *heads("Results", class_="number"), *heads("Meaning")],
        lines,
    )
    return element("section", heading, content, aria_labelledby="flags")


# --- distributions ------------------------------------------------------------------------


def _distributions(rows: Sequence[Row], reported: set[str]) -> Markup:
    regions = [c.removesuffix(_VOLUME) for c in rows[0] if _is_volume(c)]
    keys = _groups(rows)
    figures, lines = [], []
    for index, name in enumerate(regions, 1):
        color = WHOLE_COLOR if name == "brainstem" else region(index, name).color
        groups: dict[str, list[Point]] = {}
        for row, key in zip(rows, keys, strict=True):
            if (volume := row[name + _VOLUME]) != NOT_AVAILABLE:
                point = Point(float(volume) / 1000, _name(row), _address(row, reported))
                groups.setdefault(key, []).append(point)
        if groups:
            figures.append(distribution(volume_head(name), color, groups))
            lines += [_summary(name, color, key, points) for key, points in groups.items()]
    names = ("Results", "Median (ml)", "Lowest (ml)", "Highest (ml)")
    head = [*heads("Region", "Group"), *heads(*names, class_="number")]
    return element(
        "section",
        element("h2", "Volumes", id="volumes"),
        element(
            "p",
            "Each dot is a result. Boxes hold the middle half, with a line at the median. A ringed "
            "dot lies out by more than 3.5 robust standard deviations and leads to its report.",
            class_="lead",
        ),
        element("div", *figures, class_="plots"),
        element(
            "details",
            element("summary", "Volumes in numbers"),
            table("Volumes in numbers", head, lines),
        ),
        aria_labelledby="volumes",
    )


def _groups(rows: Sequence[Row]) -> list[str]:
    """Name the group of each row: its model, and its session where these are few."""
    with_session = [
        " ".join(part for part in (_model(row), row["session_id"]) if part != NOT_AVAILABLE)
        for row in rows
    ]
    few = len(set(with_session)) <= MOST_GROUPS
    return with_session if few else [_model(row) for row in rows]


def _summary(name: str, color: str, group: str, points: Sequence[Point]) -> Markup:
    values = [point.value for point in points]
    numbers = (median(values), min(values), max(values))
    return element(
        "tr",
        element("th", swatch(color), name, scope="row"),
        element("td", foreign(group)),
        element("td", f"{len(values):,}", class_="number"),
        *(element("td", f"{number:.2f}", class_="number") for number in numbers),
    )


# --- all results --------------------------------------------------------------------------


def _results(rows: Sequence[Row], reported: set[str]) -> Markup:
    columns = {c: _class(c, rows) for c in rows[0] if _is_shown(c, rows)}
    head = heads("Flags", "Participant")
    for column, class_ in columns.items():
        head += heads(_head(column), class_=class_)
    ordered = sorted(rows, key=lambda row: not _flags(row))  # stable: else as in the table
    lines = [_line(row, columns, reported) for row in ordered]
    return element(
        "section",
        element("h2", "Results", id="results"),
        element(
            "p",
            "Flagged results come first. All columns, also those left out here, are in ",
            element("code", GROUP_TABLE),
            "; the file beside it explains them.",
            class_="lead",
        ),
        table("All results", head, lines, class_="sortable"),
        aria_labelledby="results",
    )


def _line(row: Row, columns: Mapping[str, str | None], reported: set[str]) -> Markup:
    flags = _flags(row)
    name = foreign(row["participant_id"])
    if address := _address(row, reported):
        name = element("a", name, href=address)
    return element(
        "tr",
        # Sorted by how many flags there are; a second click brings the flagged to the top again.
        element("td", badges(flags), data_value=str(len(flags))),
        element("th", name, scope="row"),
        *(_cell(column, row[column], class_) for column, class_ in columns.items()),
        class_="flagged" if flags else None,
    )


def _cell(column: str, value: str, class_: str | None) -> Markup:
    if class_ is None:
        return element("td", foreign(value))
    return element("td", millilitres(value) if _is_volume(column) else value, class_=class_)


def _class(column: str, rows: Sequence[Row]) -> str | None:
    """Class of a column's cells: ``number`` where all that is there is numbers."""
    try:
        for row in rows:
            float("nan" if row[column] == NOT_AVAILABLE else row[column])
    except ValueError:
        return None
    return "number"


def _is_shown(column: str, rows: Sequence[Row]) -> bool:
    if column in ("participant_id", "flags", "source"):
        return False
    if column in MEASURES:
        return _is_volume(column) or column in _SHOWN
    if column in QUALITY:
        return not column.startswith(PARTS)
    if column in ("session_id", *ENTITIES):
        return any(row[column] != NOT_AVAILABLE for row in rows)
    return True


def _is_volume(column: str) -> bool:
    return column.endswith(_VOLUME) and column.removesuffix(_VOLUME) in REGIONS


def _head(column: str) -> str:
    if _is_volume(column):
        return volume_head(column.removesuffix(_VOLUME))
    return measure_name(column.removesuffix("_id"))


# --- one row ------------------------------------------------------------------------------


def _flags(row: Row) -> list[str]:
    flags = row["flags"]
    return [] if flags == NOT_AVAILABLE else flags.split(",")


def _model(row: Row) -> str:
    return f"{row['model']} {row['model_version']}".removesuffix(f" {NOT_AVAILABLE}")


def _name(row: Row) -> str:
    parts = (row[column] for column in ("participant_id", "session_id", *ENTITIES))
    return " ".join(part for part in parts if part != NOT_AVAILABLE)


def _address(row: Row, reported: set[str]) -> str:
    """Address of a row's report, beside this page; empty where there is none."""
    if row["participant_id"] not in reported:
        return ""
    place = anchor(row["source"], row["model"], row["model_version"])
    return f"{report_name(row['participant_id'])}#{place}"
