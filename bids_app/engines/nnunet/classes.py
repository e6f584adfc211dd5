"""How the classes of a segmenter become regions, parts of them, and background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BACKGROUND = "background"
# Classes that a segmenter learns so that regions end where they begin. They are not reported.
HELPERS = ("cord", "icp")
MERGED = {"midbrain": ("tegmentum", "tectum")}  # regions that are the sum of several classes
BESIDE = ("scp", "mcp")  # parts that do not count in a region


@dataclass(frozen=True)
class Classes:
    """What each class of a segmenter counts for.

    Attributes
    ----------
    labels : tuple of str
        Background and regions, in the order of their label values.
    groups : tuple of tuple of int
        Classes whose probabilities add up to each of `labels`.
    parts : tuple of str
        Names of the parts; empty for a segmenter that knows none.
    part_classes : tuple of int
        The class of each part.
    """

    labels: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    parts: tuple[str, ...]
    part_classes: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Classes:
        """Sort the classes of a segmenter, background first, by their names.

        A region takes the place of the first of its classes. Helpers and parts beside the regions
        count as background.
        """
        region_of = {name: region for region, parts in MERGED.items() for name in parts}
        region_of |= dict.fromkeys((*HELPERS, *BESIDE), BACKGROUND)
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            groups.setdefault(BACKGROUND if not index else region_of.get(name, name), []).append(
                index
            )
        parts = [name for split in MERGED.values() for name in split] + list(BESIDE)
        known = tuple(name for name in parts if name in names[1:])
        return cls(
            labels=(names[0], *list(groups)[1:]),
            groups=tuple(tuple(group) for group in groups.values()),
            parts=known,
            part_classes=tuple(list(names).index(name) for name in known),
        )

    @property
    def as_they_are(self) -> bool:
        """Whether each class is a label of its own."""
        return all(len(group) == 1 for group in self.groups)

    def merge(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add up the probabilities of classes, shape (C, ...), to those of `labels`."""
        if self.as_they_are:
            return probabilities
        return np.stack([probabilities[list(group)].sum(axis=0) for group in self.groups])

    def choose_parts(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Choose the probabilities of the parts among classes, shape (C, ...); None without any."""
        return probabilities[list(self.part_classes)] if self.parts else None
