"""What one training patch promises."""

import numpy as np
import pytest
import torch

from training.augment import (
    cut_neck,
    cut_off_brainstem,
    draw_frame,
    draw_pair,
    draw_patch,
    finish,
    to_classes,
)
from training.cases import CODES, IGNORE, NOT_STEM, Case
from training.faults import blur, draw_lesions, recolour, widen
from training.networks import LOOKS
from training.pose import deform, draw_pose, resize_region, sample, sampling_grid
from training.synthesis import BRAINSTEM, CSF, NEIGHBOURS, draw_classes, widen_fluid

CPU = torch.device("cpu")
SEGMENTER, LOCATOR = LOOKS["segmenter"], LOOKS["locator"]


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """A stripped head and a map: a ball of brain with a brainstem of three storeys in it."""
    arrays: dict[str, np.ndarray] = {}
    for look, size, mm in (("near", 144, 1.0), ("far", 128, 2.0)):
        z, y, x = (np.indices((size,) * 3) - (size - 1) / 2) * mm
        ball = z**2 + y**2 + x**2 < 60**2
        stem = (abs(z) < 30) & (abs(y) < 12) & (abs(x) < 12)
        labels = np.where(stem, np.clip(np.round(2 - z / 20), 1, 3), 0).astype(np.uint8)
        arrays[f"{look}/labels"] = labels
        arrays[f"{look}/image"] = np.where(stem, 200, np.where(ball, 120, 0)).astype(np.uint8)
        inside = np.where(stem, BRAINSTEM, np.where(ball, CODES.index(2), 0))
        arrays[f"{look}/anatomy"] = inside.astype(np.uint8)
        arrays[f"{look}/brain"] = ball.astype(np.uint8)
    head = {k: v for k, v in arrays.items() if k.split("/")[1] in ("labels", "image")}
    drawn = {k: v for k, v in arrays.items() if not k.endswith("image")}
    return {"head": Case("ds002748_sub-01", True, head), "map": Case("synthseg_02", False, drawn)}


@pytest.mark.parametrize("look", [SEGMENTER, LOCATOR], ids=lambda look: look.name)
@pytest.mark.parametrize("kind", ["head", "map"])
def test_every_patch_is_finite_and_holds_only_known_classes(cases, look, kind):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        image, target = draw_patch(cases[kind], look, rng, CPU, t1_like=bool(seed % 2))
        assert image.shape == target.shape == (look.size,) * 3
        assert torch.isfinite(image).all()
        allowed = {*range(len(look.classes)), IGNORE, NOT_STEM}
        assert set(target.unique().tolist()) <= allowed


def test_the_locator_sees_noise_without_a_brainstem_now_and_then(cases):
    empty = 0
    for seed in range(80):
        image, target = draw_patch(cases["head"], LOCATOR, np.random.default_rng(seed), CPU)
        if not (target != 0).any():
            empty += 1
            assert image[image != 0].std() > 0.5
    assert 1 <= empty <= 12


def test_a_field_of_view_beside_the_brainstem_holds_none_of_it():
    target = torch.zeros(64, 64, 64, dtype=torch.long)
    target[26:33, 30:34, 30:34] = 1
    kept = [cut_off_brainstem(target, np.random.default_rng(seed)) for seed in range(8)]
    assert all(box is not None and not (target[tuple(box)] == 1).any() for box in kept)
    assert {box[0].start == 0 for box in kept} == {True, False}
    target[50:60, 30:34, 30:34] = 1
    assert cut_off_brainstem(target[30:], np.random.default_rng(0)) is None
    assert cut_off_brainstem(torch.zeros_like(target), np.random.default_rng(0)) is None


def test_the_same_seed_draws_the_same_patch(cases):
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(draw_patch(cases["map"], SEGMENTER, np.random.default_rng(3), CPU))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])


def test_the_plain_patch_is_the_middle_of_the_near_look(cases):
    _, target = draw_patch(cases["head"], SEGMENTER, None, CPU)
    middle = cases["head"].arrays["near/labels"][24:120, 24:120, 24:120]
    np.testing.assert_array_equal(target.numpy(), middle)


def test_a_patch_is_scored_in_the_box_of_its_voxels_and_zero_around_it():
    image = torch.zeros(20, 20, 20)
    image[2:8, 4:10, 6:18] = torch.rand(6, 6, 12) + 1
    target = torch.zeros(20, 20, 20, dtype=torch.long)
    target[2:8, 4:10, 6:18] = 1
    finished, moved, shift = finish(image, target)
    assert shift.tolist() == [-2, 3, 5]
    box = finished[moved == 1]
    assert box.mean().item() == pytest.approx(0, abs=1e-5)
    assert box.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert not finished[moved == 0].any()
    low, high = (torch.nonzero(moved).amin(0), torch.nonzero(moved).amax(0))
    assert ((low + high - 19).abs() <= 1).all()


def test_an_empty_patch_stays_empty():
    finished, target, _ = finish(torch.zeros(8, 8, 8), torch.ones(8, 8, 8, dtype=torch.long))
    assert not finished.any()
    assert not target.any()


def test_a_patch_of_a_single_voxel_is_finite():
    image = torch.zeros(8, 8, 8)
    image[1, 2, 3] = 5
    assert torch.isfinite(finish(image, torch.ones(8, 8, 8, dtype=torch.long))[0]).all()


def test_poses_turn_by_25_degrees_at_most_and_flip_left_and_right_only():
    flips = 0
    for seed in range(60):
        pose = draw_pose(np.random.default_rng(seed))
        left, size, right = np.linalg.svd(pose)
        assert 0.7 < size.min() < size.max() < 1.4
        turn = left @ right
        flips += np.linalg.det(turn) < 0
        if np.linalg.det(turn) < 0:
            turn = turn @ np.diag([-1, 1, 1])
        assert np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)) < 30
    assert 15 < flips < 45


def test_an_unmoved_grid_samples_every_voxel_in_place():
    grid = sampling_grid(SEGMENTER, 144, None, CPU)
    middle = (grid[0, 0, 0, 0] + 1) / 2 * 143
    torch.testing.assert_close(middle, torch.full((3,), 24.0), atol=1e-3, rtol=0)


def test_the_locator_learns_no_inside_of_the_skull_from_heads_without_one():
    labels = torch.tensor([0, 1, 2, 3, IGNORE, 4, IGNORE]).view(1, 1, 1, 1, 7)
    brain = torch.tensor([1, 1, 1, 1, 1, 0, 0]).view(1, 1, 1, 1, 7)
    alone = to_classes(labels, None, LOCATOR).flatten().tolist()
    assert alone == [NOT_STEM, 1, 1, 1, IGNORE, NOT_STEM, NOT_STEM]
    assert to_classes(labels, brain, LOCATOR).flatten().tolist() == [2, 1, 1, 1, IGNORE, 0, 0]


def test_blurring_keeps_the_sum():
    image = torch.zeros(1, 1, 15, 15, 15)
    image[0, 0, 7, 7, 7] = 1
    smooth = blur(image, (1.0, 0.0, 0.5))
    assert smooth.sum().item() == pytest.approx(1, abs=1e-5)
    assert smooth[0, 0, 7, 6, 7] == 0


def test_in_most_draws_the_border_at_the_peduncles_is_no_edge():
    tied = 0
    for seed in range(40):
        means, spreads = draw_classes(np.random.default_rng(seed), t1_like=False)
        assert (means > 0).all()
        assert (spreads > 0).all()
        tied += bool((abs(means[list(NEIGHBOURS)] - means[BRAINSTEM]) < 20).all())
    assert 22 <= tied <= 38


def test_regions_shrink_by_half_at_most_or_grow_and_no_voxel_is_folded_over(cases):
    labels = cases["head"].arrays["near/labels"]
    grid = sampling_grid(SEGMENTER, 144, None, CPU)
    before = np.bincount(sample(labels, grid, "nearest").int().flatten(), minlength=4)[1:]
    largest = []
    for seed in range(12):
        moved = resize_region(grid, labels, np.random.default_rng(seed))
        after = np.bincount(sample(labels, moved, "nearest").int().flatten(), minlength=4)[1:]
        changes = (after - before) / before
        largest.append(changes[np.abs(changes).argmax()])
        for axis in range(3):
            assert (moved[0].diff(dim=2 - axis)[..., axis] > 0).all()
    assert min(largest) > -0.5
    assert min(largest) < -0.15
    assert max(largest) > 0.05


def test_a_deformed_patch_knows_where_it_lay_in_the_one_before(cases):
    labels = cases["head"].arrays["near/labels"]
    grid = sampling_grid(SEGMENTER, 144, np.random.default_rng(4), CPU)
    first = sample(labels, grid, "nearest").long()
    moved, places = deform(grid, first, np.random.default_rng(2))
    second = sample(labels, moved, "nearest").long()
    carried = torch.nn.functional.grid_sample(
        first.float(), places, mode="nearest", align_corners=True
    ).long()
    assert (second != first).sum() > 500
    assert (carried != second).sum() < 0.1 * (second > 0).sum()


@pytest.mark.parametrize("kind", ["head", "map"])
def test_both_patches_of_a_pair_show_one_anatomy(cases, kind):
    for seed in range(4):
        torch.manual_seed(seed)
        pair = draw_pair(cases[kind], SEGMENTER, np.random.default_rng(seed), CPU, 0.5)
        places = pair.places / 95 * 2 - 1
        first = torch.stack([pair.targets[:1], (pair.images[:1] != 0).long()], 1).float()
        target, seen = torch.nn.functional.grid_sample(
            first, places, mode="nearest", align_corners=True
        )[0].long()
        both = (seen > 0) & (pair.images[1] != 0)
        stem = both & ((target > 0) | (pair.targets[1] > 0))
        assert (target[stem] == pair.targets[1][stem]).float().mean() > 0.85


def test_a_cut_neck_leaves_the_medulla_in_view():
    target = torch.zeros(1, 1, 60, 60, 60, dtype=torch.long)
    target[..., 30:45, 15:25, 15:25] = 3
    present = torch.ones_like(target, dtype=torch.bool)
    kept = [cut_neck(present, target, np.random.default_rng(seed)) for seed in range(8)]
    assert all(not one[0, 0, :9, 20, 20].any() for one in kept)
    assert all(one[0, 0, 33:, 15:25, 15:25].all() for one in kept)


def test_another_contrast_keeps_air_dark_and_changes_the_rest(cases):
    image = torch.full((1, 1, 40, 40, 40), 0.2)
    target = torch.zeros(image.shape, dtype=torch.long)
    target[..., 8:32, 8:32, 8:32] = 2
    image[target == 2] = 0.8
    image[..., 12:16] = 0.2
    image[..., :4] = 0
    for seed in range(6):
        found = recolour(image, target, np.random.default_rng(seed))
        assert found[..., :4].max() < 0.04
        assert len(found.unique()) == 3
        assert not torch.allclose(found, image)


def test_pooling_axis_by_axis_is_pooling_of_the_cube():
    image = torch.rand(1, 1, 12, 13, 14)
    torch.testing.assert_close(
        widen(image, 2), torch.nn.functional.max_pool3d(image, 5, stride=1, padding=2)
    )


def test_a_field_of_view_turns_with_the_head():
    grid = sampling_grid(LOCATOR, 128, None, CPU)
    kept = [draw_frame(grid, np.random.default_rng(seed)) for seed in range(6)]
    assert all(frame[0, 0, 16:48, 16:48, 16:48].all() for frame in kept)
    assert any(not frame.all() for frame in kept)
    turn = torch.tensor([[0.9, -0.4, 0.0], [0.4, 0.9, 0.0], [0.0, 0.0, 1.0]])
    turned = draw_frame(grid @ turn.T, np.random.default_rng(1))[0, 0]
    assert not turned[:, 0, 0].any()


def test_lesions_change_the_inside_of_the_brainstem():
    image, target = torch.ones(1, 1, 30, 30, 30), torch.zeros(1, 1, 30, 30, 30, dtype=torch.long)
    target[..., 14:16, 14:16, 14:16] = 2
    changed = (draw_lesions(image, target, np.random.default_rng(1)) - 1).abs()
    assert changed[target == 2].max() > 0.02
    assert changed[..., 0].max() < 1e-3
    nothing = torch.zeros_like(target)
    assert torch.equal(draw_lesions(image, nothing, np.random.default_rng(1)), image)


def test_atrophy_puts_fluid_in_place_of_the_rim_of_the_brainstem():
    anatomy = torch.full((1, 1, 30, 30, 30), CSF)
    anatomy[..., 10:20, 10:20, 10:20] = BRAINSTEM
    target = torch.where(anatomy == BRAINSTEM, 2, 0)
    target[..., 10:12, :, :] = IGNORE
    shrunk, labels = widen_fluid(anatomy, target, np.random.default_rng(0))
    left = int((shrunk == BRAINSTEM).sum())
    assert 200 < left < 1000
    assert (shrunk[labels == 2] == BRAINSTEM).all()
    assert (labels[target == IGNORE] == IGNORE).all()
