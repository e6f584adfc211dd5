"""Comparisons of images become one table of the dataset."""

from __future__ import annotations

from bids_app.bids.columns import GROUP_COMPARISON
from bids_app.bids.results import ModelAgreement
from bids_app.group.model_agreement import count_images, gather_agreement


def row(name, session="", source="a", **entities):
    models = ("open", "1", "mars", "2")
    return ModelAgreement("sub-01", session, entities, source, *models, name, 0.9, 1.0, None)


def test_rows_of_images_keep_what_tells_them_apart():
    table = gather_agreement([row("pons"), row("medulla"), row("pons", "ses-2", "b", run="1")])
    assert list(table) == list(GROUP_COMPARISON)
    assert table["session_id"].isna().tolist() == [True, True, False]
    assert table["run"].iloc[2] == "1"
    assert table["dice"].tolist() == [0.9] * 3
    assert table["difference_percent"].isna().all()
    assert count_images(table) == 2


def test_without_several_models_the_table_is_empty():
    assert gather_agreement([]).empty
    assert count_images(gather_agreement([])) == 0
