"""Results as texts, for pages that still build on them. Goes with the pages' own rewrite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_app.bids.results import read_failures as _read_failures
from bids_app.io.tables import NOT_AVAILABLE, read_json, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.bids.results import Result

    Row = dict[str, str]


def sidecar(result: Result) -> dict[str, Any]:
    """Read the sidecar as it stands."""
    return read_json(result.outputs.sidecar)


def volumes(result: Result) -> list[Row]:
    """Read the rows of the table of volumes."""
    return read_table(result.outputs.volumes)


def read_failures(output_dir: Path) -> dict[tuple[str, str], Row]:
    """Read the failures on record, by model's label and source."""
    return {
        (failure.label, failure.source): {
            "participant_id": failure.participant,
            "session_id": failure.session or NOT_AVAILABLE,
            "source": failure.source,
            "model": failure.model,
            "failure": failure.reason,
        }
        for failure in _read_failures(output_dir)
    }
