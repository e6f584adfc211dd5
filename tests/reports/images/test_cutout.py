"""The cut-out that a page's viewer shows: the brainstem, on the image's own grid, and no more."""

import gzip

import nibabel as nib
import numpy as np

from bids_app.io.images import Volume
from bids_app.reports.images import cutout
from bids_app.reports.images.cutout import LEVELS, MARGIN_MM, WHITE, cut_out


def read(data: bytes):
    image = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    return np.asarray(image.dataobj), image.affine


def test_a_cut_out_holds_image_and_labels_where_they_were(head):
    volume, labels = head
    both, affine = read(cut_out(volume, labels))
    assert both.dtype == np.uint8
    offset = np.rint(np.linalg.inv(volume.affine) @ affine)[:3, 3].astype(int)
    box = tuple(slice(o, o + n) for o, n in zip(offset, both.shape, strict=False))
    assert np.array_equal(both[..., 1], labels[box])
    # Greys follow the image, and tissue as bright as white matter is near WHITE / 1.3.
    inside = labels[box] > 0
    assert both[..., 0][inside].mean() > 3 * both[..., 0][~inside].mean()
    assert both[..., 0].max() < LEVELS
    assert abs(np.median(both[..., 0][inside]) - WHITE / 1.3) < 8


def test_the_whole_map_is_inside_and_no_more_than_a_margin_around_it(head):
    volume, labels = head
    both, _ = read(cut_out(volume, labels))
    assert (both[..., 1] > 0).sum() == (labels > 0).sum()
    extent = np.ptp(np.argwhere(labels), axis=0) * 0.9
    assert (np.array(both.shape[:3]) * 0.9 <= extent + 2 * MARGIN_MM + 3).all()


def test_an_empty_map_gives_the_place_where_a_brainstem_should_be(head):
    volume, labels = head
    both, _ = read(cut_out(volume, np.zeros_like(labels)))
    assert not both[..., 1].any()
    assert min(both.shape[:3]) > 30


def test_a_very_fine_grid_is_thinned_and_stays_in_place(head, monkeypatch):
    volume, labels = head
    whole, affine = read(cut_out(volume, labels))
    monkeypatch.setattr(cutout, "MOST_VOXELS", whole[..., 0].size // 2)
    thin, coarse = read(cut_out(volume, labels))
    assert np.array_equal(thin, whole[::2, ::2, ::2])
    assert np.allclose(coarse[:3, :3], 2 * affine[:3, :3])
    assert np.allclose(coarse[:3, 3], affine[:3, 3])


def test_an_image_of_one_slab_at_the_edge_is_cut_within_its_bounds(head):
    volume, labels = head
    thin = Volume(volume.data[:, :, -40:], volume.affine, None, "", ())
    both, _ = read(cut_out(thin, np.ascontiguousarray(labels[:, :, -40:])))
    assert both.shape[2] <= 40


def test_the_same_head_gives_the_same_bytes(head):
    assert cut_out(*head) == cut_out(*head)
