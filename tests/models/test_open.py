"""The shipped model finds the brainstem of a real head, and none where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_app.io.images import read_volume
from bids_app.measures.flags import find_flags
from bids_app.measures.volumes import measure_regions
from bids_app.models import store
from bids_app.models.manifest import verify
from bids_app.segmentation.segmenter import load_segmenter
from bids_app.segmentation.types import InferenceOptions

MODEL = store.find("open")
LIMITS_ML = {"midbrain": (5, 15), "pons": (9, 22), "medulla": (3, 9), "brainstem": (17, 40)}


@pytest.fixture(scope="module")
def segment():
    verify(MODEL)
    return load_segmenter(MODEL, InferenceOptions(device="cpu", threads=2))


@pytest.fixture(scope="module")
def head(whole_head):
    return read_volume(whole_head)


@pytest.fixture(scope="module")
def of_head(segment, head):
    return segment(head)


def measure(volume, segmentation):
    return measure_regions(segmentation.labels, volume.affine, MODEL.regions)


def test_the_regions_of_a_head_are_plausible_and_in_order(head, of_head):
    measures = measure(head, of_head)
    for measured in measures:
        low, high = LIMITS_ML[measured.name]
        assert low < measured.volume_mm3 / 1000 < high
        assert measured.largest_component_fraction > 0.98
    heights = [measured.centroid[2] for measured in measures[:3]]
    assert heights == sorted(heights, reverse=True)
    assert find_flags(of_head, measures) == ()


def test_the_inside_of_the_skull_is_a_little_larger_than_the_brain_in_it(of_head):
    brain_mm3 = 1.887e6  # of the template's own mask: it is larger than most heads
    assert 1 < of_head.intracranial_mm3 / brain_mm3 < 1.15


def test_probabilities_agree_with_the_labels(of_head):
    inside = of_head.labels[of_head.box] > 0
    assert of_head.probabilities.sum(axis=0)[inside].min() > 0.49
    assert of_head.probabilities.sum(axis=0).max() <= 1 + 1e-5


@pytest.mark.parametrize("kind", ["noise", "upper half of the head", "a phantom"])
def test_where_no_brainstem_is_the_map_is_empty_and_flagged(segment, head, kind):
    if kind == "noise":
        data = np.random.default_rng(0).normal(100, 20, head.data.shape).astype(np.float32)
    elif kind == "a phantom":
        grid = np.indices(head.data.shape).T - np.array(head.data.shape) / 2
        ball = 100 * (np.linalg.norm(grid, axis=-1).T < 35)
        data = abs(np.random.default_rng(0).normal(ball, 4)).astype(np.float32)
    else:
        data = head.data.copy()
        data[:, :, : head.data.shape[2] * 6 // 10] = 0
    volume = replace(head, data=data)
    segmentation = segment(volume)
    assert not segmentation.labels.any()
    assert "no_brainstem" in find_flags(segmentation, measure(volume, segmentation))
