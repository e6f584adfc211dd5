"""The page of a whole dataset: which results to look at, and how the volumes are spread."""

from __future__ import annotations

import csv
from statistics import mean, median, stdev
from typing import TYPE_CHECKING

from bids_app.bids.outputs import ENTITIES, GroupFiles, report_name
from bids_app.errors import NoScanError
from bids_app.group.longitudinal import LEAST_REPEATS
from bids_app.group.table import flags_of
from bids_app.io.files import write_atomic
from bids_app.io.tables import NOT_AVAILABLE, read_json
from bids_app.measures.flags import FLAGS
from bids_app.regions import REGIONS, region
from bids_app.reports.markup import element, foreign
from bids_app.reports.methods import methods
from bids_app.reports.methods_text import group_sentences
from bids_app.reports.page import (
    badges,
    counted,
    heads,
    notice,
    page,
    swatch,
    table,
    title_block,
    volume_head,
)
from bids_app.reports.plots import Point, distribution
from bids_app.reports.results import VOLUME, address, is_volume, results_section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bids_app.reports.markup import Markup

    Row = dict[str, str]

WHOLE_COLOR = "#8A939B"
MOST_GROUPS = 12  # bands in one drawing
MOST_FAILED = 20  # images named above all
_DOTS = (
    "Each dot is {}. Boxes hold the middle half, with a line at the median. A ringed dot lies out "
    "by more than 3.5 robust standard deviations and leads to its report."
)


def write_group_report(files: GroupFiles, *, left_out: int = 0) -> Path:
    """Write the page of a dataset from its tables.

    Parameters
    ----------
    files : GroupFiles
        Names the tables, of which that of volumes is there, and the page.
    left_out : int
        Results of the folder that are in no table, as the user did not ask for them.

    Returns
    -------
    Path
        The page: one file, the same bytes for the same tables.

    Raises
    ------
    NoScanError
        There is no table of volumes, or it has no row.
    OutputError
        The page cannot be written.
    """
    rows = _read(files.volumes)
    if not rows:
        raise NoScanError(
            f"{files.volumes}: no results. Run the participant level, then the group level."
        )
    reported = {row["participant_id"] for row in rows}
    reported = {name for name in reported if (files.folder / report_name(name)).is_file()}
    told = read_json(files.volumes.with_suffix(".json")).get("flags")
    told = told if isinstance(told, dict) else {}
    meanings, thresholds = told.get("Levels", FLAGS), told.get("Thresholds", {})
    changes = _read(files.longitudinal)
    complete = [row for row in rows if row["flags"] != "failed"]
    flagged = sum(bool(flags_of(row)) for row in complete)
    sections = {
        "Flags": _flag_counts(complete, meanings) if flagged else None,
        "Volumes": _distributions(rows, reported),
        "Change": _changes(changes, files),
        "Models": _models(_read(files.comparison)),
        "Results": results_section(rows, reported, meanings, thresholds),
        "Methods": methods((), group_sentences(rows, changes, thresholds)),
    }
    links = [
        element("li", element("a", name, href=f"#{name.lower()}"))
        for name, section in sections.items()
        if section
    ]
    note = (
        f"A selection: {counted(left_out, 'result')} of this folder "
        f"{'was' if left_out == 1 else 'were'} not asked for and left out."
    )
    main = [
        title_block(
            "Chosen results" if left_out else "All participants",
            files.folder,
            len(complete),
            flagged,
            len(rows) - len(complete),
        ),
        element("p", note, class_="notice") if left_out else None,
        notice("Could not be processed", _failed(rows), level="h2"),
        element("nav", element("ul", *links), aria_label="On this page"),
        *sections.values(),
    ]
    write_atomic(files.report, page("All participants: brainstem", main, script="group.js"))
    return files.report


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def _section(name: str, *content: Markup | None) -> Markup:
    place = name.lower()
    return element("section", element("h2", name, id=place), *content, aria_labelledby=place)


def _failed(rows: Sequence[Row]) -> list[str]:
    """Name the images that could not be processed, and why."""
    told = [
        f"{row['source']}, model {row['model']}: {row['failure']}"
        for row in rows
        if "failed" in flags_of(row)
    ]
    more = len(told) - MOST_FAILED
    return [*told[:MOST_FAILED], *([f"and {more:,} more, in the table below"] if more > 0 else [])]


def _flag_counts(rows: Sequence[Row], meanings: Mapping[str, str]) -> Markup:
    counts: dict[str, int] = {}
    for row in rows:
        for flag in flags_of(row):
            counts[flag] = counts.get(flag, 0) + 1
    lines = [
        element(
            "tr",
            element("th", badges([flag], meanings), scope="row"),
            element("td", f"{number:,}", class_="number"),
            element("td", meanings.get(flag, "")),
        )
        for flag, number in sorted(counts.items(), key=lambda item: -item[1])
    ]
    head = [*heads("Flag"), *heads("Results", class_="number"), *heads("Meaning")]
    return _section("Flags", table("What the flags say", head, lines))


# --- distributions ------------------------------------------------------------------------


def _distributions(rows: Sequence[Row], reported: set[str]) -> Markup:
    regions = {c.removesuffix(VOLUME): c for c in rows[0] if is_volume(c)}
    figures, lines = _drawn(rows, regions, _groups(rows), reported)
    names = ("Results", "Median (ml)", "Lowest (ml)", "Highest (ml)")
    head = [*heads("Region", "Group"), *heads(*names, class_="number")]
    batches = {row.get("batch", NOT_AVAILABLE) for row in rows} - {NOT_AVAILABLE}
    of_batches = None
    if 1 < len(batches) <= MOST_GROUPS:
        of_batches = element(
            "details",
            element("summary", "By site and scanner"),
            element(
                "div",
                *_drawn(rows, regions, [row["batch"] for row in rows], reported)[0],
                class_="plots",
            ),
        )
    return _section(
        "Volumes",
        element("p", _DOTS.format("a result"), class_="lead"),
        element("div", *figures, class_="plots"),
        of_batches,
        element(
            "details",
            element("summary", "Volumes in numbers"),
            table("Volumes in numbers", head, lines),
        ),
    )


def _drawn(
    rows: Sequence[Row], regions: Mapping[str, str], keys: Sequence[str], reported: set[str]
) -> tuple[list[Markup], list[Markup]]:
    """Draw the volumes of each region in groups; give the drawings, and the groups in numbers."""
    figures, lines = [], []
    for index, (name, column) in enumerate(regions.items(), 1):
        color = _color(index, name)
        groups: dict[str, list[Point]] = {}
        for row, key in zip(rows, keys, strict=True):
            if (volume := row[column]) != NOT_AVAILABLE and "no_brainstem" not in flags_of(row):
                point = Point(float(volume) / 1000, _name(row), address(row, reported))
                groups.setdefault(key, []).append(point)
        if groups:
            figures.append(distribution(volume_head(name), color, groups))
            lines += [_summary(name, color, key, points) for key, points in groups.items()]
    return figures, lines


def _color(index: int, name: str) -> str:
    return WHOLE_COLOR if name == "brainstem" else region(index, name).color


def _groups(rows: Sequence[Row]) -> list[str]:
    """Name the group of each row: its model, and its session where these are few."""
    if all(row["session_id"] == NOT_AVAILABLE for row in rows):
        return [_model(row) for row in rows]
    with_session = [f"{_model(row)} {_session(row)}" for row in rows]
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


# --- sessions, and models -----------------------------------------------------------------


def _changes(rows: Sequence[Row], files: GroupFiles) -> Markup | None:
    """Show the changes from the first session to later ones, if there are any."""
    if not rows:
        return None
    several = len({(row["model"], row["model_version"]) for row in rows}) > 1
    names = [
        " ".join(
            [*([_model(row)] if several else []), row["first_session_id"], "to", row["session_id"]]
        )
        for row in rows
    ]
    if len(set(names)) > MOST_GROUPS:
        names = [_model(row) for row in rows]
    figures = []
    for index, name in enumerate(REGIONS, 1):
        groups: dict[str, list[Point]] = {}
        for row, group in zip(rows, names, strict=True):
            if (change := row[f"{name}_change_percent"]) != NOT_AVAILABLE:
                groups.setdefault(group, []).append(Point(float(change), _name(row), ""))
        if groups:
            title = f"{name[:1].upper()}{name[1:]} (change in %)"
            figures.append(distribution(title, _color(index, name), groups))
    flagged = sum(row["flags"] != NOT_AVAILABLE for row in rows)
    text = (
        f"{counted(len(rows), 'change')} from a first session, {flagged:,} with a flag, such as "
        f"another scanner. {_beyond_noise(rows)} All are in "
    )
    return _section(
        "Change",
        element("p", text, element("code", files.longitudinal.name), ".", class_="lead"),
        element("div", *figures, class_="plots"),
    )


def _beyond_noise(rows: Sequence[Row]) -> str:
    """Tell how many changes stand out of the noise, or why that cannot be told."""
    told = [row for row in rows if row["noise_source"] in ("repeats", "changes")]
    if not told:
        alike = len(
            {row["participant_id"] for row in rows if row["flags"] in (NOT_AVAILABLE, "no_date")}
        )
        return (
            f"Which are beyond the noise cannot be told: too few unflagged changes ({alike:,}; "
            f"{LEAST_REPEATS} participants needed a model) and too few repeated scans."
        )
    beyond = sum(row["beyond_noise"] != NOT_AVAILABLE for row in told)
    return (
        f"{beyond:,} of {len(told):,} are beyond the noise in a region at least. By chance that is "
        "about one in twenty in each region; a change common to all, as by age or a new "
        "software of the scanner, takes many beyond."
    )


def _models(rows: Sequence[Row]) -> Markup | None:
    """Show how far models agree, if there are several."""
    pairs: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if row["difference_percent"] != NOT_AVAILABLE:
            pair = (_model(row), _model(row, "other_model"))
            of_pair = pairs.setdefault(pair, {})
            of_pair.setdefault(row["name"], []).append(row)
    if not pairs:
        return None
    figures, lines = [], []
    for pair, regions in pairs.items():
        title = " less ".join(pair)
        groups = {
            name: [Point(float(row["difference_percent"]), _name(row), "") for row in found]
            for name, found in regions.items()
        }
        figures.append(distribution(f"{title} (% of the mean volume)", WHOLE_COLOR, groups))
        lines += [_agreement(title, name, found) for name, found in regions.items()]
    names = ("Images", "Dice, median", "Dice, lowest", "Difference (%)", "95 % of differences (%)")
    head = [*heads("Models", "Region"), *heads(*names, class_="number")]
    return _section(
        "Models",
        element("p", _DOTS.format("an image"), class_="lead"),
        element("div", *figures, class_="plots"),
        table("Model against model", head, lines),
    )


def _agreement(title: str, name: str, rows: Sequence[Row]) -> Markup:
    """Write median and lowest Dice, and the limits of agreement of Bland and Altman (1986)."""
    overlaps = [float(row["dice"]) for row in rows if row["dice"] != NOT_AVAILABLE]
    differences = [float(row["difference_percent"]) for row in rows]
    middle = mean(differences)
    limits = NOT_AVAILABLE
    if len(differences) > 1:
        reach = 1.96 * stdev(differences)
        limits = f"{middle - reach:.1f} to {middle + reach:.1f}"
    numbers = (f"{median(overlaps):.3f}", f"{min(overlaps):.3f}") if overlaps else ("n/a", "n/a")
    return element(
        "tr",
        element("th", foreign(title), scope="row"),
        element("td", foreign(name)),
        element("td", f"{len(rows):,}", class_="number"),
        *(element("td", text, class_="number") for text in (*numbers, f"{middle:.1f}", limits)),
    )


# --- one row ------------------------------------------------------------------------------


def _model(row: Row, column: str = "model") -> str:
    return f"{row[column]} {row[f'{column}_version']}".removesuffix(f" {NOT_AVAILABLE}")


def _session(row: Row) -> str:
    return "no session" if row["session_id"] == NOT_AVAILABLE else row["session_id"]


def _name(row: Row) -> str:
    parts = (row[column] for column in ("participant_id", "session_id", *ENTITIES))
    return " ".join(part for part in parts if part != NOT_AVAILABLE)
