"""The study of change: sharp losses are as large as they say, and tables hold their numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.change import study
from benchmarks.change.boundary import boundary_volumes
from benchmarks.change.erosion import erode
from bids_app.io.images import read_volume
from training.evaluate import HeldOut


@pytest.fixture
def head(whole_head):
    """Bright regions in dark fluid, one above the other."""
    volume = read_volume(whole_head)
    grid = np.indices(volume.data.shape)
    truth = np.zeros(volume.data.shape, np.uint8)
    for value, height in ((3, 40), (2, 52), (1, 64)):
        away = np.abs(grid - np.array([48, 64, height])[:, None, None, None])
        truth[(away < [[[[8]]], [[[8]]], [[[6]]]]).all(axis=0)] = value
    data = np.where(truth > 0, 100, 20).astype(np.float32)
    return HeldOut("head", replace(volume, data=data), truth, truth)


@pytest.mark.parametrize("share", [0.03, 0.08])
def test_a_sharp_loss_has_the_share_that_was_asked_for(head, share):
    data, changes = erode(head, share)
    for region, change in changes.items():
        mask = head.truth == region
        lost = (head.volume.data - data)[mask].sum() / 80 / mask.sum()
        assert change == pytest.approx(-share, abs=1e-3)
        assert lost == pytest.approx(share, abs=1e-3)


def test_nothing_but_the_outermost_layer_is_eroded(head):
    data, _ = erode(head, 0.03)
    places = np.argwhere(data != head.volume.data)
    neighbours = [
        head.truth[tuple((places + step).T)]
        for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int))
    ]
    assert (np.array(neighbours) == 0).any(axis=0).all()


def test_a_boundary_shift_follows_a_sharp_loss(head):
    data, changes = erode(head, 0.03)
    maps = np.stack([(head.truth == value).astype(np.float32) for value in (1, 2, 3)])
    box = (slice(30, 66), slice(46, 82), slice(24, 80))
    images = [ndimage.gaussian_filter(image[box], 0.8) for image in (head.volume.data, data)]
    before, after = boundary_volumes(np.stack(images), maps[(slice(None), *box)])
    expected = sum(changes[value] * maps[value - 1].sum() for value in (1, 2, 3))
    assert (after - before).sum() == pytest.approx(expected, rel=0.25)


def test_noise_and_slopes_are_those_of_the_scans():
    truth = np.zeros((len(study.SERIES), 3))
    truth[3:] = -5
    values = 0.9 * truth + np.array([-0.1, 0.0, 0.1, *[0] * 5])[:, None]
    noise, smooth, sharp = study.score([({"alone": values}, truth)], {"alone": 1}, 1)
    assert noise == pytest.approx(0.1 * 2**0.5)
    assert (smooth, sharp) == (pytest.approx(0.9), pytest.approx(0.9))
