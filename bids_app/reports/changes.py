"""Changes between a participant's sessions, as the group level told them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_app.bids.columns import LONGITUDINAL
from bids_app.bids.outputs import ENTITIES, WHOLE
from bids_app.group.table import flags_of
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.regions import REGIONS
from bids_app.reports.markup import element, foreign
from bids_app.reports.page import badges, heads, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.reports.markup import Markup

    Row = dict[str, str]

_FLAGS = LONGITUDINAL["flags"].levels
_NOISE = LONGITUDINAL["noise_source"].levels


def changes_section(changes: Sequence[Row]) -> Markup | None:
    """Make the section with the changes of a participant, a line each; nothing without any.

    Parameters
    ----------
    changes : sequence of dict
        With the keys of `bids_app.bids.columns.LONGITUDINAL`.
    """
    if not changes:
        return None
    head = [
        *heads("Change"),
        *heads("Years", *(f"{r[:1].upper()}{r[1:]} (%)" for r in REGIONS), class_="number"),
        *heads("Beyond noise", "Flags"),
    ]
    flags = dict.fromkeys(flag for change in changes for flag in flags_of(change))
    noises = dict.fromkeys(change["noise_source"] for change in changes)
    return element(
        "section",
        element("h2", "Change between sessions", id="change"),
        table("Change from the first session", head, [_line(change) for change in changes]),
        element(
            "p",
            "In per cent of the first volume; in brackets the smallest change that stands out of "
            "the noise with 95 %. ",
            *(f"Noise is taken of {_NOISE[noise]}. " for noise in noises if noise in _NOISE),
            "A change that all participants share, as by age or a new software of the scanner, is "
            "beyond noise too. From ",
            element("code", f"{WHOLE}_longitudinal.tsv"),
            ".",
            class_="note",
        ),
        element(
            "ul", *(element("li", f"{f}: {_FLAGS[f]}") for f in flags if f in _FLAGS), class_="note"
        )
        if flags
        else None,
        aria_labelledby="change",
    )


def _line(change: Row) -> Markup:
    flags = flags_of(change)
    beyond = change["beyond_noise"].replace(",", ", ")
    if beyond == NOT_AVAILABLE:
        beyond = "none" if change["noise_source"] in ("repeats", "changes") else "cannot be told"
    return element(
        "tr",
        element("th", foreign(_name(change)), scope="row"),
        element("td", change["years"], class_="number"),
        *(element("td", _percent(change, region), class_="number") for region in REGIONS),
        element("td", beyond),
        element("td", badges(flags, _FLAGS)),
        class_="flagged" if flags else None,
    )


def _name(change: Row) -> str:
    entities = (f"{key}-{change[key]}" for key in ENTITIES if change[key] != NOT_AVAILABLE)
    name = f"{change['first_session_id']} to {change['session_id']}"
    return f"{' '.join((name, *entities))}, model {change['model']}"


def _percent(change: Row, region: str) -> str:
    percent, least = (
        change[f"{region}_{end}"] for end in ("change_percent", "smallest_detectable_percent")
    )
    if percent == NOT_AVAILABLE:
        return NOT_AVAILABLE
    return f"{float(percent):+.1f} ({least if least == NOT_AVAILABLE else f'{float(least):.1f}'})"
