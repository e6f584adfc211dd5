"""What the group level did, in sentences for a methods section, and what to cite for it.

All is read off the tables, so that nothing is told that was not done.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bids_app.group.table import flags_of
from bids_app.group.zscores import NORM_ENDING as ENDING
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.measures.flags import CHECKS
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Row = Mapping[str, str]

RESIDUAL_METHOD = "Sanfilipo et al. 2004, https://doi.org/10.1016/j.neuroimage.2004.03.037"
_NOISE = {  # by what `noise_source` says
    "repeats": "repeated scans of a session",
    "changes": "the scatter of the changes between images without a flag about their median",
}


def thresholds_told(thresholds: Mapping[str, float]) -> str:
    """Say by which thresholds flags were told: ``the app's thresholds but for low_resolution (3)``."""
    usual = {check.name: check.threshold for check in CHECKS}
    others = ", ".join(
        f"{name} ({value:g})"
        for name, value in sorted(thresholds.items())
        if value != usual.get(name)
    )
    return f"the app's thresholds{f' but for {others}' if others else ''}"


def group_sentences(
    rows: Sequence[Row], changes: Sequence[Row], thresholds: Mapping[str, float]
) -> dict[str, str]:
    """Describe in sentences what was done at the group level.

    Parameters
    ----------
    rows : sequence of dict
        Of the group table.
    changes : sequence of dict
        Of the table of changes.
    thresholds : mapping of str to float
        Of flags, where they are not those of `bids_app.measures.flags.CHECKS`.

    Returns
    -------
    dict of str to str
        By topic, of ``flags``, ``outlier``, ``adjusted``, ``norms``, ``ratings`` and ``change``
        those that were done.
    """
    told = {}
    results = [row for row in rows if row["flags"] != "failed"]
    flagged = sum(row["flags"] != NOT_AVAILABLE for row in results)
    counts = Counter(flag for row in results for flag in flags_of(row))
    named = ", ".join(f"{check.name} {n:,}" for check in CHECKS if (n := counts[check.name]))
    told["flags"] = (
        f"Of {len(results):,} results, {flagged:,} had a flag{f' ({named})' if named else ''}, "
        f"by {thresholds_told(thresholds)}."
    )
    limits = {check.name: thresholds.get(check.name, check.threshold) for check in CHECKS}
    among = [
        text.format(f"{limits[flag]:g}")
        for flag, ending, text in (
            ("outlier", "robust_z", "{} in the dataset"),
            ("outlier_in_batch", "batch_z", "{} among the images of a site and scanner"),
        )
        if _any(results, (f"{region}_{ending}" for region in REGIONS))
    ]
    if among:
        told["outlier"] = (
            "Volumes were flagged as outlying where their distance from the median was above "
            f"{' or '.join(among)}, in robust standard deviations (the median absolute deviation "
            "over 0.6745)."
        )
    if _any(results, (f"{region}_adjusted_mm3" for region in REGIONS)):
        told["adjusted"] = (
            "Volumes were adjusted for the estimated intracranial volume (eTIV) by the residual "
            f"method ({RESIDUAL_METHOD}), with the slope of the participants without a flag."
        )
    norms = [column for column in rows[0] if column.endswith(ENDING)] if rows else []
    if _any(results, norms):
        measures = ", ".join(column.removesuffix(ENDING) for column in norms)
        told["norms"] = f"z scores were taken by norms of our own, for {measures}."
    if _any(results, ("rating",)):
        told["ratings"] = "Results were rated by eye."
    if changes:
        told["change"] = _change(changes)
    return told


def _change(changes: Sequence[Row]) -> str:
    noises = {change["noise_source"] for change in changes}
    sources = " or ".join(text for noise, text in _NOISE.items() if noise in noises)
    text = (
        "Change is the difference of a volume from that of the participant's first session, each "
        "image segmented by itself."
    )
    if sources:
        text += (
            " It was taken as beyond noise where it was larger than Student's t for 95 % times the "
            f"standard deviation of a change that is noise alone, by {sources}."
        )
    return text


def _any(rows: Iterable[Row], columns: Iterable[str]) -> bool:
    """Tell whether anything stands in some columns."""
    names = tuple(columns)
    return any(row.get(name, NOT_AVAILABLE) != NOT_AVAILABLE for row in rows for name in names)
