"""Rows of the group table, made by hand."""

from __future__ import annotations

from bids_app.bids.columns import GROUP
from bids_app.io.tables import make_frame


def volumes(*rows):
    """Make a table of rows; what they lack is missing, but for the model and where it is from."""
    given = {"participant_id": "sub-01", "model": "open", "model_version": "1", "suffix": "T1w"}
    given["source"] = "a"
    return make_frame([given | row for row in rows], GROUP)


def texts(series):
    """Give a column of texts with None for what is missing."""
    return [text if isinstance(text, str) else None for text in series]
