"""Columns of the tables fit together."""

import pytest

from bids_app.bids.columns import FROM_VOLUMES, MEASURES, VOLUMES
from bids_app.regions import REGIONS


@pytest.mark.parametrize(("ending", "column"), FROM_VOLUMES.items())
def test_what_the_group_table_copies_is_in_both_tables(ending, column):
    assert column in VOLUMES
    assert any(f"{region}_{ending}" in MEASURES for region in REGIONS)


def test_every_measure_of_an_image_is_copied_to_the_group_table():
    kept = {"index", "name", "abbreviation", "voxels"}  # place a row, or follow from the volume
    centroids = {f"centroid_{axis}_mm" for axis in "xyz"}
    assert set(VOLUMES) - kept - centroids == set(FROM_VOLUMES.values())
