"""Parts: their map agrees with that of the regions, and sides are those of the participant."""

import nibabel as nib
import numpy as np
import pytest

from bids_app.geometry.frame import EDGE, MIDDLE, Frame, to_grid
from bids_app.io.images import volume_of
from bids_app.measures.parts import by_side, measure_parts
from bids_app.measures.probabilities import near_largest, sum_volumes
from bids_app.regions import parts_map, region
from bids_app.segmentation.canonical import FramePass
from bids_app.segmentation.labels import most_probable
from bids_app.segmentation.types import Segmentation

REGIONS = tuple(region(k, name) for k, name in enumerate(("midbrain", "pons", "medulla"), start=1))
PARTS = ("tegmentum", "tectum", "scp", "mcp")


def frame_affine(degrees: float = 0.0) -> np.ndarray:
    turn = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, 3] = [3, -20, -30] - affine[:3, :3] @ np.full(3, MIDDLE)
    return affine


def make_pass(degrees: float = 0.0) -> FramePass:
    """A midbrain whose rear third is tectum, over a pons with a middle peduncle at both sides."""
    regions = np.zeros((3, EDGE, EDGE, EDGE), np.float32)
    parts = np.zeros((4, EDGE, EDGE, EDGE), np.float32)
    parts[0, 38:58, 46:58, 56:66] = 0.98
    parts[1, 38:58, 40:46, 56:66] = 0.98
    regions[0] = parts[:2].sum(axis=0)
    regions[1, 36:60, 44:64, 36:56] = 0.98
    regions[2, 40:56, 44:58, 20:36] = 0.98
    for x in (slice(24, 36), slice(60, 76)):  # the right one is larger
        parts[3, x, 44:56, 40:50] = 0.97
    for x in (slice(38, 41), slice(55, 58)):
        parts[2, x, 38:43, 48:54] = 0.9
    inside = np.ones((EDGE,) * 3, bool)
    return FramePass(Frame(frame_affine(degrees)), regions, inside, 0.0, False, None, parts)


def segment(second: FramePass | None, orientation: str = "RAS"):
    """The label map that such a pass gives on a grid of 1.5 mm, and its volume."""
    affine = np.diag([1.5, 1.5, 1.5, 1])
    affine[:3, 3] = [-60, -80, -90]
    image = nib.Nifti1Image(np.arange(80.0**3, dtype=np.float32).reshape(80, 80, 80), affine)
    turned = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(orientation)
    )
    volume = volume_of(image.as_reoriented(turned))
    labels = np.zeros(volume.data.shape, np.uint8)
    if second is not None:
        maps, box = to_grid(second.probabilities, second.frame, volume.affine, labels.shape)
        labels[box] = most_probable(maps)
    box = (slice(0, 0),) * 3
    empty = np.zeros((3, 0, 0, 0), np.float32)
    return volume, Segmentation(labels, empty, box, "cpu", frame_pass=second)


def test_the_labels_of_a_map_of_parts_follow_from_what_a_model_knows():
    assert [label.name for label in parts_map(("mcp", "tectum"))] == [
        "tectum", "left_mcp", "right_mcp",
    ]  # fmt: skip
    assert [label.index for label in parts_map(PARTS)] == [1, 2, 3, 4, 5, 6]
    assert parts_map(()) == ()


@pytest.mark.parametrize("degrees", [0, 25])
def test_tegmentum_and_tectum_fill_the_midbrain_and_peduncles_lie_in_no_region(degrees):
    volume, segmentation = segment(make_pass(degrees))
    found = measure_parts(volume, segmentation, REGIONS, PARTS)
    labels = segmentation.labels
    assert np.array_equal(np.isin(found.labels, (1, 2)), labels == 1)
    assert not labels[np.isin(found.labels, (3, 4, 5, 6))].any()
    assert {2, 5, 6} <= set(np.unique(found.labels))


def test_volumes_of_tegmentum_and_tectum_add_up_to_that_of_the_midbrain():
    second = make_pass()
    volume, segmentation = segment(second)
    found = {row.name: row.volume_mm3 for row in measure_parts(
        volume, segmentation, REGIONS, PARTS
    ).volumes}  # fmt: skip
    affine = second.frame.affine
    midbrain = sum_volumes(near_largest(second.probabilities, affine), affine)[0]
    assert found["tegmentum"] + found["tectum"] == pytest.approx(midbrain, abs=0.01)
    assert found["tectum"] == pytest.approx(0.98 * 20 * 6 * 10, abs=0.01)


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "PIR"])
def test_left_is_the_left_of_the_participant(orientation):
    volume, segmentation = segment(make_pass(10), orientation)
    found = measure_parts(volume, segmentation, REGIONS, PARTS)
    rows = {row.name: row for row in found.volumes}
    assert rows["left_mcp"].volume_mm3 == pytest.approx(0.97 * 12 * 12 * 10, abs=0.01)
    assert rows["right_mcp"].volume_mm3 == pytest.approx(0.97 * 16 * 12 * 10, abs=0.01)
    voxels = np.argwhere(found.labels == rows["right_mcp"].index).mean(axis=0)
    other = np.argwhere(found.labels == rows["left_mcp"].index).mean(axis=0)
    across = volume.affine[:3, :3] @ (voxels - other)
    assert across[0] > 30
    assert rows["right_mcp"].label_volume_mm3 == pytest.approx(1920, rel=0.1)


def test_the_midsagittal_plane_lies_between_the_sides():
    maps = np.ones((1, EDGE, 2, 2), np.float32)
    sides = by_side(maps, ["scp"])
    assert list(sides) == ["left_scp", "right_scp"]
    assert sides["left_scp"][:, 0, 0].tolist() == [1.0] * (EDGE // 2) + [0.0] * (EDGE // 2)
    assert np.array_equal(sides["left_scp"] + sides["right_scp"], maps[0])


def test_without_a_brainstem_the_map_is_empty_and_no_volume_is_known():
    volume, segmentation = segment(None)
    found = measure_parts(volume, segmentation, REGIONS, PARTS)
    assert not found.labels.any()
    assert [row.volume_mm3 for row in found.volumes] == [None] * 6
