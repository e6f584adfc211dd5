"""What a proof is asked for: models, heads and folders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from accuracy_runs import LABELS, PLAIN, Job, mask_path

from training.cases import read_split
from training.evaluate import VALUES
from training.sources import read_faults

if TYPE_CHECKING:
    import numpy as np
    from accuracy_runs import Places

REGIONS = tuple(VALUES)
STEADY = ("ds011_sub-06", "ds011_sub-07", "ds002748_sub-14", "ds002748_sub-15")


@dataclass(frozen=True)
class Proof:
    """What is asked for on the command line.

    Attributes
    ----------
    model, second : str
        Models by name or folder; the second is empty where there is none.
    left_out : dict of str to str
        By dataset, the model that was trained without it.
    chosen : tuple of str
        Heads to which all parts are limited; empty for the heads that each part names.
    places : Places
    """

    model: str
    second: str
    left_out: dict[str, str]
    chosen: tuple[str, ...]
    places: Places

    @property
    def tests(self) -> list[str]:
        """Test heads, whole: those with faulty labels too."""
        return [name for name in read_split()["test"] if name in (self.chosen or name)]

    @property
    def sound(self) -> list[str]:
        """Test heads whose labels passed their checks."""
        return [name for name in self.tests if name not in self.faulty]

    @cached_property
    def faulty(self) -> dict[str, str]:
        """Faults of labels by head."""
        return read_faults(LABELS)

    @property
    def real(self) -> list[str]:
        """Sound test heads with an image of their own."""
        return [name for name in self.sound if not name.startswith("synthseg")]

    @property
    def steady(self) -> list[str]:
        """Heads that are changed in all ways."""
        return self.real if self.chosen else list(STEADY)

    @property
    def whole(self) -> list[str]:
        """Heads of ds011 among these, whose skull is there."""
        return [name for name in self.steady if name.startswith("ds011")]

    def marked(self, name: str) -> str:
        """Write a head's name, with an asterisk where its labels are faulty."""
        return name + "*" * (name in self.faulty)

    def strips(self) -> list[str]:
        """Whole heads for which there is a brain mask."""
        return [name for name in self.whole if mask_path(name, self.places).exists()]


def job(proof: Proof, head: str, change: str = PLAIN) -> Job:
    """Name the run of the model on a head."""
    return Job(head, change, proof.model)


def yes(aim_met: bool | np.bool_) -> str:
    """Write whether an aim is met, so that a miss stands out."""
    return "yes" if aim_met else "NO"
