"""What BIDS allows as a label and a suffix, for every name that is read.

Since BIDS 1.10.1 a label consists of letters, digits and plus signs; see the formats of
https://bids-specification.readthedocs.io/en/stable/common-principles.html#entities
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LABEL = "[0-9A-Za-z+]+"

# Images of a head that may be segmented, by the suffix of their names. UNIT1 is the uniform image
# of MP2RAGE.
T1W = "T1w"
SUFFIXES = (T1W, "T2w", "FLAIR", "UNIT1", "PDw", "T2starw")
_SUFFIX = re.compile(rf"_({'|'.join(SUFFIXES)})\.nii(\.gz)?$")


def suffix_of(path: str) -> str:
    """Give the suffix of an image from its path; images that BIDS does not name count as T1w."""
    match = _SUFFIX.search(path)
    return match[1] if match else T1W


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
