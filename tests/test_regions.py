"""Regions are known by their settled names and their synonyms."""

import pytest

from bids_app import regions


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Mesencephalon", "midbrain"),
        ("PONS", "pons"),
        ("Medulla_oblongata", "medulla"),
        ("medulla-Oblongata", "medulla"),
        (" myelencephalon", "medulla"),
        ("Brain stem", "brainstem"),
        ("Spinal_Cord", "Spinal_Cord"),
    ],
)
def test_regions_are_known_by_their_other_names(name, known):
    assert regions.region(2, name).name == known


def test_the_brainstem_is_made_of_its_parts_or_of_all_where_none_is_known():
    found = [regions.region(i, name) for i, name in enumerate(("cord", "Pons", "medulla"), 1)]
    assert regions.of_brainstem(found) == found[1:]
    assert regions.of_brainstem(found[:1]) == found[:1]
