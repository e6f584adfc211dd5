"""A mosaic shows a label map where it lies, and is the same bytes each time."""

import io

import numpy as np
import pytest
from PIL import Image

from bids_app.regions import Region, region
from bids_app.reports.images import pictures
from bids_app.reports.images.framing import SIDE_MM, SLICES
from bids_app.reports.images.pictures import FOOTER, GAP, TILE, mosaic

REGIONS = (region(1, "midbrain"), region(2, "pons"), region(3, "medulla"))
SAGITTAL, CORONAL, AXIAL = range(3)


def head(size=(1.0, 1.0, 1.0), centre=(64.0, 64.0, 56.0), radius=20.0, extent=128.0):
    """Grey noise with a ball of label 2, both on a grid of voxels of `size` mm."""
    shape = [round(extent / edge) for edge in size]
    data = np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, size, strict=True)), indexing="ij")
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
    return data, np.where(distance < radius, 2, 0).astype(np.uint8)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def tile(png, row, column=SLICES // 2):
    top, left = row * (TILE + GAP), column * (TILE + GAP)
    return pixels(png)[top : top + TILE, left : left + TILE]


def painted(part, color):
    """Pixels of (nearly) the colour."""
    wanted = np.array(list(bytes.fromhex(color[1:])))
    return np.abs(part - wanted).max(axis=-1) < 30


def test_the_same_arguments_give_the_same_bytes_without_date_or_text():
    data, labels = head()
    png = mosaic(data, labels, (1, 1, 1), REGIONS)
    assert png == mosaic(data, labels, (1, 1, 1), REGIONS)
    assert not any(chunk in png for chunk in (b"tIME", b"tEXt", b"zTXt", b"iTXt"))


def test_a_region_is_outlined_in_its_colour_and_not_filled():
    data, labels = head()
    middle = tile(mosaic(data, labels, (1, 1, 1), REGIONS), AXIAL)
    line = painted(middle, REGIONS[1].color)
    assert line.sum() > 100
    assert not line[TILE // 2 - 20 : TILE // 2 + 20, TILE // 2 - 20 : TILE // 2 + 20].any()
    assert not painted(middle, REGIONS[0].color).any()


@pytest.mark.parametrize("size", [(1, 1, 1), (0.5, 1, 3), (2, 2, 0.8)])
@pytest.mark.parametrize("row", [SAGITTAL, CORONAL, AXIAL])
def test_a_ball_is_round_and_true_to_scale_whatever_the_voxels(size, row):
    data, labels = head(size)
    line = painted(tile(mosaic(data, labels, size, REGIONS), row), REGIONS[1].color)
    height, width = (np.ptp(np.flatnonzero(line.any(axis=axis))) for axis in (1, 0))
    assert height == pytest.approx(40 * TILE / SIDE_MM, abs=8)
    assert width == pytest.approx(height, abs=8)


def test_left_is_left_front_is_up_in_axial_slices_and_left_in_sagittal_ones():
    data, labels = head()
    data[:] = 0
    data[:64] = 100  # the participant's left
    assert_brighter(mosaic(data, labels, (1, 1, 1), REGIONS), CORONAL, "left")
    assert_brighter(mosaic(data, labels, (1, 1, 1), REGIONS), AXIAL, "left")
    data[:] = 0
    data[:, 64:] = 100  # the front
    assert_brighter(mosaic(data, labels, (1, 1, 1), REGIONS), SAGITTAL, "left")
    assert_brighter(mosaic(data, labels, (1, 1, 1), REGIONS), AXIAL, "top")
    data[:] = 0
    data[:, :, 64:] = 100  # above
    assert_brighter(mosaic(data, labels, (1, 1, 1), REGIONS), SAGITTAL, "top")
    assert_brighter(mosaic(data, labels, (1, 1, 1), REGIONS), CORONAL, "top")


def assert_brighter(png, row, side):
    grey = tile(png, row, column=1).mean(axis=-1)
    half = TILE // 2
    first, second = (
        (grey[:, : half - 10], grey[:, half + 10 :])
        if side == "left"
        else (grey[: half - 20], grey[half + 20 :])
    )
    assert first.mean() > second.mean() + 100


def test_slices_run_from_left_to_right_back_to_front_and_bottom_to_top():
    data, labels = head()
    for row, axis in enumerate((0, 1, 2)):
        ramp = np.arange(128, dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        png = mosaic(np.broadcast_to(ramp, data.shape), labels, (1, 1, 1), REGIONS)
        means = [np.median(tile(png, row, column)) for column in range(SLICES)]
        assert means == sorted(means)
        assert means[0] < means[-1]


def test_one_lone_voxel_is_drawn():
    data, _ = head()
    labels = np.zeros(data.shape, np.uint8)
    labels[64, 64, 60] = 3
    png = mosaic(data, labels, (1, 1, 1), REGIONS)
    for row in (SAGITTAL, CORONAL, AXIAL):
        part = tile(png, row)
        assert (part.max(axis=-1) - part.min(axis=-1) > 60).sum() >= 4


def test_neighbouring_regions_do_not_paint_over_each_other():
    data, labels = head()
    labels[:, :, 56:][labels[:, :, 56:] == 2] = 1
    middle = tile(mosaic(data, labels, (1, 1, 1), REGIONS), SAGITTAL)
    border = middle[TILE // 2 - 12 : TILE // 2 + 12, TILE // 2 - 10 : TILE // 2 + 10]
    for neighbour in REGIONS[:2]:
        assert painted(border, neighbour.color).any(axis=0).all()


def test_a_stray_voxel_far_away_does_not_move_the_frame():
    data, labels = head()
    before = tile(mosaic(data, labels, (1, 1, 1), REGIONS), AXIAL)
    labels[2, 2, 2] = 1
    assert np.array_equal(before, tile(mosaic(data, labels, (1, 1, 1), REGIONS), AXIAL))


def test_a_map_larger_than_the_frame_is_shown_whole():
    data, labels = head(radius=58)
    line = painted(tile(mosaic(data, labels, (1, 1, 1), REGIONS), AXIAL), REGIONS[1].color)
    assert not line[:3].any()
    assert not line[:, -3:].any()
    assert line.any()


def test_an_empty_map_shows_the_place_well_below_the_vertex_and_says_so():
    data, labels = head(size=(2, 2, 2), extent=180)
    data[:, :, 80:] = 0  # air above the vertex, at 160 mm
    data[42:48, 42:48, 22:28] = 900
    png = mosaic(data, np.zeros_like(labels), (2, 2, 2), REGIONS)
    middle = tile(png, SAGITTAL)[TILE // 2 - 4 : TILE // 2 + 4, TILE // 2 - 4 : TILE // 2 + 4]
    assert middle.min() > 200
    with_map = pixels(mosaic(data, labels, (2, 2, 2), REGIONS))[-FOOTER:]
    assert (pixels(png)[-FOOTER:] > 200).sum() > (with_map > 200).sum() + 500


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_flat_image_gives_a_picture_all_the_same(value):
    data = np.full((90, 90, 90), value, np.float32)
    assert pixels(mosaic(data, np.zeros(data.shape, np.uint8), (1, 1, 1), REGIONS)).any()


def test_a_map_at_the_edge_of_the_image_is_shown():
    data, labels = head(centre=(64, 64, 0))
    line = painted(tile(mosaic(data, labels, (1, 1, 1), REGIONS), SAGITTAL), REGIONS[1].color)
    assert line.any()


def test_bright_fat_does_not_darken_the_brain():
    data, labels = head()
    data[:, :, :20] = 2000
    assert np.median(tile(mosaic(data, labels, (1, 1, 1), REGIONS), AXIAL)) > 120


def test_eight_colours_can_be_distinguished_and_a_ninth_is_refused():
    data, labels = head()
    colours = [f"#{v:02X}{255 - v:02X}80" for v in range(0, 256, 32)]
    named = [Region(i + 1, f"r{i}", f"R{i}", c) for i, c in enumerate(colours)]
    footer = pixels(mosaic(data, labels, (1, 1, 1), named))[-FOOTER:]
    for colour in colours:
        wanted = np.array(list(bytes.fromhex(colour[1:])))
        assert (footer == wanted).all(axis=-1).sum() == 13 * 13
    with pytest.raises(ValueError, match="at most 8"):
        mosaic(data, labels, (1, 1, 1), [*named, Region(9, "r9", "R9", "#123456")])


def test_a_name_that_the_font_lacks_is_replaced_by_its_value():
    data, labels = head()
    names = [[Region(2, name, "X", "#123456")] for name in ("脑桥", "label 2")]
    assert mosaic(data, labels, (1, 1, 1), names[0]) == mosaic(data, labels, (1, 1, 1), names[1])


def test_the_image_is_left_as_it_was():
    data, labels = head()
    copies = data.copy(), labels.copy()
    mosaic(data, labels, (1, 1, 1), REGIONS)
    assert np.array_equal(data, copies[0])
    assert np.array_equal(labels, copies[1])


def test_the_scale_bar_is_twenty_millimetres():
    data, labels = head()
    footer = pixels(mosaic(data, labels, (1, 1, 1), REGIONS))[-FOOTER // 2]
    bar = np.flatnonzero(footer[-60:, 0] > 200)
    assert np.ptp(bar) + 1 == pytest.approx(pictures.SCALE_BAR_MM * TILE / SIDE_MM, abs=2)
