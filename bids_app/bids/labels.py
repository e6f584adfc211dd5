"""What BIDS allows as a label, for every name that is read: one expression for all.

Since BIDS 1.10.1 a label consists of letters, digits and plus signs; see the formats of
https://bids-specification.readthedocs.io/en/stable/common-principles.html#entities
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LABEL = "[0-9A-Za-z+]+"


def differing_in_case(paths: Iterable[str]) -> list[tuple[str, ...]]:
    """Find names in one folder that differ in upper and lower case only.

    Parameters
    ----------
    paths : iterable of str
        Relative paths, with slashes.

    Returns
    -------
    list of tuple of str
        Paths of the files or folders of each group, sorted. Files in folders that are listed are
        not listed again.
    """
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            whole = "/".join(parts[:depth])
            groups["/".join(parts[: depth - 1]), parts[depth - 1].lower()].add(whole)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
