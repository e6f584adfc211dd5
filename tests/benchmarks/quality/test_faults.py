"""Faults worsen a head as their names say, and the same way each time."""

import numpy as np
import pytest

from benchmarks.quality.faults import all_faults
from bids_app.io.images import read_volume


@pytest.fixture(scope="module")
def case(whole_head):
    volume = read_volume(whole_head)
    labels = np.zeros(volume.data.shape, np.uint8)
    labels[44:52, 60:68, 35:65] = 1
    return volume, labels


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.title)
def test_a_fault_changes_the_image_and_a_map_returns_to_its_grid(case, fault):
    head, labels = case
    worse = fault(head, labels)
    assert worse.data.dtype == np.float32
    assert not np.array_equal(worse.data, head.data)
    assert np.array_equal(worse.data, fault(head, labels).data)
    assert worse.back(np.zeros(worse.data.shape, np.uint8)).shape == head.data.shape


def test_titles_are_unique():
    titles = [fault.title for fault in all_faults()]
    assert len(set(titles)) == len(titles) == 23
