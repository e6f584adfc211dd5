"""Postprocessing of label maps as in nnU-Net v1: keep the largest component of a class."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_app.errors import ModelError
from bids_app.io.tables import load_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

POSTPROCESSING = "postprocessing.json"


@dataclass(frozen=True)
class LargestComponent:
    """Removal of all but the largest component of some classes together.

    Attributes
    ----------
    classes : tuple of int
        Label values, treated as one.
    spare_mm3 : float or None
        Other components of at least this volume are kept, too.
    """

    classes: tuple[int, ...]
    spare_mm3: float | None = None

    def apply(self, labels: NDArray[np.uint8], voxel_mm3: float) -> None:
        """Set removed voxels to 0, in place.

        Parameters
        ----------
        labels : ndarray of uint8, shape (z, y, x)
        voxel_mm3 : float
            Volume of a voxel.
        """
        components, number = ndimage.label(np.isin(labels, self.classes))
        if number < 2:
            return
        sizes = np.bincount(components.ravel())
        small = sizes < sizes[1:].max()  # components of equal size all stay
        if self.spare_mm3 is not None:
            small &= sizes * voxel_mm3 < self.spare_mm3
        small[0] = False
        labels[small[components]] = 0


def read_steps(folder: Path) -> tuple[LargestComponent, ...]:
    """Read the steps of a model folder; none without ``postprocessing.json``.

    Raises
    ------
    ModelError
        The file is damaged.
    """
    path = folder / POSTPROCESSING
    if not path.exists():
        return ()
    try:
        steps = load_json(path)["largest_component"]
        return tuple(
            LargestComponent(tuple(map(int, step["classes"])), step["spare_mm3"]) for step in steps
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error!r}). Install the model again.") from error


def steps_text(steps: Sequence[LargestComponent]) -> str:
    """Write steps as JSON; `read_steps` returns the same steps."""
    entries = [{"classes": step.classes, "spare_mm3": step.spare_mm3} for step in steps]
    return json.dumps({"largest_component": entries}, indent=1) + "\n"


def postprocess(
    labels: NDArray[np.uint8], spacing: Sequence[float], steps: Sequence[LargestComponent]
) -> NDArray[np.uint8]:
    """Apply steps in sequence to a copy of a label map.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    spacing : sequence of three floats
        Voxel size in mm.
    steps : sequence of LargestComponent
    """
    labels = labels.copy()
    for step in steps:
        step.apply(labels, math.prod(spacing))
    return labels
