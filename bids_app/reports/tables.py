"""The tables of one result in a participant's page: what matters first, all else folded away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bids_app.bids.columns import QUALITY, VOLUMES
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.measures.flags import CHECKS
from bids_app.regions import REGIONS, of_brainstem, region
from bids_app.reports.markup import element, foreign, join
from bids_app.reports.page import badges, heads, measure_name, millilitres, swatch, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bids_app.measures.flags import Check
    from bids_app.reports.markup import Markup

    Row = dict[str, str]

# What a check looks at, in words for a reader who sees all in order; other checks go by the name
# of their measure.
_LOOKS_AT = {
    "low_self_consistency": "Steadiness, the main measure (Dice, mean)",
    "networks_disagree": "Networks agree (Dice)",
    "mirrors_disagree": "Same result on the mirrored image (Dice)",
    "low_confidence": "Network is sure (soft Dice)",
    "low_localizer_confidence": "Brainstem was located surely (probability)",
    "fragmented": "Regions are in one piece (share of the largest)",
    "wrong_order": "Midbrain over pons over medulla (mm)",
    "regions_disconnected": "Neighbouring regions touch (mm²)",
    "asymmetric": "Left and right are alike (Dice)",
    "low_resolution": "Longest voxel edge (mm)",
    "outlier": "Volumes are like those of the dataset (robust z)",
    "outlier_in_batch": "Volumes are like those of site and scanner (robust z)",
}
_FIRST = ("index", "name", "abbreviation", "volume_mm3")  # told elsewhere, or not worth a line


def volumes_table(rows: Sequence[Row], rank: Callable[[str, float], str | None]) -> Markup:
    """Make the table of volumes.

    Parameters
    ----------
    rows : sequence of dict
        Of the table of volumes.
    rank : callable
        Gives for a region and its volume in mm3 its place in the dataset.
    """
    whole = next((r["volume_mm3"] for r in rows if r["index"] == NOT_AVAILABLE), NOT_AVAILABLE)
    ranks = [rank(row["name"], float(row["volume_mm3"])) for row in rows]
    names = ["Volume (ml)", "± SD (ml)", "Share (%)", *(["In the dataset"] if any(ranks) else [])]
    regions = [region(int(r["index"]), r["name"]) for r in rows if r["index"] != NOT_AVAILABLE]
    parts = {part.name for part in of_brainstem(regions)}
    lines = []
    for row, place in zip(rows, ranks, strict=True):
        is_whole = row["index"] == NOT_AVAILABLE
        numbers = [
            millilitres(row["volume_mm3"]),
            millilitres(row.get("volume_sd_mm3", NOT_AVAILABLE)),
            _share(row["volume_mm3"], whole) if is_whole or row["name"] in parts else NOT_AVAILABLE,
            *([place or NOT_AVAILABLE] if any(ranks) else []),
        ]
        color = None if is_whole else swatch(region(int(row["index"]), row["name"]).color)
        lines.append(
            element(
                "tr",
                element("th", color, foreign(row["name"]), scope="row"),
                *(element("td", number, class_="number") for number in numbers),
                class_="whole" if is_whole else None,
            )
        )
    return join(
        [
            table("Volumes", [*heads("Region"), *heads(*names, class_="number")], lines),
            element(
                "p",
                "SD: standard deviation over the single passes of which the result is the mean. "
                "Share: of the whole brainstem. "
                + ("In the dataset: place from the smallest." if any(ranks) else ""),
                class_="note",
            ),
        ]
    )


def measures_table(rows: Sequence[Row]) -> Markup | None:
    """Make the folded table of all other measures, a line a measure."""
    keys = [key for key in (rows[0] if rows else {}) if key not in _FIRST]
    lines = [
        element(
            "tr",
            _measure(measure_name(key), VOLUMES[key].description if key in VOLUMES else None),
            *(
                element("td", foreign(_number(row.get(key, NOT_AVAILABLE))), class_="number")
                for row in rows
            ),
        )
        for key in keys
        if any(row.get(key, NOT_AVAILABLE) != NOT_AVAILABLE for row in rows)
    ]
    if not lines:
        return None
    head = [*heads("Measure"), *_foreign_heads(row["name"] for row in rows)]
    summary = "All measures: areas, diameters, surfaces and more"
    return element("details", element("summary", summary), table("All measures", head, lines))


def checks_table(
    quality: Mapping[str, Any], flags: Iterable[str], thresholds: Mapping[str, float]
) -> Markup | None:
    """Make the table of a result's checks: what was measured, at the worst place, and its limit.

    Parameters
    ----------
    quality : mapping of str to number
        Measures of quality.
    flags : iterable of str
        Those that were raised.
    thresholds : mapping of str to float
        In place of those of `CHECKS`.
    """
    numbers = {k: v for k, v in quality.items() if isinstance(v, int | float)}
    raised = set(flags)
    lines = []
    for check in CHECKS:
        measured = check.measured(numbers)
        if not measured or check.measure is None:
            continue
        worst = min(measured) if check.comparison == "<" else max(measured)
        where = f" ({_where(check, numbers, worst)})" if len(set(measured)) > 1 else ""
        lines.append(
            element(
                "tr",
                element("th", _LOOKS_AT.get(check.name, measure_name(check.measure)), scope="row"),
                element("td", f"{worst:,.0f}" if worst >= 1000 else f"{worst:.3g}", foreign(where)),
                element("td", check.limit(thresholds)),
                element("td", badges([check.name]) if check.name in raised else "in order"),
                class_="flagged" if check.name in raised else None,
            )
        )
    if not lines:
        return None
    head = heads("Check", "Found at worst", "Limit", "State")
    return table("Checks of quality", head, lines, class_="checks")


def quality_table(quality: Mapping[str, Any], thresholds: Mapping[str, float]) -> Markup | None:
    """Make the folded tables of all measures of quality with their limits, if any, those first.

    Parameters
    ----------
    quality : mapping of str to number
        Measures of quality.
    thresholds : mapping of str to float
        In place of those of `CHECKS`.
    """
    if not quality:
        return None
    found: dict[str, dict[str, str]] = {}  # by measure, then region: the key
    for key in sorted(quality, key=lambda key: _check_of(key) is None):
        name, measure = _split(key)
        found.setdefault(measure, {})[name] = key
    parts = [name for name in REGIONS if any(name in keys for keys in found.values())]
    by_region: list[Markup] = []
    others: list[Markup] = []
    for measure, keys in found.items():
        lines, columns = (others, [""]) if "" in keys else (by_region, parts)
        name, key = next(iter(keys.items()))
        check = _check_of(key)
        meaning = QUALITY[key].description if key in QUALITY else ""
        if name:  # of one region, in a line of all
            meaning = re.sub(rf"\bthe {name}\b", "the region", meaning)
        plain = _LOOKS_AT.get(check.name) if check and (name or key == check.measure) else None
        lines.append(
            element(
                "tr",
                _measure(plain or measure_name(measure), meaning),
                *(_value(quality, keys.get(column), thresholds) for column in columns),
                element("td", check.limit(thresholds) if check else "none", class_="number"),
            )
        )
    tables = {"Measures of regions": (parts, by_region), "Other measures": (["Value"], others)}
    return element(
        "details",
        element("summary", f"All {len(quality)} measures of quality: what each is, and its limit"),
        *(
            table(title, [*heads("Measure"), *heads(*columns, "Limit", class_="number")], lines)
            for title, (columns, lines) in tables.items()
            if lines
        ),
    )


def _where(check: Check, numbers: Mapping[str, float], worst: float) -> str:
    """Name the region, or the two regions, that a check's worst value is of."""
    key = next(k for k, v in numbers.items() if v == worst and k.endswith(f"_{check.measure}"))
    return key.removesuffix(f"_{check.measure}").replace("_", " and ")


def _split(key: str) -> tuple[str, str]:
    """Divide the key of a measure into its one region and the rest."""
    match = re.fullmatch(f"({'|'.join(REGIONS)})_((?!{'|'.join(REGIONS)}).+)", key)
    return (match[1], match[2]) if match else ("", key)


def _check_of(key: str) -> Check | None:
    """Give the check that looks at a measure, if one does."""
    return next((check for check in CHECKS if check.measured({key: 0.0})), None)


def _measure(name: str, meaning: str | None) -> Markup:
    """Head of a measure's line: its name, and below it what it is."""
    small = element("small", meaning) if meaning else None
    return element("th", foreign(name), small, scope="row")


def _value(quality: Mapping[str, Any], key: str | None, thresholds: Mapping[str, float]) -> Markup:
    """Write a measure of quality; framed where it is beyond its limit."""
    if key is None:
        return element("td", NOT_AVAILABLE, class_="number")
    value = quality[key]
    text = foreign(text_of(value))
    check = _check_of(key)
    if check and isinstance(value, int | float) and check.raised({key: value}, thresholds):
        text = element("span", text, class_="badge")
    return element("td", text, class_="number")


def _foreign_heads(names: Iterable[str]) -> list[Markup]:
    return [element("th", foreign(name), scope="col", class_="number") for name in names]


def _share(part: str, whole: str) -> str:
    if whole == NOT_AVAILABLE or float(whole) == 0:
        return NOT_AVAILABLE
    return f"{100 * float(part) / float(whole):.1f}"


def _number(text: str) -> str:
    """Write a number of a table with thousands set apart and no more digits than it bears."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.1f}"


def text_of(value: Any) -> str:
    """Write a value of a sidecar in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text_of(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(text_of(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
