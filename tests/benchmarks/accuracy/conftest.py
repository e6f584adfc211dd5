"""A head with known labels, for the tests of the accuracy benchmark."""

import numpy as np
import pytest

from bids_app.io.images import read_volume
from training.evaluate import HeldOut


@pytest.fixture(scope="module")
def head(whole_head):
    """A real head with balls one above the other for labels."""
    volume = read_volume(whole_head)
    grid = np.indices(volume.data.shape)
    truth = np.zeros(volume.data.shape, np.uint8)
    for value, height in ((3, 40), (2, 50), (1, 60)):
        away = grid - np.array([48, 64, height])[:, None, None, None]
        truth[(away**2).sum(0) < 25] = value
    return HeldOut("head", volume, truth, truth)
