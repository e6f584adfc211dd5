"""The table of a dataset: every complete image and every failure, a row per image and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_app.bids.columns import FROM_VOLUMES, GROUP, QUALITY
from bids_app.bids.labels import suffix_of
from bids_app.bids.outputs import WHOLE
from bids_app.io.tables import NOT_AVAILABLE, make_frame
from bids_app.measures.flags import reapply_thresholds, self_consistency
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from bids_app.bids.results import Failure, Result

    Row = dict[str, Any]

# Rows are compared only with those of the same model, version and kind of image.
ALIKE = ("model", "model_version", "suffix")
FAILED = "failed"  # flag of an image that could not be processed


@dataclass(frozen=True, eq=False)
class GroupTables:
    """What the group level computes, once, for files, report and methods text.

    Text columns of the DataFrames are objects and numbers float64; NaN means ``n/a``.

    Attributes
    ----------
    volumes : pandas.DataFrame
        A row per image and model. Columns are those of `bids_app.bids.columns.GROUP`, then joined
        covariates and z scores by norms.
    columns : dict of str to dict
        Its data dictionary, as written.
    changes : pandas.DataFrame
        A row per later image of a participant; columns of `bids_app.bids.columns.LONGITUDINAL`.
    agreement : pandas.DataFrame
        A row per image, pair of models and region; columns of
        `bids_app.bids.columns.GROUP_COMPARISON`.
    thresholds : dict of str to float
        Of flags, where they are not those of `bids_app.measures.flags.CHECKS`.
    left_out : int
        Results of the folder that the user did not choose.
    dataset_name : str
        Of the derivative dataset.
    reported : frozenset of str
        Participants that have a page.
    stem : str
        `bids_app.bids.outputs.WHOLE`, or ``SELECTION`` if the user chose some results.
    """

    volumes: pd.DataFrame
    columns: Mapping[str, Mapping[str, Any]]
    changes: pd.DataFrame
    agreement: pd.DataFrame
    thresholds: Mapping[str, float]
    left_out: int = 0
    dataset_name: str = ""
    reported: frozenset[str] = frozenset()
    stem: str = WHOLE


def gather(
    results: Iterable[Result], failures: Iterable[Failure], thresholds: Mapping[str, float]
) -> pd.DataFrame:
    """Gather results and failures in one table.

    Flags are compared with the thresholds again, from the measures on record, so that other
    thresholds need no new maps.

    Parameters
    ----------
    results : iterable of Result
    failures : iterable of Failure
        One whose image is complete by now, by the same model, is left out.
    thresholds : mapping of str to float
        By name of the flag, in place of those of `bids_app.measures.flags.CHECKS`.

    Returns
    -------
    pandas.DataFrame
        Columns of `bids_app.bids.columns.GROUP`, sorted by participant, session, source and model;
        those that depend on other rows or on the input dataset are still empty.
    """
    rows: dict[tuple[str, str], Row] = {}
    rows |= {(failure.label, failure.source): _failed_row(failure) for failure in failures}
    rows |= {(result.label, result.source): _row(result, thresholds) for result in results}
    return make_frame(sorted(rows.values(), key=_order), GROUP)


def _order(row: Mapping[str, Any]) -> tuple[str, ...]:
    session = row["session_id"] or NOT_AVAILABLE
    return row["participant_id"], session, row["source"], row["model"]


def _failed_row(failure: Failure) -> Row:
    return {
        "participant_id": failure.participant,
        "session_id": failure.session or None,
        **failure.entities,
        "suffix": suffix_of(failure.source),
        "source": failure.source,
        "model": failure.model,
        "model_version": failure.model_version,
        "flags": FAILED,
        "failure": failure.reason,
    }


def _row(result: Result, thresholds: Mapping[str, float]) -> Row:
    name, version = result.model
    row: Row = {
        "participant_id": result.participant,
        "session_id": result.session or None,
        **result.entities,
        "suffix": suffix_of(result.source),
        "source": result.source,
        "model": name,
        "model_version": version,
        "voxel_size_mm": "x".join(f"{edge:g}" for edge in result.sidecar.voxel_size_mm) or None,
    }
    for region in result.volumes:
        if region.name in REGIONS:
            for ending, column in FROM_VOLUMES.items():
                row[f"{region.name}_{ending}"] = getattr(region, column)
    quality = dict(result.sidecar.quality)
    if empty := "no_brainstem" in result.sidecar.flags:
        quality.pop("etiv_mm3", None)  # of records of earlier versions
    main = self_consistency(quality, empty=empty)
    if main is not None:  # records of earlier versions lack it
        quality["self_consistency"] = QUALITY["self_consistency"].rounded(main)
    row |= {key: value for key, value in quality.items() if key in QUALITY}
    flags = reapply_thresholds(result.sidecar.flags, quality, thresholds)
    row["flags"] = ",".join(flags) or None
    return row


# --- flags of rows ------------------------------------------------------------------------


def split_flags(cell: object) -> list[str]:
    """Give the flags in a cell, such as ``"fragmented,outlier"``; none of ``n/a``, NaN or None."""
    return cell.split(",") if isinstance(cell, str) and cell != NOT_AVAILABLE else []


def flags_of(row: Mapping[str, Any]) -> list[str]:
    """Give the flags of a row of the group table, or of the table of changes."""
    return split_flags(row["flags"])


def shows_brainstem(volumes: pd.DataFrame) -> pd.Series[bool]:
    """Select rows in which a brainstem was found, or whose image failed.

    In all others the volumes of 0 are no measures.
    """
    return volumes["flags"].map(lambda cell: "no_brainstem" not in split_flags(cell)).astype(bool)


def in_doubt(volumes: pd.DataFrame) -> pd.Series[bool]:
    """Select rows with a flag that casts doubt on the volumes.

    ``no_etiv`` does not: every image of a skull-stripped dataset has it, and its regions are
    measured as well as any.
    """
    return (
        volumes["flags"]
        .map(lambda cell: any(flag != "no_etiv" for flag in split_flags(cell)))
        .astype(bool)
    )
