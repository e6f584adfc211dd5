"""How well models agree across a dataset, gathered from the comparisons of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_app.bids.columns import GROUP_COMPARISON
from bids_app.io.tables import make_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from bids_app.bids.results import ModelAgreement


def gather_agreement(rows: Iterable[ModelAgreement]) -> pd.DataFrame:
    """Gather how models agree on each image.

    Parameters
    ----------
    rows : iterable of ModelAgreement
        From `bids_app.bids.results.read_agreement`.

    Returns
    -------
    pandas.DataFrame
        A row per image, pair of models and region; columns of
        `bids_app.bids.columns.GROUP_COMPARISON`.
    """
    return make_frame(
        [
            {
                "participant_id": row.participant,
                "session_id": row.session or None,
                **row.entities,
                "source": row.source,
                **row.row(),
            }
            for row in rows
        ],
        GROUP_COMPARISON,
    )


def count_images(agreement: pd.DataFrame) -> int:
    """Count the images that several models have segmented."""
    return agreement["source"].nunique()
