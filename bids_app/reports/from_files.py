"""Results as texts, for pages that still build on them. Goes with the pages' own rewrite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_app.bids.results import read_failures as _read_failures
from bids_app.io.tables import NOT_AVAILABLE, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from bids_app.bids.results import Result
    from bids_app.io.tables import Column

    Row = dict[str, str]


def sidecar(result: Result) -> dict[str, Any]:
    """Give the sidecar with its keys in the file."""
    content = result.sidecar.model_dump(by_alias=True, mode="json")
    content["Quality"]["voxel_size_mm"] = content.pop("voxel_size_mm")
    content["Locator"] = content.pop("Localizer")
    return content


def texts(frame: pd.DataFrame, columns: Mapping[str, Column]) -> list[Row]:
    """Give the rows of a table as they are written."""
    cells = [columns[name].texts(frame[name].tolist()) for name in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]


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
