"""Which files of a dataset its ``.bidsignore`` lists.

The file has the syntax of ``.gitignore`` (https://git-scm.com/docs/gitignore) and lies at the top
of the dataset; see https://bids-validator.readthedocs.io/en/latest/user_guide/command-line.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bids_app.io.files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME = ".bidsignore"


class Ignored:
    """The files that some patterns list.

    Parameters
    ----------
    lines : iterable of str
        Patterns as in ``.gitignore``.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        found = (_compile(line.rstrip("\n")) for line in lines)
        self._patterns = [pattern for pattern in found if pattern is not None]

    @classmethod
    def of(cls, bids_dir: Path) -> Ignored:
        """Read the ``.bidsignore`` of a dataset; without one nothing is ignored."""
        try:
            text = read_text(bids_dir / NAME, "utf-8-sig", "replace")
        except OSError:
            text = ""
        return cls(text.splitlines())

    def __contains__(self, relative: str) -> bool:
        """Whether a file is listed, or one of its folders; its path has slashes."""
        parts = relative.split("/")
        folders = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts)))
        # A file in a listed folder cannot be taken back by a later pattern.
        return any(self._lists(path) for path in (*folders, relative))

    def _lists(self, path: str) -> bool:
        listed = False
        for expression, negated in self._patterns:
            if expression.fullmatch(path):
                listed = not negated
        return listed


def _compile(line: str) -> tuple[re.Pattern[str], bool] | None:
    """Translate a pattern: an expression for paths, where a folder ends with /, and its sign."""
    text = re.sub(r"(?<!\\) +$", "", line)
    negated = text.startswith("!")
    text = text[negated:]
    if not text.strip("/") or line.startswith("#"):
        return None
    only_folders = text.endswith("/")
    text = text.rstrip("/")
    anywhere = "/" not in text
    words = [] if anywhere else text.removeprefix("/").split("/")
    expression = "(.*/)?" + _segment(text) if anywhere else _path(words)
    try:
        return re.compile(expression + ("/" if only_folders else "/?")), negated
    except re.error:
        return None  # such as a range that ends before it starts


def _path(words: list[str]) -> str:
    expression = ""
    for index, word in enumerate(words):
        last = index == len(words) - 1
        if word == "**":
            expression += ".+" if last else "(.*/)?"
        else:
            expression += _segment(word) + ("" if last else "/")
    return expression


_GLOB = re.compile(r"\\(?P<plain>.)|\[(?P<no>[!^]?)(?P<set>\]?[^\]]*)\]|(?P<star>\*+)|(?P<one>\?)")


def _segment(text: str) -> str:
    """Translate a pattern for one name."""
    expression, end = "(?=[^/])", 0  # a star alone is no empty name
    for found in _GLOB.finditer(text):
        expression += re.escape(text[end : found.start()])
        end = found.end()
        if found["star"]:
            expression += "[^/]*"
        elif found["one"]:
            expression += "[^/]"
        elif found["plain"]:
            expression += re.escape(found["plain"])
        else:
            members = re.sub(r"([\\\[\]&~|^])", r"\\\1", found["set"])
            expression += f"(?!/)[{'^' if found['no'] else ''}{members}]"
    return expression + re.escape(text[end:])
