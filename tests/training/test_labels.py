"""What the labels of the open model promise; phantoms stand in for heads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from training import labels as labels_module
from training.atlas import Atlas, map_brainstem
from training.carry import Plane, SoftLabels, carry_labels, harden
from training.cases import read_split
from training.checks import check_labels
from training.heads import (
    BOX_AFFINE,
    BOX_SHAPE,
    Head,
    draw_in_box,
    find_heads,
    image_path,
    label_grid,
    read_image,
    whole_head_affine,
)
from training.labels import Registered, label_head, read_labels, split_midbrain, write_table
from training.registration import (
    Setting,
    affine_field,
    draw,
    invert,
    register,
    voxel_grid,
)

QUICK = Setting(radius=2, smoothness=2.0, levels=((2, 30), (1, 20)))


def smooth_noise(shape, seed, sigma):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (noise / noise.std()).astype(np.float32)


@pytest.fixture(scope="module")
def pair():
    """An image, and what a known displacement makes of it."""
    shape = (32, 34, 36)
    moving = 0.5 + 0.2 * smooth_noise(shape, 1, 2)
    truth = np.stack([1.2 * smooth_noise(shape, seed, 8) for seed in (2, 3, 4)])
    fixed = draw(moving[None], voxel_grid(shape) + truth)[0]
    return fixed, moving, truth


@pytest.fixture(scope="module")
def atlas():
    """A brainstem of three boxes along z, a cord below, peduncles beside the pons."""
    x, y, z = np.moveaxis(
        apply_affine(BOX_AFFINE, np.moveaxis(np.indices(BOX_SHAPE), 0, -1)), -1, 0
    )
    column = (abs(x) <= 9) & (abs(y + 30) <= 8) & (z <= -6)
    floors = [z > -22, (z <= -22) & (z > -46), z <= -46]
    peduncles = np.zeros((3, *BOX_SHAPE), np.float32)
    peduncles[1] = (abs(x) > 9) & (abs(x) < 16) & (abs(y + 30) <= 6) & (abs(z + 34) < 6)
    steps = np.arange(24, 8, -1.0)
    axis = np.column_stack([np.full(16, 32.0), np.full(16, 36.0), steps])
    return Atlas(
        t1=np.where(column, 1.0, 0.2).astype(np.float32),
        brain=column.astype(np.float32),
        parts=np.stack(floors).astype(np.float32),
        midbrain=(column & floors[0]).astype(np.float32),
        tectum=(y < -33).astype(np.float32),
        whole=(column & (z > -77)).astype(np.float32),
        peduncles=peduncles,
        axis=axis,
        cut=np.array([32.0, 36.0, 15.0]),
    )


STILL = np.zeros((3, *BOX_SHAPE), np.float32)
SHIFTED = np.linalg.inv(np.array([[1, 0, 0, 5.0], [0, 1, 0, -3], [0, 0, 1, 7], [0, 0, 0, 1]]))
GRID_SHAPE = (90, 90, 120)
GRID_AFFINE = np.array([[-1, 0, 0, 45.0], [0, 1, 0, -80], [0, 0, 1, -90], [0, 0, 0, 1]])


def carried(atlas, codes=None, fields=(STILL, STILL)):
    """Labels of a head that lies 5, -3, 7 mm from the template, on a grid that runs leftwards."""
    return carry_labels(atlas, list(fields), SHIFTED, GRID_SHAPE, GRID_AFFINE, codes)


class TestRegistration:
    def test_finds_a_known_displacement(self, pair):
        fixed, moving, truth = pair
        ones = np.ones_like(fixed)
        found = register(fixed, moving, ones, ones, QUICK, affine_field(fixed, moving, ones, ones))
        inner = (slice(None), *[slice(6, -6)] * 3)
        before = np.linalg.norm(truth[inner], axis=0).mean()
        after = np.linalg.norm((found - truth)[inner], axis=0).mean()
        assert after < 0.25 * before

    def test_mirrored_images_give_the_mirrored_field(self, pair):
        fixed, moving, _ = pair
        ones = np.ones_like(fixed)
        symmetric = (moving + moving[::-1]) / 2
        start = np.zeros((3, *fixed.shape), np.float32)
        quick = Setting(radius=2, smoothness=2.0, levels=((1, 5),))
        there = register(fixed, symmetric, ones, ones, quick, start)
        mirrored = register(fixed[::-1], symmetric, ones, ones, quick, start)[:, ::-1].copy()
        mirrored[0] *= -1
        assert np.abs(there - mirrored).max() < 1e-3

    def test_is_the_same_every_time(self, pair):
        fixed, moving, _ = pair
        ones = np.ones_like(fixed)
        start = np.zeros((3, *fixed.shape), np.float32)
        quick = Setting(radius=2, smoothness=2.0, levels=((1, 3),))
        first, second = (register(fixed, moving, ones, ones, quick, start) for _ in range(2))
        assert np.array_equal(first, second)

    def test_nothing_is_learnt_where_the_weight_is_zero(self, pair):
        fixed, moving, _ = pair
        start = np.zeros((3, *fixed.shape), np.float32)
        none = np.zeros_like(fixed)
        assert np.abs(register(fixed, moving, none, none, QUICK, start)).max() < 1e-6

    def test_a_field_and_its_inverse_lead_back(self, pair):
        _, _, truth = pair
        grid = voxel_grid(truth.shape[1:])
        there = truth + draw(invert(truth), grid + truth)
        assert np.abs(there[:, 8:-8, 8:-8, 8:-8]).max() < 0.05

    def test_beyond_the_edge_stands_the_value_of_the_edge(self):
        ramp = np.arange(5, dtype=np.float32)[None, :, None, None] * np.ones(
            (1, 5, 5, 5), np.float32
        )
        places = np.array([-3.0, 1.5, 9.0], np.float32)
        places = np.stack([places, np.full(3, 2), np.full(3, 2)]).reshape(3, 3, 1, 1)
        assert draw(ramp, places.astype(np.float32)).ravel() == pytest.approx([0, 1.5, 4])


class TestHeads:
    def test_lists_images_and_maps_by_source(self, tmp_path):
        for path in (
            "ds011/sub-02/anat/sub-02_T1w.nii.gz",
            "ds002748/sub-01/anat/sub-01_T1w.nii.gz",
            "synthseg_labels/training_seg_07.nii.gz",
        ):
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).touch()
        heads = find_heads(tmp_path)
        assert [h.name for h in heads] == ["ds002748_sub-01", "ds011_sub-02", "synthseg_07"]
        assert [h.real for h in heads] == [True, True, False]

    @pytest.mark.parametrize(
        ("path", "name", "t1w", "stripped"),
        [
            (
                "ms/sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
                "ms_sub-01_ses-1_FLAIR",
                False,
                False,
            ),
            ("ms/sub-07/anat/sub-07_ce-gad_T1w.nii.gz", "ms_sub-07_ce-gad", True, True),
            ("twins/ch2bet.nii.gz", "twins_ch2bet", True, True),
            ("formats/T2w.nii.gz", "formats_T2w", False, False),
        ],
    )
    def test_other_sources_name_contrast_and_visit(self, tmp_path, path, name, t1w, stripped):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
        (head,) = find_heads(tmp_path)
        assert (head.name, head.t1w, head.stripped) == (name, t1w, stripped)
        assert image_path(name, tmp_path) == head.path

    def test_thick_slices_are_labelled_on_voxels_of_a_millimetre(self):
        affine = np.diag([-0.9, 0.9, 3.0, 1.0])
        affine[:3, 3] = (50, -60, 7)
        shape, fine = label_grid((100, 100, 20), affine)
        assert shape == (90, 90, 58)
        assert fine[:3, :3].tolist() == np.diag([-1.0, 1.0, 1.0]).tolist()
        assert fine[:3, 3].tolist() == [50, -60, 7]
        assert label_grid((100, 100, 20), np.diag([1.0, 1.3, 1.0, 1.0]))[0] == (100, 100, 20)

    def test_a_map_becomes_an_image_of_its_class_means(self, tmp_path):
        np.save(tmp_path / "generation_labels.npy", [0, 16, 24])
        np.save(tmp_path / "generation_classes_contrast_specific.npy", [0, 2, 1])
        np.save(tmp_path / "prior_means_t1.npy", [[0.0, 40.0, 130.0]])
        codes = np.full((12, 12, 12), 24, np.int32)
        codes[:6] = 16
        path = tmp_path / "training_seg_02.nii.gz"
        nib.save(nib.Nifti1Image(codes, np.eye(4)), path)
        drawn = read_image(Head("synthseg_02", path)).get_fdata()
        assert drawn[0, 6, 6] == pytest.approx(130, abs=0.1)
        assert drawn[-1, 6, 6] == pytest.approx(40, abs=0.1)

    def test_the_box_is_drawn_from_any_orientation(self):
        data = smooth_noise((40, 40, 40), 5, 3)
        affine = np.diag([2.0, 2, 2, 1])
        affine[:3, 3] = -40
        turned = nib.Nifti1Image(data, affine).as_reoriented([[2, -1], [0, 1], [1, -1]])
        straight = draw_in_box(data, affine)
        assert np.abs(straight - draw_in_box(turned.get_fdata(), turned.affine)).max() < 1e-4

    def test_the_whole_head_affine_leads_from_the_head_to_the_template(self):
        pytest.importorskip("ants")
        blob = np.zeros((60, 70, 60), np.float32)
        blob[15:45, 12:58, 20:50] = 1
        blob[20:30, 20:40, 25:40] = 2
        blob[34:42, 42:52, 30:46] = 3
        blob = ndimage.gaussian_filter(blob, 1.0)
        affine = np.diag([3.0, 3, 3, 1])
        moved = affine.copy()
        moved[:3, 3] = (6, -9, 12)
        to_template = whole_head_affine(nib.Nifti1Image(blob, moved), nib.Nifti1Image(blob, affine))
        voxels = np.array([[15, 12, 20], [44, 57, 49], [30, 35, 35]])
        error = apply_affine(to_template @ moved, voxels) - apply_affine(affine, voxels)
        assert np.abs(error).max() < 3  # a voxel of the phantom, which moved by 6, -9 and 12 mm


class TestDefinition:
    def test_the_ventral_diencephalon_is_midbrain_only_where_the_atlas_says_so(self):
        codes = np.array([16, 28, 60, 15, 28, 15, 7])
        midbrain = np.array([0.0, 0.9, 0.6, 1.0, 0.2, 0.5, 1.0], np.float32)
        assert map_brainstem(codes, midbrain).tolist() == [True] * 4 + [False] * 3

    def test_half_of_a_voxel_makes_a_label(self):
        shares = np.array([[0.3, 0.2], [0.25, 0.2]], np.float32).reshape(2, 2, 1, 1)
        assert harden(shares).ravel().tolist() == [1, 0]

    def test_labels_lie_where_the_head_lies(self, atlas):
        labels = carried(atlas)
        mm = apply_affine(labels.affine, np.argwhere(labels.hard == 2)).mean(0)
        assert mm == pytest.approx([5, -33, -27], abs=0.6)

    def test_the_medulla_ends_at_the_plane_and_cord_follows(self, atlas):
        labels = carried(atlas)
        assert labels.plane.point == pytest.approx([5, -33, -62])
        assert labels.plane.normal == pytest.approx([0, 0, 1])
        bottom = apply_affine(labels.affine, np.argwhere(labels.hard == 3))[:, 2].min()
        top = apply_affine(labels.affine, np.argwhere(labels.hard == 7))[:, 2].max()
        assert top < bottom
        assert abs(bottom - -62) <= 1

    def test_the_tectum_is_a_part_of_the_midbrain(self, atlas):
        labels = carried(atlas)
        assert (labels.tectum <= labels.shares[0] + 1e-6).all()
        mm = apply_affine(labels.affine, np.argwhere(labels.tectum > 0.5))
        assert mm[:, 1].max() == pytest.approx(-36.5, abs=1)
        assert len(mm) == pytest.approx(19 * 5 * 16, rel=0.2)

    def test_shares_never_exceed_one(self, atlas):
        assert carried(atlas).shares.sum(0).max() <= 1 + 1e-5

    def test_no_loss_near_the_plane_and_the_outer_border(self, atlas):
        labels = carried(atlas)
        mm = apply_affine(labels.affine, np.moveaxis(np.indices(labels.hard.shape), 0, -1))
        near_plane = (abs(mm[..., 2] + 62) < 2.9) & np.isin(labels.hard, (3, 7))
        assert labels.ignore[near_plane].all()
        core = (abs(mm[..., 0] - 5) < 7) & (abs(mm[..., 1] + 33) < 6) & (abs(mm[..., 2] + 27) < 9)
        assert not labels.ignore[core].any()
        rim = (
            (abs(abs(mm[..., 0] - 5) - 9.5) < 0.4) & (abs(mm[..., 1] + 33) < 6) & (labels.hard == 2)
        )
        assert labels.ignore[rim].all()

    def test_voxels_of_little_agreement_are_left_out(self, atlas):
        aside = STILL.copy()
        aside[2] = 5
        above = STILL.copy()
        above[2] = -5
        labels = carried(atlas, fields=(STILL, aside, above))
        mm = apply_affine(labels.affine, np.moveaxis(np.indices(labels.hard.shape), 0, -1))
        inside = (abs(mm[..., 0] - 5) < 6) & (abs(mm[..., 1] + 33) < 5)
        seam = inside & (abs(mm[..., 2] + 15) < 0.6)
        assert labels.ignore[seam].mean() == 0  # two of three agree
        labels = carried(atlas, fields=(STILL, aside, above, aside, above))
        assert labels.ignore[inside & (abs(mm[..., 2] + 12) < 0.6)].all()

    def test_nothing_is_labelled_where_a_skull_strip_left_nothing(self, atlas):
        seen = np.ones(GRID_SHAPE, bool)
        seen[:, :, :40] = False  # up to z = -50
        labels = carry_labels(atlas, [STILL], SHIFTED, GRID_SHAPE, GRID_AFFINE, seen=seen)
        mm = apply_affine(labels.affine, np.argwhere(labels.hard > 0))
        assert mm[:, 2].min() == -50

    def test_a_map_keeps_its_own_outer_border(self, atlas):
        codes = self.map_codes(radius=7)
        labels = carried(atlas, codes)
        mm = apply_affine(labels.affine, np.argwhere(labels.hard == 2))
        assert np.abs(mm[:, 0] - 5).max() == pytest.approx(7, abs=0.6)

    def test_a_map_that_ends_early_is_completed(self, atlas):
        codes = self.map_codes(radius=9, end=-50)
        labels = carried(atlas, codes)
        mm = apply_affine(labels.affine, np.argwhere(labels.hard == 3))
        assert mm[:, 2].min() == pytest.approx(-62, abs=1)

    @staticmethod
    def map_codes(radius, end=-200):
        mm = apply_affine(GRID_AFFINE, np.moveaxis(np.indices(GRID_SHAPE), 0, -1))
        inside = (abs(mm[..., 0] - 5) <= radius) & (abs(mm[..., 1] + 33) <= 8)
        return np.where(inside & (mm[..., 2] <= 1) & (mm[..., 2] >= end), 16, 24)


class TestChecks:
    @pytest.fixture
    def labels(self, atlas):
        return carried(atlas)

    def image_of(self, labels, contrast=1.0):
        drawn = 50 + 100 * contrast * np.isin(labels.hard, (1, 2, 3, 7)).astype(np.float32)
        return nib.Nifti1Image(drawn, labels.affine)

    def test_a_good_head_has_no_fault(self, labels):
        checks = check_labels(labels, self.image_of(labels))
        assert checks["faults"] == []
        assert checks["agreement"] == 1
        assert checks["edge"] > 0.95
        assert checks["pons_ml"] == pytest.approx(19 * 17 * 24 / 1000, rel=0.06)

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (lambda s: s[[1, 0, 2, 3, 4, 5, 6]], "order"),
            (lambda s: s * np.array([0, 1, 1, 1, 1, 1, 1])[:, None, None, None], "midbrain_volume"),
            (lambda s: s[:, :, 17:], "cut_off"),
            (
                lambda s: s * (np.arange(s.shape[1]) > s.shape[1] // 2)[:, None, None],
                "asymmetry",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, labels, change, fault):
        shares = change(labels.shares).astype(np.float32)
        wrong = SoftLabels(
            shares=shares,
            tectum=np.zeros(shares.shape[1:], np.float32),
            ignore=np.zeros(shares.shape[1:], bool),
            affine=labels.affine,
            plane=labels.plane,
            runs=np.stack([harden(shares)] * 3),
        )
        if fault == "asymmetry":  # the middle is that of midbrain and pons; the medulla lost a side
            shares[:2] = labels.shares[:2]
        assert fault in check_labels(wrong, None)["faults"]

    def test_a_border_without_contrast_is_a_fault(self, labels):
        assert "edge" in check_labels(labels, self.image_of(labels, 0.02))["faults"]

    def test_registrations_that_disagree_are_a_fault(self, atlas):
        aside = STILL.copy()
        aside[0] = 4
        assert "agreement" in check_labels(carried(atlas, fields=(STILL, aside)), None)["faults"]


class TestFiles:
    def test_labels_read_back_as_they_were_made(self, atlas, tmp_path):
        path = tmp_path / "sub-01_T1w.nii.gz"
        expected = carried(atlas)
        whole = np.full(GRID_SHAPE, 40, np.float32)
        nib.save(nib.Nifti1Image(whole, GRID_AFFINE), path)
        out = tmp_path / "labels"
        label_head(Head("ds011_sub-01", path), Registered(SHIFTED, [STILL] * 2), atlas, out)
        shares, tectum, ignore, affine = read_labels(out / "ds011_sub-01_probseg.nii.gz")
        assert np.abs(shares - expected.shares).max() <= 1 / 30 + 1e-6
        assert np.abs(tectum - expected.tectum).max() <= 1 / 30 + 1e-6
        assert np.array_equal(ignore, expected.ignore)
        assert np.allclose(affine, expected.affine)

    def test_labels_that_are_kept_gain_a_tectum_and_lose_nothing(self, atlas, tmp_path):
        expected = carried(atlas)
        volumes = np.round(np.concatenate([expected.shares, expected.ignore[None] / 15]) * 15)
        path = tmp_path / "ds011_sub-01_probseg.nii.gz"
        nib.save(
            nib.Nifti1Image(np.moveaxis(volumes, 0, -1).astype(np.uint8), expected.affine), path
        )
        (tmp_path / "labels.tsv").write_text("head\tpons_ml\tfaults\nds011_sub-01\t7.5\tn/a\n")
        head = Head("ds011_sub-01", tmp_path / "none.nii.gz")
        out = tmp_path / "out"
        split_midbrain(head, Registered(SHIFTED, [STILL]), atlas, tmp_path, out)
        old, new = read_labels(path), read_labels(out / path.name)
        assert np.array_equal(old[0], new[0])
        assert np.array_equal(old[2], new[2])
        assert old[1].max() == 0
        assert np.abs(new[1] - expected.tectum).max() <= 1 / 15
        write_table(out)
        assert (out / "labels.tsv").read_text().splitlines()[1].startswith("ds011_sub-01\t7.5\t")

    def test_the_table_has_a_row_a_head(self, tmp_path):
        for name in ("ds011_sub-02", "ds011_sub-01"):
            row = {"head": name, "faults": ["order", "edge"] if name.endswith("2") else []}
            (tmp_path / f"{name}.json").write_text(json.dumps(row))
        write_table(tmp_path)
        lines = (tmp_path / "labels.tsv").read_text().splitlines()
        assert lines == ["head\tfaults", "ds011_sub-01\tn/a", "ds011_sub-02\torder edge"]


class TestCommitted:
    FOLDER = Path(labels_module.__file__).with_name("labels_v2")

    def test_regions_of_version_1_are_kept(self):
        name = "ds011_sub-06_probseg.nii.gz"
        old, new = (
            read_labels(self.FOLDER.with_name(v) / name) for v in ("labels_v1", "labels_v2")
        )
        assert np.array_equal(old[0], new[0])
        assert old[1].max() == 0 < new[1].max()

    def test_every_head_of_the_split_has_labels(self):
        with (self.FOLDER / "labels.tsv").open(newline="") as file:
            rows = {row["head"]: row for row in csv.DictReader(file, delimiter="\t")}
        for part, names in read_split().items():
            for name in names:
                assert (self.FOLDER / f"{name}_probseg.nii.gz").is_file(), (part, name)
                assert rows[name]["pons_ml"] != "n/a"

    def test_volumes_in_the_table_are_those_of_the_files(self):
        shares, _, ignore, affine = read_labels(self.FOLDER / "ds011_sub-06_probseg.nii.gz")
        assert shares.shape[1:] == ignore.shape
        ml = (harden(shares) == 2).sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
        assert ml == pytest.approx(11.614, rel=0.02)  # shares are rounded to fifteenths


def test_height_is_signed_and_runs_along_the_axis():
    plane = Plane(point=np.array([0, 0, -60.0]), normal=np.array([0, 0.6, 0.8]))
    assert plane.height(np.array([[0, 0, -50.0], [0, 6, -52.0], [3, 0, -60.0]])) == pytest.approx(
        [8, 10, 0]
    )
    assert plane.from_axis(np.array([[0, 6, -52.0], [3, 0, -60.0]])) == pytest.approx([0, 3])
