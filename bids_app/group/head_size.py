"""Volumes relative to the size of the head, over the table of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.bids.columns import GROUP
from bids_app.bids.labels import T1W
from bids_app.group.table import ALIKE, FAILED
from bids_app.regions import MIDBRAIN, PONS, REGIONS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

LEAST_PARTICIPANTS = 10  # for a regression
_MIDBRAIN_OVER_PONS = {
    "midbrain_pons_ratio": "mm3",
    "midbrain_pons_midsagittal_ratio": "midsagittal_mm2",
}


def add_head_size(volumes: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Compute ratios, and volumes relative to eTIV.

    ``<region>_etiv_fraction`` is the proportion. ``<region>_adjusted_mm3`` is the residual method
    (Sanfilipo et al., 2004, doi 10.1016/j.neuroimage.2004.03.037): volume - slope x (eTIV - mean
    eTIV). Slope and mean come from the participants without a flag, each with the mean of their
    images, separately for each model, version and suffix. All rows with an eTIV are adjusted.

    Parameters
    ----------
    volumes : pandas.DataFrame
        Columns of `bids_app.bids.columns.GROUP`.

    Returns
    -------
    volumes : pandas.DataFrame
        With these columns.
    reasons : list of str
        For each model without adjusted volumes, why it has none.
    """
    filled: dict[str, Any] = {}
    for region in REGIONS:
        column = f"{region}_etiv_fraction"
        filled[column] = _ratio(volumes, f"{region}_mm3", "etiv_mm3", column)
        filled[f"{region}_adjusted_mm3"] = np.full(len(volumes), np.nan)
    for column, ending in _MIDBRAIN_OVER_PONS.items():
        filled[column] = _ratio(volumes, f"{MIDBRAIN}_{ending}", f"{PONS}_{ending}", column)
    reasons = []
    done = volumes["flags"].ne(FAILED)
    for (model, version, suffix), of_model in volumes[done].groupby(list(ALIKE), sort=False):
        name = f"{model} {version}" + ("" if suffix == T1W else f" on {suffix} images")
        if of_model[["etiv_mm3", "localizer_confidence"]].isna().all(axis=None):
            reasons.append(
                f"Model {name} does not estimate eTIV: etiv_mm3, *_etiv_fraction and "
                "*_adjusted_mm3 are n/a. You can use etiv_mm3 of the model open on the same images"
            )
            continue
        measured = of_model[of_model["etiv_mm3"].notna()]
        trusted = measured[measured["flags"].isna()]
        if (people := trusted["participant_id"].nunique()) < LEAST_PARTICIPANTS:
            reasons.append(
                f"Volumes adjusted for eTIV (*_adjusted_mm3) are n/a for model {name}: "
                f"they need {LEAST_PARTICIPANTS} participants with an eTIV and without a flag; "
                f"there are {people}"
            )
            continue
        places = volumes.index.get_indexer(measured.index)
        for region in REGIONS:
            column = f"{region}_adjusted_mm3"
            adjusted = _adjust(measured, trusted, f"{region}_mm3")
            filled[column][places] = GROUP[column].round(adjusted)
    return volumes.assign(**filled), reasons


def _adjust(measured: pd.DataFrame, trusted: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Adjust a column of one model by the regression over its trusted rows; NaN without one."""
    people = trusted.groupby("participant_id")[["etiv_mm3", column]].mean().dropna()
    etiv, volume = people.to_numpy().T
    centred = etiv - etiv.mean() if len(etiv) else etiv
    if not (spread := float(centred @ centred)):
        return np.full(len(measured), np.nan)
    slope = float(centred @ volume) / spread
    values, sizes = (measured[name].to_numpy(np.float64) for name in (column, "etiv_mm3"))
    adjusted: NDArray[np.float64] = values - slope * (sizes - etiv.mean())
    return adjusted


def _ratio(volumes: pd.DataFrame, part: str, whole: str, column: str) -> NDArray[np.float64]:
    """Divide two columns; NaN where the second is 0 or one of them is missing."""
    divisor = volumes[whole].to_numpy(np.float64)
    ratio = volumes[part].to_numpy(np.float64) / np.where(divisor == 0, np.nan, divisor)
    return GROUP[column].round(ratio)
