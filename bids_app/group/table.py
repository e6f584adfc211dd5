"""Gather every complete image and every failure of an output dataset as rows of one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_app.bids.columns import FROM_VOLUMES, GROUP, QUALITY, VOLUMES
from bids_app.bids.results import read_failures, read_results
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.measures.flags import flags_again, self_consistency
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bids_app.bids.results import Result

Row = dict[str, str]


def read_rows(output_dir: Path, thresholds: Mapping[str, float]) -> list[Row]:
    """Read every complete image and every failure of an output dataset.

    Flags are told anew from the measures on record, so that other thresholds need no other maps.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset; participants may still be running on it.
    thresholds : mapping of str to float
        By name of the flag, in place of those of `bids_app.measures.flags.CHECKS`.

    Returns
    -------
    list of dict
        One row an image and model with the keys of `bids_app.bids.columns.GROUP`, sorted by
        participant, session, source and model; what `normalise` fills in is not available yet.
    """
    rows = _failed_rows(output_dir)
    for result in read_results(output_dir):
        rows[result.label, result.source] = _row(result, thresholds)
    order = ("participant_id", "session_id", "source", "model")
    return sorted(rows.values(), key=lambda row: [row[key] for key in order])


def shows_brainstem(row: Row) -> bool:
    """Tell whether a brainstem was found; a row's volumes of 0 are no measures where not."""
    return "no_brainstem" not in row["flags"].split(",")


def flags_of(row: Mapping[str, str]) -> list[str]:
    """Give the flags of a row of the group table, or of the table of changes."""
    return [] if row["flags"] == NOT_AVAILABLE else row["flags"].split(",")


def in_doubt(row: Mapping[str, str]) -> bool:
    """Tell whether a flag casts doubt on a row's volumes.

    ``no_etiv`` does not: every image of a skull-stripped dataset has it, and none of its regions
    is measured the worse for it.
    """
    return any(flag != "no_etiv" for flag in flags_of(row))


def _row(result: Result, thresholds: Mapping[str, float]) -> Row:
    row = dict.fromkeys(GROUP, NOT_AVAILABLE)
    row |= {"participant_id": result.participant, "source": result.source, **result.entities}
    row["session_id"] = result.session or NOT_AVAILABLE
    row["model"], row["model_version"] = result.model
    for region in result.volumes:
        if region.name in REGIONS:
            for ending, column in FROM_VOLUMES.items():
                if (name := f"{region.name}_{ending}") in row:
                    row[name] = VOLUMES[column].text(getattr(region, column))
    quality = dict(result.sidecar.quality)
    row["voxel_size_mm"] = "x".join(f"{edge:g}" for edge in result.sidecar.voxel_size_mm)
    earlier = result.sidecar.flags
    if empty := "no_brainstem" in earlier:
        quality.pop("etiv_mm3", None)  # of records of earlier versions
    main = self_consistency(quality, empty=empty)
    if main is not None:  # records of earlier versions lack it
        quality["self_consistency"] = round(main, 4)
    row |= {key: str(value) for key, value in quality.items() if key in QUALITY}
    flags = flags_again(earlier, quality, thresholds)
    row["flags"] = ",".join(flags) or NOT_AVAILABLE
    return row


def _failed_rows(output_dir: Path) -> dict[tuple[str, str], Row]:
    rows = {}
    for failure in read_failures(output_dir):
        row = dict.fromkeys(GROUP, NOT_AVAILABLE) | {
            "participant_id": failure.participant,
            "session_id": failure.session or NOT_AVAILABLE,
            **failure.entities,
            "source": failure.source,
            "model": failure.model,
            "model_version": failure.model_version,
            "flags": "failed",
            "failure": failure.reason,
        }
        rows[failure.label, failure.source] = row
    return rows
