"""The z-score of nnU-Net v1 is met to the last bit: means and deviations by NumPy 1.26.4."""

import numpy as np
import pytest

from bids_app.engines.nnunet.z_score_v1 import z_score

MEAN, SPREAD = 1001.0073852539062, 578.2194213867188
MEAN_INSIDE, SPREAD_INSIDE = 1251.5093994140625, 433.5916748046875


@pytest.fixture
def image():
    return (np.arange(400_000) * 7919 % 2003).astype(np.float32).reshape(100, 80, 50)


def expected(image, mean, spread):
    return (image - np.float32(mean)) / np.float32(spread + 1e-8)


def test_the_mean_is_that_of_numpy_1(image):
    assert np.array_equal(z_score(image, None), expected(image, MEAN, SPREAD))


def test_a_transposed_image_is_summed_in_the_order_of_its_memory(image):
    turned = image.transpose(2, 0, 1)
    assert np.array_equal(z_score(turned, None), expected(turned, MEAN, SPREAD))


def test_what_lies_outside_does_not_count_and_is_zero(image):
    inside = image > 500
    scored = z_score(image, inside)
    found = expected(image[inside], MEAN_INSIDE, SPREAD_INSIDE)
    assert np.array_equal(scored[inside], found)
    assert not scored[~inside].any()
