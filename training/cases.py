"""What a case of the prepared file is, and the numbers that stand for its classes and tissues.

Every array is in (z, y, x) order: z up, y to the front, x to the right. The prepared file is a
compressed ``.npz`` whose keys are ``<case>/<look>/<array>``; it needs numpy alone to be read.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch

from bids_app.errors import UsageError, reason
from bids_app.io.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


# In labels that tell the parts apart MIDBRAIN is the midbrain without the tectum.
MIDBRAIN, PONS, MEDULLA, CORD, TECTUM, SCP, MCP, ICP = range(1, 9)
IGNORE = 255
NOT_STEM = 254  # no part of the brainstem; which other class is not known
REGIONS = (MIDBRAIN, PONS, MEDULLA)
STEM = (*REGIONS, TECTUM)
PEDUNCLES = (SCP, MCP, ICP)
# Codes of the SynthSeg maps (generation_labels.npy) and their class of T1 intensities
# (generation_classes_contrast_specific.npy); the cord, of no code of its own there, comes last.
CODES = (
    0, 14, 15, 16, 24, 72, 85, 502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530,
    2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 25, 26, 28, 30, 136, 137,
    41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 57, 58, 60, 62, 163, 164,
)  # fmt: skip
T1_CLASSES = (
    0, 1, 1, 13, 1, 1, 2, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
    2, 3, 1, 1, 4, 5, 6, 3, 7, 8, 3, 3, 10, 3, 9, 11, 12, 12,
    2, 3, 1, 1, 4, 5, 6, 3, 7, 8, 3, 3, 10, 3, 9, 11, 12, 12,
)  # fmt: skip
CORD_ANATOMY = len(CODES)
BRAINSTEM_CODE, CORD_TISSUE_CODE, CSF_CODE = 16, 512, 24
OUTSIDE_BRAIN_FROM = 500


def is_of(labels: torch.Tensor, classes: Iterable[int]) -> torch.Tensor:
    """Return where labels are one of some classes."""
    return torch.stack([labels == index for index in classes]).any(0)


@dataclass(frozen=True)
class Case:
    """One head or label map.

    Attributes
    ----------
    name : str
        Source and subject, e.g. ``"ds011_sub-01"``.
    real : bool
        A head with an image, or a label map to draw images from.
    arrays : dict of str to ndarray of uint8, shape (z, y, x)
        ``near/labels``, ``far/labels`` always; ``near/image``, ``far/image`` for a head;
        ``near/anatomy``, ``far/anatomy`` (positions in `CODES`) for a map; ``near/brain``,
        ``far/brain`` where the brain is known apart from the rest of the head.
    """

    name: str
    real: bool
    arrays: dict[str, NDArray[np.uint8]]


def read_split(path: Path | None = None) -> dict[str, list[str]]:
    """Return the case names of each part of the split (train, validation, test)."""
    with (path or Path(__file__).with_name("split.toml")).open("rb") as file:
        parts = tomllib.load(file)
    return {
        part: [
            f"{source}_{subject}" for source, subjects in sources.items() for subject in subjects
        ]
        for part, sources in parts.items()
    }


def load_cases(path: Path) -> dict[str, Case]:
    """Read all cases of a prepared file.

    Raises
    ------
    UsageError
        When there is no such file, or it is of another kind.
    """
    arrays: dict[str, dict[str, NDArray[np.uint8]]] = {}
    try:
        with np.load(path) as file:
            for key in file.files:
                name, array = key.split("/", 1)
                arrays.setdefault(name, {})[array] = file[key]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}.") from error
    except (ValueError, AttributeError, BadZipFile) as error:
        raise UsageError(
            f"{path} is no prepared file. Make one: training.data DATA LABELS FILE."
        ) from error
    return {name: Case(name, "near/image" in found, found) for name, found in arrays.items()}


def check_place(path: Path) -> None:
    """Refuse a place for a prepared file where none can be written, before the work is done.

    Raises
    ------
    UsageError
        When it is a folder, or lies in none.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path} is no place for a file: name one in a folder that exists.")


def save_cases(path: Path, cases: Iterator[Case]) -> None:
    """Write cases to one compressed file, which takes its name when it is whole."""
    flat: dict[str, Any] = {
        f"{case.name}/{key}": array for case in cases for key, array in case.arrays.items()
    }
    with replacing(path) as place, place.open("wb") as file:
        np.savez_compressed(file, **flat)
