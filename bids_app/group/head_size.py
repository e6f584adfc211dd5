"""Volumes in relation to the size of the head, over the rows of a dataset's table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_app.io.tables import NOT_AVAILABLE
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = dict[str, str]

LEAST_PARTICIPANTS = 10  # for a regression
_MIDBRAIN_OVER_PONS = {
    "midbrain_pons_ratio": "_mm3",
    "midbrain_pons_midsagittal_ratio": "_midsagittal_mm2",
}


def normalise(rows: Sequence[Row]) -> list[str]:
    """Fill in ratios and the volumes in relation to eTIV, in place.

    ``<region>_etiv_fraction`` is the proportion. ``<region>_adjusted_mm3`` is the residual method
    (Sanfilipo et al., 2004, doi 10.1016/j.neuroimage.2004.03.037): the volume less slope times
    the difference of eTIV from its mean. Slope and mean are those of the participants without a
    flag, each with the mean of its images, apart for each model and version; all rows with an
    eTIV are adjusted.

    Parameters
    ----------
    rows : sequence of dict
        With the keys of `bids_app.bids.columns.GROUP`; flags are those of the table.

    Returns
    -------
    list of str
        For each model without adjusted volumes, why it has none.
    """
    reasons = []
    models: dict[tuple[str, str], list[Row]] = {}  # rows with an eTIV
    estimating = set()  # models that tell an eTIV, which is where they locate the brainstem
    for row in rows:
        etiv = _number(row["etiv_mm3"])
        for region in REGIONS:
            row[f"{region}_etiv_fraction"] = _ratio(_number(row[f"{region}_mm3"]), etiv, 7)
        for column, ending in _MIDBRAIN_OVER_PONS.items():
            midbrain, pons = (_number(row[name + ending]) for name in ("midbrain", "pons"))
            row[column] = _ratio(midbrain, pons, 4)
        if row["flags"] != "failed":
            of_model = models.setdefault((row["model"], row["model_version"]), [])
            if np.isfinite(etiv):
                of_model.append(row)
            if np.isfinite(etiv) or row["localizer_confidence"] != NOT_AVAILABLE:
                estimating.add((row["model"], row["model_version"]))
    for model, of_model in models.items():
        if model not in estimating:
            reasons.append(
                f"Model {' '.join(model)} estimates no eTIV: etiv_mm3, *_etiv_fraction and "
                "*_adjusted_mm3 are n/a. The etiv_mm3 of the model open on the same images may be "
                "taken"
            )
            continue
        trusted = [row for row in of_model if row["flags"] == NOT_AVAILABLE]
        if (people := len({row["participant_id"] for row in trusted})) < LEAST_PARTICIPANTS:
            reasons.append(
                f"Volumes adjusted for eTIV (*_adjusted_mm3) are n/a for model {' '.join(model)}: "
                f"they need {LEAST_PARTICIPANTS} participants with an eTIV and without a flag; "
                f"there are {people}"
            )
            continue
        for region in REGIONS:
            _adjust(of_model, trusted, f"{region}_mm3", f"{region}_adjusted_mm3")
    return reasons


def _adjust(rows: Sequence[Row], trusted: Sequence[Row], column: str, adjusted: str) -> None:
    """Adjust one column of the rows of one model, by those of them that are trusted."""
    people: dict[str, list[tuple[float, float]]] = {}
    for row in trusted:
        pair = (_number(row["etiv_mm3"]), _number(row[column]))
        people.setdefault(row["participant_id"], []).append(pair)
    etiv, volume = np.array([np.mean(pairs, axis=0) for pairs in people.values()]).T
    centred = etiv - etiv.mean()
    if not (spread := float(centred @ centred)):
        return
    slope = float(centred @ volume) / spread
    for row in rows:
        value = _number(row[column]) - slope * (_number(row["etiv_mm3"]) - etiv.mean())
        row[adjusted] = f"{value:.3f}" if np.isfinite(value) else NOT_AVAILABLE


def _number(text: str) -> float:
    return float("nan" if text == NOT_AVAILABLE else text)


def _ratio(part: float, whole: float, digits: int) -> str:
    ratio = part / whole if whole else float("nan")
    return f"{ratio:.{digits}f}" if np.isfinite(ratio) else NOT_AVAILABLE
