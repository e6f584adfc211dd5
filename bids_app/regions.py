"""Regions of the brainstem: names, synonyms, colours and FreeSurfer codes, for all modules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIDBRAIN, PONS, MEDULLA = "midbrain", "pons", "medulla"
WHOLE_NAME = "brainstem"
PARTS = (MIDBRAIN, PONS, MEDULLA)
REGIONS = (*PARTS, WHOLE_NAME)


@dataclass(frozen=True)
class Region:
    """One label of a label map.

    Attributes
    ----------
    index : int
        Value in the label map.
    name, abbreviation : str
        As in tables.
    color : str
        ``#RRGGBB``.
    freesurfer : int or None
        Code in FreeSurfer's colour table; None if it has none.
    """

    index: int
    name: str
    abbreviation: str
    color: str
    freesurfer: int | None = None


# Colours that remain distinct with common kinds of colour blindness (Okabe and Ito, 2008).
_KNOWN = {
    MIDBRAIN: ("MB", "#E69F00", 173),
    PONS: ("PO", "#56B4E9", 174),
    MEDULLA: ("MO", "#009E73", 175),
}
_SYNONYMS = {  # in lower case, words separated by a space
    "mesencephalon": MIDBRAIN,
    "medulla oblongata": MEDULLA,
    "myelencephalon": MEDULLA,
    "brain stem": WHOLE_NAME,
}
_OTHER_COLORS = ("#CC79A7", "#D55E00", "#F0E442", "#0072B2", "#999999")


def region(index: int, name: str) -> Region:
    """Describe the region of a label value.

    Parameters
    ----------
    index : int
        Value in the label map, 1 to 255.
    name : str
        ``midbrain``, ``pons`` and ``medulla``, or a synonym such as ``Medulla_oblongata``, have
        fixed abbreviations, colours and FreeSurfer codes. Any other name is kept, and gets an
        abbreviation and a colour of its own.
    """
    plain = " ".join(re.split(r"[\s_-]+", name.strip().lower()))
    known = _SYNONYMS.get(plain, plain)
    name = known if known in (*_KNOWN, WHOLE_NAME) else name
    if name in _KNOWN:
        return Region(index, name, *_KNOWN[name])
    abbreviation = "".join(c for c in name.upper() if c.isalnum())[:4] or f"L{index}"
    return Region(index, name, abbreviation, _OTHER_COLORS[index % len(_OTHER_COLORS)])


# Parts that a model may distinguish beside its regions, in a map of their own: those of the
# midbrain, and the cerebellar peduncles, which do not count in the brainstem and have sides.
TEGMENTUM, TECTUM, SCP, MCP = "tegmentum", "tectum", "scp", "mcp"
PART_NAMES = (TEGMENTUM, TECTUM, SCP, MCP)
OF_MIDBRAIN = (TEGMENTUM, TECTUM)
PEDUNCLES = (SCP, MCP)
_PARTS_MAP = (
    Region(1, TEGMENTUM, "TEG", "#E69F00"),
    Region(2, TECTUM, "TEC", "#F0E442"),
    Region(3, f"left_{SCP}", "LSCP", "#0072B2"),
    Region(4, f"right_{SCP}", "RSCP", "#56B4E9"),
    Region(5, f"left_{MCP}", "LMCP", "#D55E00"),
    Region(6, f"right_{MCP}", "RMCP", "#CC79A7"),
)


def parts_map(parts: Sequence[str]) -> tuple[Region, ...]:
    """Describe the labels of the map of parts: peduncles left, then right.

    Parameters
    ----------
    parts : sequence of str
        Those of `PART_NAMES` that a model has, in any order.
    """
    return tuple(label for label in _PARTS_MAP if label.name.rpartition("_")[2] in parts)


def of_brainstem(regions: Sequence[Region]) -> Sequence[Region]:
    """Choose the regions that make up the whole brainstem: the known ones, or all if none is."""
    known = [region for region in regions if region.name in (*_KNOWN, WHOLE_NAME)]
    return known or regions


def in_words(names: Sequence[str]) -> str:
    """List names of regions in a sentence."""
    words = [("medulla oblongata" if n == MEDULLA else n).replace("_", " ") for n in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def first_words(names: Sequence[str]) -> str:
    """List names of regions at the start of a sentence."""
    text = in_words(names)
    return text[:1].upper() + text[1:]
