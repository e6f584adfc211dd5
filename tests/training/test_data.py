"""What the prepared file promises."""

import nibabel as nib
import numpy as np
import pytest

from training.cases import (
    CODES,
    CORD,
    ICP,
    IGNORE,
    MCP,
    MEDULLA,
    MIDBRAIN,
    NOT_STEM,
    SCP,
    TECTUM,
    Case,
    load_cases,
    read_split,
    save_cases,
)
from training.data import (
    NEAR_SIZE,
    cut,
    doubt_cortex,
    know_beside_limit,
    know_fluid,
    prepare,
    to_bytes,
)
from training.frame import canonical_frame, grid_affine
from training.sources import read_brainstem, read_classes, read_map, track_cord


def column(low: int = 20, high: int = 40) -> np.ndarray:
    """Labels (40, 40, 60) of a column: medulla from `low` to `high`, pons above."""
    labels = np.zeros((40, 40, 60), np.uint8)
    labels[15:25, 15:25, low:high] = MEDULLA
    labels[15:25, 15:25, high : high + 10] = 2
    return labels


def test_no_head_is_in_two_parts_of_the_split():
    parts = read_split()
    names = [name for part in parts.values() for name in part]
    assert set(parts) == {"train", "validation", "test"}
    assert len(names) == len(set(names))


def test_the_map_with_a_short_medulla_is_in_no_part():
    assert "synthseg_01" not in [name for part in read_split().values() for name in part]


def test_cases_come_back_from_the_file_as_they_went_in(tmp_path):
    arrays = {"near/image": np.arange(8, dtype=np.uint8).reshape(2, 2, 2)}
    save_cases(tmp_path / "data.npz", iter([Case("ds011_sub-01", True, arrays)]))
    case = load_cases(tmp_path / "data.npz")["ds011_sub-01"]
    assert case.real
    np.testing.assert_array_equal(case.arrays["near/image"], arrays["near/image"])


def test_a_cut_is_in_z_y_x_order_at_the_spacing_asked_for():
    data = np.zeros((30, 30, 30), np.float32)
    data[10:12, 15, 20] = 1  # 2 mm along x at 1 mm
    centre = np.full(3, 15.0)
    cube = cut(data, np.eye(4), grid_affine(np.eye(3), centre, 20, 0.5), 20, 0)
    assert cube.shape == (20, 20, 20)
    found = np.argwhere(cut(data, np.eye(4), grid_affine(np.eye(3), centre, 31, 1.0), 31, 0))
    np.testing.assert_array_equal(found, [[20, 15, 10], [20, 15, 11]])


def test_outside_of_the_image_a_cut_is_zero():
    grid = grid_affine(np.eye(3), np.full(3, 4.5), 30, 1.0)
    cube = cut(np.ones((10, 10, 10), np.float32), np.eye(4), grid, 30, 3)
    assert cube[0].max() == 0
    assert cube[15, 15, 15] == pytest.approx(1)


def test_in_bytes_only_empty_voxels_are_zero():
    image = np.array([0, 1e-3, 500, 1000], np.float32)
    np.testing.assert_array_equal(to_bytes(image) == 0, image == 0)


def test_what_is_set_aside_and_dark_as_fluid_is_background():
    labels = column()
    labels[14:16, 15:25, 30:38] = IGNORE
    labels[24:26, 15:25, 30:38] = IGNORE
    image = np.full(labels.shape, 100, np.float32)
    image[:16] = 20
    known = know_fluid(labels, image)
    assert (known[14:16, 20, 30:38] == 0).all()
    assert (known[24:26, 20, 30:38] == IGNORE).all()


def test_beside_the_lower_limit_all_but_the_nearest_millimetre_is_learned():
    labels = column()
    labels[15:25, 15:25, 10:20] = CORD
    learned = labels.copy()
    learned[15:25, 15:25, 17:23] = IGNORE
    learned[15:17] = IGNORE  # the rim, in doubt for another reason
    known = know_beside_limit(learned, labels, np.ones(3))
    np.testing.assert_array_equal(
        known[20, 20, 16:24], [CORD, CORD, CORD, IGNORE, IGNORE, MEDULLA, MEDULLA, MEDULLA]
    )
    assert (known[15, 20, 17:23] == IGNORE).all()


def test_cortex_of_a_map_beside_a_thin_peduncle_may_be_peduncle_too():
    cortex, white = CODES.index(8), CODES.index(7)
    anatomy = np.full((12, 12, 12), cortex, np.uint8)
    anatomy[:, :6] = white
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[4:6, 4:6, 4:6] = SCP
    doubted = doubt_cortex(labels, anatomy)
    assert (doubted == NOT_STEM).sum() == (4 + 8) + 4  # one voxel away, then two
    assert not (doubted[:, :6] == NOT_STEM).any()
    labels[labels == SCP] = MCP
    assert np.array_equal(doubt_cortex(labels, anatomy), labels)


@pytest.mark.parametrize("flipped", [False, True], ids=["RAS", "LPI"])
def test_labels_come_back_on_the_grid_of_their_head(tmp_path, flipped):
    affine = np.array([[2.0, 0, 0, -30], [0, 2, 0, -40], [0, 0, 2, -50], [0, 0, 0, 1]])
    volumes = np.zeros((4, 5, 6, 8), np.uint8)
    for z, region in enumerate((6, 2, 1, 0, 4)):  # cord, medulla, pons, midbrain, peduncle
        volumes[1, 1, z, region] = 10
    volumes[2, 2, 0, 7] = 1
    origin = affine.copy()
    origin[:3, 3] += 2 * np.array([3, 4, 7])
    if flipped:
        volumes = volumes[::-1, ::-1, ::-1]
        origin[:3, 3] += 2 * np.array([3, 4, 5])
        origin[:3, :3] *= -1
    nib.save(nib.Nifti1Image(volumes, origin), tmp_path / "head_probseg.nii.gz")
    labels, aside = read_brainstem(tmp_path / "head_probseg.nii.gz", (20, 20, 20), affine)
    np.testing.assert_array_equal(labels[4, 5, 7:12], [4, 3, 2, 1, 0])
    assert (labels > 0).sum() == 4
    assert aside[5, 6, :8].all()
    assert aside.sum() == 8


def test_parts_are_told_apart_only_where_they_are_asked_for(tmp_path):
    volumes = np.zeros((1, 1, 4, 9), np.uint8)
    volumes[0, 0, :2, 0] = 15
    volumes[0, 0, 1, 7] = 10  # of the midbrain, the tectum
    volumes[0, 0, 2, 3] = volumes[0, 0, 3, 5] = 12
    nib.save(nib.Nifti1Image(volumes, np.eye(4)), tmp_path / "head_probseg.nii.gz")
    place = (tmp_path / "head_probseg.nii.gz", (1, 1, 4), np.eye(4))
    assert read_classes(*place)[0].ravel().tolist() == [MIDBRAIN, TECTUM, SCP, ICP]
    assert read_brainstem(*place)[0].ravel().tolist() == [MIDBRAIN, MIDBRAIN, 0, 0]


@pytest.mark.parametrize("degrees", [-20, 0, 15])
def test_in_the_canonical_frame_the_brainstem_leans_forward_by_12_degrees(degrees):
    labels = column()
    labels[15:25, 15:25, 50:58] = MIDBRAIN
    labels[5:12, 15:25, 42:48] = labels[28:35, 15:25, 42:48] = MCP
    turn = np.eye(4)
    sin, cos = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    turn[:3, :3] = [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]
    frame = canonical_frame(labels, turn)
    np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-9)
    along = frame.T @ turn[:3, 2]
    np.testing.assert_allclose(
        along, [0, np.sin(np.deg2rad(12)), np.cos(np.deg2rad(12))], atol=0.01
    )
    np.testing.assert_allclose(frame[:, 0], turn[:3, 0], atol=0.01)


def test_without_a_medulla_the_frame_is_that_of_the_image():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:15, 5:15, 5:15] = MIDBRAIN
    np.testing.assert_array_equal(canonical_frame(labels, np.diag([2.0, 2, 3, 1])), np.eye(3))


def test_the_cord_of_a_map_is_followed_down_from_the_medulla():
    labels = column()
    codes = np.where(labels > 0, 16, 0)
    codes[16:24, 16:24, 4:15] = 512
    codes[16:24, 16:24, 15:20] = 16
    codes[30:40, 30:40, :] = 512  # the same tissue elsewhere
    cord = track_cord(codes, labels)
    assert cord[20, 20, 4:20].all()
    assert not cord[35, 35].any()
    assert not cord[:, :, 20:].any()


def test_the_near_look_holds_a_turned_patch():
    reach = 48 * (np.cos(np.deg2rad(25)) + np.sin(np.deg2rad(25))) + 8
    assert reach <= NEAR_SIZE / 2


@pytest.fixture
def folders(tmp_path):
    """A head and a map of the same column, with labels that end 7 mm into the cord."""
    codes = np.zeros((60, 60, 60), np.int16)
    codes[25:35, 25:35, 30:50] = 16
    codes[25:35, 25:35, 2:30] = 512
    shares = np.zeros((60, 60, 60, 8), np.uint8)
    for region, low, high in ((6, 23, 30), (2, 30, 38), (1, 38, 44), (0, 44, 50)):
        shares[25:35, 25:35, low:high, region] = 15
    shares[10:50, 10:50, :23, 7] = 1
    image = np.where(codes > 0, 100, 10).astype(np.float32)
    for name, data in (
        ("synthseg_labels/training_seg_02.nii.gz", codes),
        ("ds011/sub-01/anat/sub-01_T1w.nii.gz", image),
        ("labels/synthseg_02_probseg.nii.gz", shares),
        ("labels/ds011_sub-01_probseg.nii.gz", shares),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / name)
    return tmp_path


def test_heads_and_maps_with_labels_are_prepared_and_others_passed_over(folders):
    cases = {case.name: case for case in prepare(folders, folders / "labels")}
    assert set(cases) == {"synthseg_02", "ds011_sub-01"}
    assert cases["ds011_sub-01"].real
    assert set(cases["ds011_sub-01"].arrays) == {
        f"{look}/{array}" for look in ("near", "far") for array in ("image", "labels")
    }


def test_a_head_whose_labels_fail_a_check_is_left_out(folders, capsys):
    (folders / "labels" / "labels.tsv").write_text("head\tfaults\nsynthseg_02\tasymmetry\n")
    assert [case.name for case in prepare(folders, folders / "labels")] == ["ds011_sub-01"]
    assert "synthseg_02: left out" in capsys.readouterr().out


def test_a_map_shows_brainstem_wherever_its_labels_do(folders):
    path = folders / "synthseg_labels" / "training_seg_02.nii.gz"
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[25:35, 25:35, 24:50] = MEDULLA  # 6 mm farther down than the map's own brainstem
    anatomy, _, cord = read_map(path, labels)
    assert set(np.unique(anatomy[labels == MEDULLA])) == {CODES.index(16)}
    assert cord[30, 30, 2:24].all()


def test_below_the_labels_a_map_still_tells_its_cord_and_a_head_only_what_it_is_not(folders):
    depth = {
        case.name: [(case.arrays["near/labels"] == v).sum() / 100 for v in (3, CORD, NOT_STEM)]
        for case in prepare(folders, folders / "labels")
    }
    assert depth["synthseg_02"][:2] == pytest.approx([8, 28], abs=1)
    assert depth["ds011_sub-01"][:2] == pytest.approx([8, 7], abs=1)
    assert depth["ds011_sub-01"][2] > 10
