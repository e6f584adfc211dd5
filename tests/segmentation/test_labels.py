"""The most probable region has the voxel."""

from __future__ import annotations

import numpy as np

from bids_app.segmentation.labels import most_probable


def test_the_most_probable_region_has_the_voxel_and_the_background_wins_a_draw():
    probabilities = np.array([[0.5, 0.4, 0.2, 0.6], [0.0, 0.5, 0.3, 0.4]], np.float32)
    labels = most_probable(probabilities.reshape(2, 4, 1, 1))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.ravel(), [0, 2, 0, 1])
