"""Changes of a head do what their titles say."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import changes
from training.evaluate import volume_of


def test_a_head_stored_in_any_order_is_read_as_the_same(head):
    assert len(set(changes.orientations())) == 48
    for codes in changes.orientations():
        volume = volume_of(*changes.store_as(head, codes))
        assert np.array_equal(volume.data, head.volume.data)
        assert np.allclose(volume.affine, head.volume.affine, atol=1e-4)


def test_a_turned_head_keeps_its_tissue_and_turns_by_the_angle(head):
    data = (head.truth > 0).astype(np.float32)
    bar = replace(head, volume=replace(head.volume, data=data))
    turned, affine = changes.rotate(bar, 25, axis=0)
    assert turned.sum() == pytest.approx(
        data.sum(), rel=0.06
    )  # of single voxels, whose corners a spline rounds
    axes = [np.linalg.svd(np.cov(np.argwhere(a > 0.5).T))[0][:, 0] for a in (data, turned)]
    assert np.degrees(np.arccos(abs(axes[0] @ axes[1]))) == pytest.approx(25, abs=1.5)
    assert np.allclose(affine[:3, :3], head.volume.affine[:3, :3])


@pytest.mark.parametrize("edges", [(1.3, 1.3, 1.3), (3, 3, 3), (1, 1, 3)])
def test_a_head_with_other_voxels_stays_where_it_is(head, edges):
    data, affine = changes.resample(head, edges)
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), edges)
    centres = [
        a[:3, :3] @ np.array(np.nonzero(d > 300)).mean(1) + a[:3, 3]
        for d, a in ((head.volume.data, head.volume.affine), (data, affine))
    ]
    assert np.allclose(*centres, atol=1)


def test_nothing_but_noise_is_left_out_of_a_cut_head(head):
    above, affine = changes.keep_above_medulla(head)
    lost = head.volume.data.shape[2] - above.shape[2]
    assert not (head.truth[:, :, lost:] == 3).any()
    assert np.allclose(affine[:3, 3] - head.volume.affine[:3, 3], [0, 0, 2 * lost])
    upper, _ = changes.keep_upper_part(head)
    assert not head.truth[:, :, -upper.shape[2] :].any()
    lower, _ = changes.keep_lower_half(head)
    assert lower.shape[2] * 2 >= head.volume.data.shape[2]
    assert not head.truth[:, :, lower.shape[2] :].any()


def test_titles_tell_changes_apart(head):
    listed = [*changes.harmless(), *changes.atrophy("pons"), *changes.without_brainstem()]
    assert len({change.title for change in listed}) == len(listed)


def test_a_stripped_head_keeps_its_brainstem_and_the_mask_alone(head):
    stripped, _ = changes.strip(head, np.zeros(head.truth.shape, bool))
    labelled = head.truth > 0
    assert np.array_equal(stripped[labelled], head.volume.data[labelled])
    assert np.count_nonzero(stripped) < 3 * np.count_nonzero(labelled)
