"""HTML that escapes: text becomes HTML only here, and nothing of a dataset is taken for it."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID = frozenset({"img", "meta", "link"})
_DOI = re.compile(r"(?:https://doi\.org/|\bdoi )(10\.\d+/[^\s<>\"]*[^\s<>\".,;:)\]])")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | None


def element(tag: str, /, *content: Content, **attributes: str | bool | None) -> Markup:
    """Make an element; text and attributes are escaped, `Markup` stands as it is.

    Parameters
    ----------
    tag : str
        Name of the element.
    *content : str, Markup or None
        What it holds; None is left out.
    **attributes : str, bool or None
        `class_` stands for ``class``, other underscores for hyphens. True gives an attribute
        without a value; None and False give none.
    """
    parts = [f"<{tag}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        parts.append(f" {name}" if value is True else f' {name}="{escape(value)}"')
    parts.append(">")
    if tag not in _VOID:
        parts.append(join(content))
        parts.append(f"</{tag}>")
    return Markup("".join(parts))


def join(content: Iterable[Content]) -> Markup:
    """Put pieces of text and markup one after the other."""
    return Markup(
        "".join(c if isinstance(c, Markup) else escape(c) for c in content if c is not None)
    )


def foreign(text: object) -> Markup:
    """Show text of a dataset: escaped, and its writing direction kept to itself."""
    return element("bdi", str(text))


def with_links(text: str) -> Markup:
    """Show text with its DOIs, ``doi 10...`` too, as links; no other address becomes one."""
    parts: list[str] = []
    end = 0
    for match in _DOI.finditer(text):
        parts += [
            text[end : match.start()],
            element("a", match[0], href=f"https://doi.org/{match[1]}"),
        ]
        end = match.end()
    return join([*parts, text[end:]])
