"""Measures of trust say what they should of made brainstems and images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from made_brainstem import GRIDS, REGIONS, made
from nibabel.affines import voxel_sizes

from bids_app.bids.columns import QUALITY
from bids_app.measures.image import measure
from bids_app.regions import region
from bids_app.segmentation.types import Segmentation

TISSUE, CSF, NOISE = 100.0, 20.0, 4.0


def take(labels, affine, data=None, sureness=1.0, **known):
    """Measure a label map whose probabilities are `sureness` within each label."""
    masks = np.stack([labels == region.index for region in REGIONS])
    probabilities = (sureness * masks).astype(np.float32)
    everything = tuple(slice(0, n) for n in labels.shape)
    segmentation = Segmentation(labels, probabilities, everything, "cpu", **known)
    if data is None:
        data = image(labels)
    volume = SimpleNamespace(data=data, affine=affine, voxel_size=tuple(voxel_sizes(affine)))
    return measure(volume, segmentation, REGIONS).quality


def image(labels, tissue=TISSUE, csf=CSF, noise=NOISE):
    generator = np.random.default_rng(0)
    clean = np.where(labels > 0, tissue, csf)
    return (clean + generator.normal(0, noise, labels.shape)).astype(np.float32)


@pytest.fixture(scope="module", params=GRIDS)
def found(request):
    return take(*made(request.param))


def test_of_an_empty_map_self_consistency_is_0_and_there_is_no_etiv():
    labels, affine = made(next(iter(GRIDS)))
    found = take(np.zeros_like(labels), affine, image(labels), intracranial_mm3=1.5e6)
    assert found["self_consistency"] == 0
    assert "etiv_mm3" not in found


def test_a_label_that_is_no_part_of_the_brainstem_changes_nothing_of_it():
    labels, affine = made(next(iter(GRIDS)))
    with_cord = labels.copy()
    with_cord[-3:, -3:, -3:] = 9
    regions = (*REGIONS, region(9, "cord"))
    data = image(labels)
    found = []
    for map_, known in ((labels, REGIONS), (with_cord, regions)):
        masks = np.stack([map_ == part.index for part in known]).astype(np.float32)
        box = tuple(slice(0, n) for n in labels.shape)
        volume = SimpleNamespace(data=data, affine=affine, voxel_size=tuple(voxel_sizes(affine)))
        found.append(measure(volume, Segmentation(map_, masks, box, "cpu"), known))
    alone, together = found
    assert _volume(together) == _volume(alone)
    areas = [found.volumes[-1].midsagittal_mm2 for found in (together, alone)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-3)  # sampled at other places
    assert together.flags == alone.flags
    shared = {key: together.quality[key] for key in alone.quality}
    assert shared == pytest.approx(alone.quality, rel=0.02)


def _volume(found):
    """Volume of the whole brainstem, without what depends on where the map is sampled."""
    row = found.volumes[-1]
    return row.index, row.voxels, row.volume_mm3, row.clusters, row.centroid_x_mm


def test_every_measure_has_its_column(found):
    assert set(found) <= set(QUALITY)


def test_order_contact_and_symmetry_of_a_good_map(found):
    assert found["midbrain_pons_height_mm"] == pytest.approx(19.2, abs=1)
    assert found["pons_medulla_height_mm"] == pytest.approx(25.5, abs=1.5)
    assert found["pons_medulla_contact_mm2"] > np.pi * 8 * 6 * 0.95
    for name in ("midbrain", "pons", "medulla", "brainstem"):
        assert found[f"{name}_symmetry"] > 0.93
        assert found[f"{name}_largest_component_fraction"] == 1


@pytest.mark.parametrize("sureness", [1.0, 0.8, 0.5])
def test_soft_dice_falls_with_the_probabilities(sureness):
    found = take(*made("fine"), sureness=sureness)
    for name in ("midbrain", "pons", "medulla", "brainstem"):
        assert found[f"{name}_soft_dice"] == pytest.approx(2 * sureness / (1 + sureness), abs=1e-3)


def test_what_the_segmenter_measures_is_passed_on():
    known = {"intracranial_mm3": 1.5e6, "confidence": 0.9, "agreement": (0.9, 0.95, float("nan")),
             "mirror_dice": (0.8, 0.9, 0.7)}  # fmt: skip
    found = take(*made("fine"), **known)
    assert (found["etiv_mm3"], found["localizer_confidence"]) == (1.5e6, 0.9)
    assert (found["midbrain_agreement"], found["pons_agreement"]) == (0.9, 0.95)
    assert "medulla_agreement" not in found
    assert found["medulla_mirror_dice"] == 0.7


def test_an_upside_down_map_has_negative_heights():
    labels, affine = made("fine")
    found = take(labels[:, :, ::-1].copy(), affine)
    assert found["midbrain_pons_height_mm"] < 0
    assert found["pons_medulla_height_mm"] < 0


@pytest.mark.parametrize("absent", [1, 2, 3])
def test_partial_maps_fail_at_nothing(absent):
    found = take(*made("uneven", absent=absent))
    name = REGIONS[absent - 1].name
    assert not [key for key in found if key.startswith(name)]


@pytest.mark.parametrize("voxels", [0, 1, 5])
def test_empty_maps_and_specks_fail_at_nothing(voxels):
    labels = np.zeros((30, 30, 30), np.uint8)
    labels.flat[:voxels] = 2
    assert take(labels, np.eye(4))["max_voxel_edge_mm"] == 1
