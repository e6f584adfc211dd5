"""The cascade finds a brainstem of known intensity and segments the box around it."""

import dataclasses

import numpy as np
import pytest
import torch
from make_fixture_model import write_band_model, write_cascade
from scipy.ndimage import maximum_filter, minimum_filter

from bids_app.engines.nnunet.cascade import Cascade, Localization
from bids_app.errors import ModelError

CPU = torch.device("cpu")
MIDBRAIN, PONS, MEDULLA, CORD = 1.6, 2.0, 2.4, 2.8


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return Cascade(write_cascade(tmp_path_factory.mktemp("cascade")), device=CPU, mirror=False)


def phantom(spacing, *, middle=(100, 110, 90), size=(200, 220, 180), air=0, scalp=False):
    """A ball of intensity 1 around a column of the four classes, all in mm along z, y, x.

    A scalp is a darker shell around the ball.
    """
    grids = [np.arange(round(n / mm)) for n, mm in zip(size, spacing, strict=True)]
    z, y, x = np.meshgrid(*grids, indexing="ij", sparse=True)
    z, y, x = ((g + 0.5) * mm - m for g, mm, m in zip((z, y, x), spacing, middle, strict=True))
    radius = np.sqrt(z**2 + y**2 + x**2)
    image = np.where(radius < 80, 1, 0).astype(np.float32)
    if scalp:
        image[(radius > 83) & (radius < 93)] = 0.4
    column = (abs(y) < 12) & (abs(x) < 16)
    for intensity, low in ((CORD, -32), (MEDULLA, -24), (PONS, -8), (MIDBRAIN, 8)):
        image[column & (z >= low) & (z < 24)] = intensity
    return np.pad(image, air)


@pytest.mark.parametrize(
    "spacing", [(1, 1, 1), (1, 1.33, 1.33), (0.9, 0.87, 0.87), (3, 1, 1), (2, 2, 2)]
)
def test_the_regions_are_found_where_they_are(cascade, spacing):
    image = phantom(spacing)
    output = cascade.predict(image, spacing)
    truth = sum(np.where(image == v, k, 0) for k, v in enumerate((MIDBRAIN, PONS, MEDULLA), 1))
    labels = np.zeros_like(truth)
    labels[output.region] = output.probabilities.argmax(0)
    assert output.found
    if spacing == (1, 1, 1):  # nothing is resampled
        assert np.array_equal(labels, truth)
    away_from_edges = maximum_filter(image, 3) == minimum_filter(image, 3)
    assert set(truth[away_from_edges]) == {0, 1, 2, 3}
    assert np.array_equal(labels[away_from_edges], truth[away_from_edges])


def test_an_image_larger_than_a_patch_is_looked_at_once_more_around_the_head(cascade, monkeypatch):
    image = phantom((2, 2, 2), size=(300, 300, 200), middle=(180, 160, 90), scalp=True)
    shapes = []
    infer = cascade._localizer.infer
    monkeypatch.setattr(
        cascade._localizer, "infer", lambda data: shapes.append(data.shape[1:]) or infer(data)
    )
    image[0, 0, 0] = image[-1, -1, -1] = 0.1  # the box of the non-zero voxels is the image
    large = cascade.localize(image, (2, 2, 2))
    assert shapes[0] == (75, 75, 50)
    assert max(shapes[1]) <= 64
    assert len(shapes) == 2
    small = cascade.localize(image[40:140, 30:130, 5:85], (2, 2, 2))
    assert len(shapes) == 3
    assert large.intracranial_mm3 == pytest.approx(small.intracranial_mm3, rel=0.02)
    np.testing.assert_allclose(np.subtract(large.centre, small.centre), (40, 30, 5), atol=1)


def test_a_crop_that_lies_badly_is_moved_once(cascade, monkeypatch):
    image = phantom((1, 1, 1))
    expected = cascade.predict(image, (1, 1, 1))
    right = cascade.localize(image, (1, 1, 1))
    low = dataclasses.replace(right, centre=(right.centre[0] - 30, *right.centre[1:]))
    monkeypatch.setattr(cascade, "localize", lambda *_: low)
    moved = cascade.predict(image, (1, 1, 1))
    top, bottom = (expected.region[0].stop, expected.region[0].start)
    assert abs(moved.region[0].stop - top) < 10
    assert abs(moved.region[0].start - bottom) < 10
    near = dataclasses.replace(right, centre=(right.centre[0] - 4, *right.centre[1:]))
    monkeypatch.setattr(cascade, "localize", lambda *_: near)
    assert cascade.predict(image, (1, 1, 1)).region[0].stop == top - 4


def test_the_cord_counts_as_background(cascade):
    image = phantom((1, 1, 1))
    output = cascade.predict(image, (1, 1, 1))
    assert output.probabilities.shape[0] == len(cascade.labels) == 4
    np.testing.assert_allclose(output.probabilities.sum(0), 1, atol=1e-5)
    assert np.all(output.probabilities.argmax(0)[image[output.region] == CORD] == 0)


@pytest.fixture(scope="module")
def with_parts(tmp_path_factory):
    folder = write_cascade(tmp_path_factory.mktemp("parts"), parts=True)
    return Cascade(folder, device=CPU)


def test_parts_add_up_to_regions_and_peduncles_count_as_background(cascade, with_parts):
    plain = phantom((1, 1, 1))
    image = plain.copy()
    image[..., 105:106][plain[..., 105:106] == MIDBRAIN] = 1.8  # tectum
    image[92:108, 100:120, 60:70] = 3.6  # a middle peduncle beside the pons
    assert with_parts.labels == cascade.labels
    assert with_parts.parts == ("tegmentum", "tectum", "scp", "mcp")
    expected, found = cascade.predict(plain, (1, 1, 1)), with_parts.predict(image, (1, 1, 1))
    assert found.region == expected.region
    labels = found.probabilities.argmax(0)
    assert np.array_equal(labels, expected.probabilities.argmax(0))
    assert labels[image[found.region] == 1.8].all()
    inferred, parts = with_parts.predict_sampled(image[found.region])
    assert np.array_equal(inferred.mean.argmax(0), labels)
    assert np.array_equal(parts[1] > 0.5, image[found.region] == np.float32(1.8))
    assert np.array_equal(parts[3] > 0.5, image[found.region] == np.float32(3.6))
    np.testing.assert_allclose(parts[:2].sum(0), inferred.mean[1], atol=1e-6)
    assert inferred.mirror_dice == pytest.approx((1, 1, 1))
    assert inferred.sizes.shape == (2, 3)
    assert cascade.predict_sampled(plain[expected.region])[1] is None


@pytest.mark.parametrize("air", [0, 7, 40])
def test_the_centre_is_met_whatever_lies_around_the_head(cascade, air):
    spacing = (1.1, 0.9, 1.3)
    localization = cascade.localize(phantom(spacing, air=air), spacing)
    column = np.array([100 - 4, 110, 90])  # the cord hangs on to the brainstem
    assert (np.array(localization.centre) - air + 0.5) * spacing == pytest.approx(column, abs=1.5)


@pytest.mark.parametrize("edge", [0.5, 0.87, 0.9999999, 1.0000001, 1.33, 2.5, 6.5])
def test_the_box_never_needs_more_than_one_tile(edge):
    localization = Localization(
        True, (500,) * 3, 1, False, 0, shape=(999,) * 3, spacing=(edge,) * 3
    )
    for part in localization.box((96, 96, 96)):
        assert 96 - edge < (part.stop - part.start) * edge < 96.5
        assert (part.start + part.stop - 1) / 2 == pytest.approx(500, abs=0.5)


def test_the_box_is_clipped_at_the_border(cascade):
    output = cascade.predict(phantom((2, 2, 2), middle=(30, 110, 90)), (2, 2, 2))
    assert output.region[0].start == 0
    assert output.region[0].stop < 48
    assert output.region[1].stop - output.region[1].start == 48


@pytest.mark.parametrize(
    ("height", "touches"), [(100, False), (60, False), (20, True), (185, True)]
)
def test_a_brainstem_at_the_border_is_reported(cascade, height, touches):
    output = cascade.predict(phantom((2, 2, 2), middle=(height, 110, 90)), (2, 2, 2))
    assert output.found
    assert output.touches_border == touches


def test_where_no_brainstem_is_none_is_made_up(cascade):
    image = np.minimum(phantom((2, 2, 2)), 1)
    output = cascade.predict(image, (2, 2, 2))
    assert not output.found
    assert output.probabilities.shape == (4, 0, 0, 0)
    assert image[output.region].size == 0
    assert output.confidence == 0
    assert not output.touches_border


def test_a_speck_is_no_brainstem(cascade):
    image = np.minimum(phantom((2, 2, 2)), 1)
    image[40:46, 50:56, 40:46] = PONS  # 1.7 ml
    assert not cascade.predict(image, (2, 2, 2)).found


def test_of_two_candidates_the_larger_is_taken(cascade):
    image = phantom((2, 2, 2))
    image[80:86, 50:56, 40:46] = PONS
    assert cascade.localize(image, (2, 2, 2)).centre == pytest.approx((47.5, 54.5, 44.5), abs=1)


def test_the_box_of_an_image_without_brainstem_is_all_of_it(cascade):
    image = np.minimum(phantom((4, 4, 4)), 1)
    box = cascade.localize(image, (4, 4, 4)).box((96, 96, 96))
    assert image[box].shape == image.shape


def test_the_inside_of_the_skull_is_measured(cascade):
    localization = cascade.localize(phantom((1.5, 1.2, 1.2), scalp=True), (1.5, 1.2, 1.2))
    assert localization.intracranial_mm3 == pytest.approx(4 / 3 * np.pi * 80**3, rel=0.03)


def test_without_a_scalp_there_is_no_intracranial_volume(cascade):
    assert cascade.localize(phantom((2, 2, 2)), (2, 2, 2)).intracranial_mm3 is None


def test_confidence_is_high_where_the_answer_is_clear(cascade):
    assert cascade.predict(phantom((2, 2, 2)), (2, 2, 2)).confidence > 0.95


def test_networks_of_other_classes_are_refused(tmp_path):
    folder = write_cascade(tmp_path)
    bands = [("background", 0), ("cord", 1), ("scp", 2)]
    write_band_model(folder / "segmenter", bands, patch_size=(8, 8, 8), spacing=(1, 1, 1))
    with pytest.raises(ModelError, match="the classes of a cascade"):
        Cascade(folder, device=CPU)
