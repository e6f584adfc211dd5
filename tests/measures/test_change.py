"""Volumes by deformation follow a known change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_app.measures.change import deformed_volumes

SHAPE = (44, 44, 56)
CENTRE = (np.array(SHAPE) - 1) / 2


def ellipsoid(scale=1.0):
    grid = np.indices(SHAPE) - CENTRE[:, None, None, None]
    away = np.sqrt(((grid / (np.array([10, 9, 16]) * scale)[:, None, None, None]) ** 2).sum(axis=0))
    return (1 / (1 + np.exp(10 * (away - 1)))).astype(np.float32)


def scan(scale=1.0, seed=0, noise_sd=2.0):
    noise = np.random.default_rng(seed).normal(0, noise_sd, SHAPE)
    return (20 + 80 * ellipsoid(scale) + noise).astype(np.float32)


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_a_loss_is_shown(loss):
    part = ellipsoid()[None]
    later = scan((1 - loss) ** (1 / 3), seed=1, noise_sd=0.5)
    images = np.stack([scan(noise_sd=0.5), later])
    before, after = deformed_volumes(images, part)[:, 0]
    assert (after - before) / part.sum() == pytest.approx(-loss, abs=0.1 * loss + 0.002)


def test_exchanging_scans_changes_the_sign_and_nothing_else():
    images, part = np.stack([scan(), scan(0.98, seed=1)]), ellipsoid()[None]
    first, second = deformed_volumes(images, part), deformed_volumes(images[::-1], part)
    np.testing.assert_array_equal(first, second[::-1])


def test_the_same_scan_twice_shows_no_change():
    images = np.stack([scan(), scan()])
    first, second = deformed_volumes(images, ellipsoid()[None])
    assert first == second


def test_the_unit_of_intensity_does_not_matter():
    images, part = np.stack([scan(), scan(0.98, seed=1)]), ellipsoid()[None]
    np.testing.assert_allclose(
        deformed_volumes(4 * images, part), deformed_volumes(images, part), rtol=1e-6
    )


def test_regions_share_the_change_of_the_whole():
    upper = ellipsoid() * (np.indices(SHAPE)[2] >= CENTRE[2])
    parts = np.stack([upper, ellipsoid() - upper])
    images = np.stack([scan(), ndimage.shift(scan(), (0.2, 0, 0), mode="nearest")])
    volumes = deformed_volumes(images, parts)
    whole = deformed_volumes(images, parts.sum(axis=0, keepdims=True))
    np.testing.assert_allclose(volumes.sum(axis=1), whole[:, 0], rtol=1e-6)


def test_without_a_brainstem_it_is_an_error():
    with pytest.raises(ValueError, match="no brainstem"):
        deformed_volumes(np.stack([scan(), scan()]), np.zeros((1, *SHAPE), np.float32))
