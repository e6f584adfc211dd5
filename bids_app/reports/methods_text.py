"""Sentences for a methods section about what the group level did, derived from its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_app.group.table import FAILED
from bids_app.group.zscores import NORM_ENDING
from bids_app.measures.flags import CHECKS
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from bids_app.group.table import GroupTables

RESIDUAL_METHOD = "Sanfilipo et al. 2004, https://doi.org/10.1016/j.neuroimage.2004.03.037"
_NOISE = {  # by the value of the column `noise_source`
    "repeats": "repeated scans within a session",
    "changes": "the scatter of the changes between unflagged images about their median",
}


def thresholds_text(thresholds: Mapping[str, float]) -> str:
    """Describe thresholds: ``the app's default thresholds except low_resolution (3)``."""
    defaults = {check.name: check.threshold for check in CHECKS}
    others = ", ".join(
        f"{name} ({value:g})"
        for name, value in sorted(thresholds.items())
        if value != defaults.get(name)
    )
    return f"the app's default thresholds{f' except {others}' if others else ''}"


def group_sentences(tables: GroupTables) -> dict[str, str]:
    """Describe what the group level did, one entry for each step that it took.

    Parameters
    ----------
    tables : GroupTables
        Tables of the group level.

    Returns
    -------
    dict of str to str
        Sentences by topic: ``flags`` always; ``outlier``, ``adjusted``, ``norms``, ``ratings``
        and ``change`` where the tables have such values.
    """
    rows = tables.volumes
    results = rows[rows["flags"].ne(FAILED)]
    sentences = {"flags": _flags(results, tables.thresholds)}
    if compared := _outliers(results, tables.thresholds):
        sentences["outlier"] = compared
    if _any(results, (f"{region}_adjusted_mm3" for region in REGIONS)):
        sentences["adjusted"] = (
            "Volumes were adjusted for the estimated intracranial volume (eTIV) with the residual "
            f"method ({RESIDUAL_METHOD}); the slope was fitted to participants without a flag."
        )
    norms = [str(column) for column in rows if str(column).endswith(NORM_ENDING)]
    if _any(results, norms):
        measures = ", ".join(column.removesuffix(NORM_ENDING) for column in norms)
        sentences["norms"] = f"z scores were computed from the study's own norms, for {measures}."
    if _any(results, ("rating",)):
        sentences["ratings"] = "Results were rated by visual inspection."
    if len(tables.changes):
        sentences["change"] = _change(tables.changes)
    return sentences


def _flags(results: pd.DataFrame, thresholds: Mapping[str, float]) -> str:
    flagged = results["flags"].dropna()
    counts = flagged.str.split(",").explode().value_counts()
    by_name = ", ".join(f"{c.name} {counts[c.name]:,}" for c in CHECKS if c.name in counts)
    return (
        f"Of {len(results):,} results, {len(flagged):,} had a flag"
        f"{f' ({by_name})' if by_name else ''}, by {thresholds_text(thresholds)}."
    )


def _outliers(results: pd.DataFrame, thresholds: Mapping[str, float]) -> str:
    limits = {check.name: check.in_use(thresholds) for check in CHECKS}
    groups = [
        f"{limits[flag]:g} {where}"
        for flag, ending, where in (
            ("outlier", "robust_z", "in the dataset"),
            ("outlier_in_batch", "batch_z", "among images from the same site and scanner"),
        )
        if _any(results, (f"{region}_{ending}" for region in REGIONS))
    ]
    if not groups:
        return ""
    return (
        "Volumes were flagged as outliers if their distance from the median exceeded "
        f"{' or '.join(groups)}, in robust standard deviations (median absolute deviation / "
        "0.6745)."
    )


def _change(changes: pd.DataFrame) -> str:
    noises = set(changes["noise_source"].dropna())
    sources = " or ".join(text for noise, text in _NOISE.items() if noise in noises)
    text = (
        "Change is the difference between a volume and that of the participant's first session; "
        "each image was segmented independently."
    )
    if sources:
        text += (
            " A change was taken as beyond noise if it exceeded Student's t (95 %) times the "
            f"standard deviation of changes due to noise alone, estimated from {sources}."
        )
    return text


def _any(rows: pd.DataFrame, columns: Iterable[str]) -> bool:
    """Whether any of these columns holds a value."""
    return any(name in rows and rows[name].notna().any() for name in columns)
