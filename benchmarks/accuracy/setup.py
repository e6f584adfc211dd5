"""What an evaluation runs on: models, heads and folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from benchmarks.accuracy.runs import LABELS, UNCHANGED, Job, mask_path
from training.cases import read_split
from training.evaluate import VALUES
from training.sources import read_faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from benchmarks.accuracy.runs import Folders, Result

REGIONS = tuple(VALUES)
VARIED = ("ds011_sub-06", "ds011_sub-07", "ds002748_sub-14", "ds002748_sub-15")


@dataclass(frozen=True)
class Setup:
    """What the command line asks for.

    Attributes
    ----------
    model, second : str
        Models by name or folder; the second is empty if there is none.
    left_out : dict of str to str
        The model that was trained without a dataset, by dataset.
    chosen : tuple of str
        Heads to which all parts are limited; empty for the default heads of each part.
    folders : Folders
    before : dict of Job to Result
        Results by another version of the app, to show beside; empty without ``--before``.
    """

    model: str
    second: str
    left_out: dict[str, str]
    chosen: tuple[str, ...]
    folders: Folders
    before: Mapping[Job, Result] = field(default_factory=dict)

    def versions(self, results: Mapping[Job, Result]) -> list[Mapping[Job, Result]]:
        """List the results that a table shows side by side, those of this version last."""
        return [self.before, results] if self.before else [results]

    @property
    def tests(self) -> list[str]:
        """Test heads with labels of version 1, including those with faulty labels."""
        labelled = [n for n in read_split()["test"] if (LABELS / f"{n}_probseg.nii.gz").exists()]
        return [name for name in labelled if name in (self.chosen or name)]

    @property
    def sound(self) -> list[str]:
        """Test heads whose labels passed their checks."""
        return [name for name in self.tests if name not in self.faulty]

    @cached_property
    def faulty(self) -> dict[str, str]:
        """Faults of labels, by head."""
        return read_faults(LABELS)

    @property
    def real(self) -> list[str]:
        """Sound test heads with a real image."""
        return [name for name in self.sound if not name.startswith("synthseg")]

    @property
    def varied(self) -> list[str]:
        """Heads to which all changes are applied."""
        return self.real if self.chosen else list(VARIED)

    @property
    def whole(self) -> list[str]:
        """Those of `varied` that have a skull: the heads of ds011."""
        return [name for name in self.varied if name.startswith("ds011")]

    def marked(self, name: str) -> str:
        """Return a head's name, with an asterisk if its labels are faulty."""
        return name + "*" * (name in self.faulty)

    def masked(self) -> list[str]:
        """Return the heads of `whole` that have a brain mask."""
        return [name for name in self.whole if mask_path(name, self.folders).exists()]


def job(setup: Setup, head: str, change: str = UNCHANGED) -> Job:
    """Return the run of the model on a head."""
    return Job(head, change, setup.model)


def yes_or_no(met: bool | np.bool_) -> str:
    """Return whether an aim is met, so that a miss stands out."""
    return "yes" if met else "NO"
