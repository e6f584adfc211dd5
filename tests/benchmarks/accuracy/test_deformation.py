"""A region shrinks by the share that was asked for, in image and label alike."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import changes, deformation


@pytest.mark.parametrize("share", changes.SHARES)
def test_a_shrunk_region_loses_the_share_that_was_asked_for(head, share):
    assert deformation.true_change(head, "pons", share) == pytest.approx(-share, abs=0.006)
    data, _ = deformation.shrink(head, "pons", share)
    moved = np.argwhere(data != head.volume.data)
    assert np.abs(moved - [48, 64, 50]).max() <= 5 + deformation.FALL_OFF_MM / 2


def test_an_image_is_shrunk_as_its_label_is(head):
    mask = (head.truth == 2).astype(np.float32)
    ball = replace(head, volume=replace(head.volume, data=mask + 1))  # nowhere empty
    data, _ = deformation.shrink(ball, "pons", 0.2)
    change = (data - 1).sum() / mask.sum() - 1
    assert change == pytest.approx(deformation.true_change(head, "pons", 0.2), abs=0.02)
