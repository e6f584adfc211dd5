"""Hypothesis strategies for the entities of T1w images and the paths they make."""

from __future__ import annotations

import string

from hypothesis import strategies as st

LABELS = st.text(string.ascii_letters + string.digits + "+", min_size=1, max_size=6)
# Leading zeros are part of how a run is written.
INDICES = st.text(string.digits, min_size=1, max_size=4)


def t1w_entities() -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """Entities that a T1w image may have, in the order of BIDS."""
    return st.fixed_dictionaries(
        {"sub": LABELS},
        optional={
            "ses": LABELS,
            "task": LABELS,
            "acq": LABELS,
            "ce": LABELS,
            "rec": LABELS,
            "run": INDICES,
            "echo": INDICES,
            "part": st.sampled_from(["mag", "phase", "real", "imag"]),
            "chunk": INDICES,
        },
    ).map(_in_order)


def _in_order(entities: dict[str, str]) -> tuple[tuple[str, str], ...]:
    order = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk")
    return tuple((key, entities[key]) for key in order if key in entities)


def t1w_path(entities: tuple[tuple[str, str], ...], extension: str = ".nii.gz") -> str:
    """Path in the dataset of the T1w image with these entities."""
    folders = [f"{key}-{value}" for key, value in entities if key in ("sub", "ses")]
    stem = "_".join(f"{key}-{value}" for key, value in entities)
    return "/".join([*folders, "anat", f"{stem}_T1w{extension}"])
