"""Measures of a segmented image do not depend on how the head lies in the scanner."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from made_brainstem import GRIDS, REGIONS, made
from make_datasets import head
from nibabel.affines import voxel_sizes

from bids_app.io.images import volume_of
from bids_app.measures.image import measure
from bids_app.models import store
from bids_app.segmentation.segmenter import load_segmenter
from bids_app.segmentation.types import InferenceOptions, Segmentation

OPEN = store.find("open")


@pytest.fixture(scope="module")
def take():
    """Segment and measure an image by the open model."""
    segmenter = load_segmenter(OPEN, InferenceOptions(device="cpu"))

    def take(image):
        volume = volume_of(image)
        segmentation = segmenter(volume)
        return segmentation, measure(volume, segmentation, OPEN.regions)

    return take


def numbers(rows, *columns):
    return np.array([[getattr(row, column) for column in columns] for row in rows])


def test_measures_stay_when_the_head_is_turned_in_the_scanner(take):
    upright, straight = take(head(voxel_size=1.2))
    turned, tilted = take(head(voxel_size=1.2, head_degrees=(12, -8, 10)))
    assert upright.frame_pass.turn_degrees < 1
    limits = {"volume_mm3": 0.01, "surface_mm2": 0.01, "midsagittal_mm2": 0.03}
    before, after = numbers(straight.volumes, *limits), numbers(tilted.volumes, *limits)
    # Linear sampling blurs the turned head, which the upright one is spared.
    assert (np.abs(after / before - 1).max(axis=0) < list(limits.values())).all()
    diameters = [numbers(f.volumes[:3], "ap_diameter_mm") for f in (straight, tilted)]
    assert np.abs(diameters[1] / diameters[0] - 1).max() < 0.03
    assert all(dice > 0.9 for dice in turned.pass_dice)


def test_label_map_and_volumes_agree(take):
    _, found = take(head(voxel_size=1.2, head_degrees=(0, 9, 0)))
    for row in found.volumes:
        assert row.label_volume_mm3 == pytest.approx(row.volume_mm3, rel=0.03)
    *parts, whole = (row.volume_mm3 for row in found.volumes)
    assert whole == pytest.approx(sum(parts), abs=0.01)


def test_the_same_image_has_the_same_measures_to_the_last_digit(take):
    image = head(voxel_size=1.5)
    first, second = take(image)[1], take(image)[1]
    assert first == second


def test_a_view_that_cuts_the_brainstem_is_measured(take):
    image = head(voxel_size=1.5)
    segmentation, whole = take(image)
    assert whole.quality["view_fraction"] == 1
    heights = np.flatnonzero((segmentation.labels == 3).any(axis=(0, 1)))
    middle = int(heights.mean())  # of the medulla
    _, cut = take(image.slicer[:, :, middle:])
    assert 0.8 < cut.quality["view_fraction"] < 0.99
    assert "out_of_view" in cut.flags


def test_without_a_brainstem_there_is_no_second_pass_and_no_measure(take):
    noise = np.random.default_rng(0).normal(100, 20, (64, 64, 64)).astype(np.float32)
    segmentation, found = take(nib.Nifti1Image(noise, np.diag([2.0, 2, 2, 1])))
    assert segmentation.frame_pass is None
    assert not segmentation.labels.any()
    assert segmentation.probabilities.size == 0
    assert found.volumes[-1].surface_mm2 is None
    assert "no_brainstem" in found.flags


@pytest.mark.parametrize("grid", GRIDS)
def test_maps_of_other_models_are_measured_on_their_grid_and_shaped_in_the_frame(grid):
    labels, affine = made(grid)
    maps = np.stack([labels == region.index for region in REGIONS]).astype(np.float32)
    box = tuple(slice(0, n) for n in labels.shape)
    volume = SimpleNamespace(data=maps[0], affine=affine, voxel_size=tuple(voxel_sizes(affine)))
    found = measure(volume, Segmentation(labels, maps, box, "cpu"), REGIONS)
    for row in found.volumes:
        assert row.volume_mm3 == pytest.approx(row.label_volume_mm3, rel=1e-5)
        assert row.midsagittal_mm2 is not None
