"""How far the models agree on a participant's images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_app.bids.outputs import WHOLE
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.reports.markup import element, foreign
from bids_app.reports.page import heads, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bids_app.reports.markup import Markup

    Row = dict[str, str]


def agreement_section(comparisons: Mapping[str, Sequence[Row]]) -> Markup | None:
    """Make the section with a line for each image and pair of models; nothing without any.

    Parameters
    ----------
    comparisons : mapping of str to sequence of dict
        By title of the image, rows with the keys of `bids_app.group.model_agreement.COLUMNS`.
    """
    rows = [row for found in comparisons.values() for row in found]
    if not rows:
        return None
    regions = list(dict.fromkeys(row["name"] for row in rows))
    lines = []
    for image, found in comparisons.items():
        pairs: dict[tuple[str, str], dict[str, Row]] = {}
        for row in found:
            pair = (_named(row, "model"), _named(row, "other_model"))
            pairs.setdefault(pair, {})[row["name"]] = row
        for pair, of_region in pairs.items():
            cells = (_cell(of_region.get(name)) for name in regions)
            lines.append(
                element(
                    "tr",
                    element("th", foreign(image), scope="row"),
                    element("td", foreign(" and ".join(pair))),
                    *(element("td", cell, class_="number") for cell in cells),
                )
            )
    names = heads(*(f"{name[:1].upper()}{name[1:]}" for name in regions), class_="number")
    return element(
        "section",
        element("h2", "Agreement of models", id="agreement"),
        table("Dice of both maps, 0 to 1", [*heads("Image", "Models"), *names], lines),
        element(
            "p",
            "In brackets the volume by the first model less that by the second, in per cent of "
            "their mean. From ",
            element("code", "*_comparison.tsv"),
            " of each image; the group level gathers them in ",
            element("code", f"{WHOLE}_comparison.tsv"),
            ".",
            class_="note",
        ),
        aria_labelledby="agreement",
    )


def _named(row: Row, column: str) -> str:
    version = row.get(f"{column}_version", NOT_AVAILABLE)
    return row[column] if version == NOT_AVAILABLE else f"{row[column]} {version}"


def _cell(row: Row | None) -> str:
    if row is None or row["dice"] == NOT_AVAILABLE:
        return NOT_AVAILABLE
    difference = row["difference_percent"]
    told = "" if difference == NOT_AVAILABLE else f" ({float(difference):+.1f} %)"
    return f"{float(row['dice']):.3f}{told}"
