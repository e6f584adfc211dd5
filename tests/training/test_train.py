"""What training and export promise."""

import csv
import dataclasses
import json
import shutil
import signal
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import bids_app
from bids_app.cli.options import guarded
from bids_app.errors import ModelError, UsageError
from bids_app.models.manifest import read_manifest, verify
from training import export as export_module
from training import train as train_module
from training.augment import Pair
from training.cases import IGNORE, MEDULLA, MIDBRAIN, NOT_STEM, PONS, SCP, TECTUM, Case, save_cases
from training.complete import complete_regions, complete_skull
from training.export import export_network, write_manifest
from training.head import fit_last_layer
from training.loss import cut_pair, disagreement, loss_of, rows_that_count
from training.networks import LOOKS, build_network
from training.patches import Drawing, choose_case, cut_box, drawn_ahead
from training.train import Plan, Run, computes_in_bfloat16, train, validate
from training.weights import add_parts, look_of, read_exported, read_run

CPU = torch.device("cpu")
CLASSES = len(LOOKS["segmenter"].classes)
SEGMENTER, LOCATOR = LOOKS["segmenter"], LOOKS["locator"]
SMALL = dataclasses.replace(SEGMENTER, size=24, features=(4, 8, 8))


def plan(steps: int) -> Plan:
    return Plan(steps=steps, minutes=None, batch=1, seed=1)


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    made = {}
    for name in ("ds011_sub-01", "ds011_sub-05"):
        labels = np.zeros((40, 40, 40), np.uint8)
        labels[10:30, 15:25, 15:25] = np.repeat([3, 2, 1, 1], 5)[:, None, None]
        image = (labels * 60 + rng.integers(1, 30, labels.shape)).astype(np.uint8)
        made[name] = Case(name, True, {"near/image": image, "near/labels": labels})
    return made


@pytest.fixture(scope="module")
def run(cases, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(SMALL, cases, folder, plan(3), CPU)
    return folder


def logits_for(target: torch.Tensor, classes: int) -> torch.Tensor:
    known = torch.where(target < classes, target, torch.zeros_like(target))
    return torch.nn.functional.one_hot(known, classes).movedim(-1, 1).float() * 20


def test_the_loss_of_a_right_answer_is_nearly_nothing():
    target = torch.zeros(1, 16, 8, 8, dtype=torch.long)
    for index in range(1, CLASSES):
        target[:, 2 * index - 2 : 2 * index - 1] = index
    assert loss_of(logits_for(target, CLASSES), target, SEGMENTER) < 0.01
    assert loss_of(logits_for((target + 1) % CLASSES, CLASSES), target, SEGMENTER) > 1


def test_what_is_set_aside_has_no_part_in_the_loss():
    target = torch.ones(1, 8, 8, 8, dtype=torch.long)
    logits = logits_for(target, CLASSES)
    target[:, :4] = IGNORE
    before = loss_of(logits, target, SEGMENTER)
    logits[:, :, :4] = torch.randn(1, CLASSES, 4, 8, 8) * 10
    torch.testing.assert_close(loss_of(logits, target, SEGMENTER), before)


def test_a_part_that_is_not_found_at_all_still_pulls():
    target = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    target[:, 4:6, 4:8, 4:8] = SCP
    pulls = []
    for rare in (0.0, 0.2):
        logits = logits_for(torch.zeros_like(target), CLASSES).requires_grad_()
        (pull,) = torch.autograd.grad(loss_of(logits, target, SEGMENTER, rare), logits)
        pulls.append(float(-pull[0, SCP][target[0] == SCP].sum()))
    assert pulls[1] == pytest.approx(pulls[0] + 0.2, rel=0.01)


def test_a_border_between_regions_that_is_surely_wrong_pulls_hard():
    target = torch.zeros(1, 32, 32, 32, dtype=torch.long)
    target[:, 8:16, 12:20, 12:20], target[:, 16:24, 12:20, 12:20] = PONS, MIDBRAIN
    moved = target.clone()
    moved[:, 16, 12:20, 12:20] = PONS
    logits = logits_for(moved, CLASSES).requires_grad_()
    (pull,) = torch.autograd.grad(loss_of(logits, target, SEGMENTER), logits)
    wrong = pull[0, PONS, 16, 12:20, 12:20]
    # A mean over the brainstem's 1,024 voxels, to which the sum of the Dice adds nothing here.
    torch.testing.assert_close(wrong, torch.full_like(wrong, 1 / 1024), rtol=0.1, atol=0)
    assert pull[0, :, 0, 0, 0].abs().max() < 1e-5


def test_a_locator_may_call_the_unknown_background_or_inside_but_not_brainstem():
    target = torch.full((1, 8, 8, 8), NOT_STEM)
    free = [
        loss_of(logits_for(torch.full_like(target, index), 3), target, LOCATOR).item()
        for index in range(3)
    ]
    assert free[0] == pytest.approx(free[2], abs=1e-3)
    assert free[1] > free[0] + 5


def test_below_the_labels_a_segmenter_may_say_background_or_cord_but_no_region():
    target = torch.full((1, 8, 8, 8), NOT_STEM)
    free = [
        loss_of(logits_for(torch.full_like(target, index), CLASSES), target, SEGMENTER).item()
        for index in range(CLASSES)
    ]
    assert [free[index] for index in (4, 6, 7, 8)] == pytest.approx([free[0]] * 4, abs=1e-3)
    assert min(free[index] for index in SEGMENTER.stem) > free[0] + 5


def test_two_answers_for_one_anatomy_are_held_against_each_other():
    target = torch.zeros(1, 12, 12, 12, dtype=torch.long)
    target[:, 3:9, 3:9, 3:9] = PONS
    right = logits_for(target, CLASSES)
    seen = torch.ones(2, 12, 12, 12, dtype=torch.bool)
    still = torch.nn.functional.affine_grid(
        torch.eye(3, 4)[None], [1, 1, 12, 12, 12], align_corners=True
    )
    same = disagreement(torch.cat([right, right]), still, seen, SEGMENTER)
    assert same < 1e-4
    smaller = target.clone()
    smaller[:, 8] = 0
    both = torch.cat([right, logits_for(smaller, CLASSES)])
    apart = disagreement(both, still, seen, SEGMENTER)
    assert apart > 0.05
    seen[1, 8] = False  # what one patch does not show is not compared
    assert disagreement(both, still, seen, SEGMENTER) < 1e-4
    moved = still.clone()
    moved[..., 2] += 2 * 2 / 11
    shifted = torch.cat([right, right.roll(-2, 2)])
    assert disagreement(shifted, moved, torch.ones_like(seen), SEGMENTER) < 0.01


def test_heads_of_a_small_dataset_are_seen_more_often_than_others():
    cases = [Case(f"ds002748_sub-{i:02d}", True, {}) for i in range(9)]
    cases += [Case("ds011_sub-01", True, {}), Case("synthseg_02", False, {})]
    rng = np.random.default_rng(0)
    names = [choose_case(cases, SEGMENTER, rng).name.split("_")[0] for _ in range(400)]
    assert 35 < names.count("ds011") < 65  # a quarter of the heads
    assert 170 < names.count("synthseg") < 230


def test_a_box_of_five_sixths_is_cut_from_the_same_place_of_both_patches():
    image = torch.rand(2, 24, 24, 24)
    voxels = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"), -1).flip(-1)
    pair = cut_box(Pair(image, image, voxels[None]), np.random.default_rng(1))
    assert pair.images.shape == (2, 16, 16, 16)
    assert torch.equal(pair.images, pair.targets)
    assert torch.equal(pair.places[0], voxels[:16, :16, :16])


@pytest.mark.parametrize("workers", [0, 2])
def test_whoever_draws_the_patches_they_are_the_same(cases, workers):
    drawing = Drawing(list(cases.values()), SMALL, seed=3, batch=2, small=0.0)
    with drawn_ahead(drawing, workers) as batch_of:
        drawn = [batch_of(step, 0.5) for step in (4, 5, 6)]
    for step, batch in zip((4, 5, 6), drawn, strict=True):
        expected = drawing.draw(step, 0.5)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.shifts, expected.shifts)


def test_the_last_layer_is_fitted_to_classes_that_are_new(cases):
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    drawing = Drawing(list(cases.values()), SMALL, seed=3, batch=2, small=0.0)
    batches = [drawing.draw(step, 0.0).to(CPU) for step in range(2)]
    patches = [pair for b in batches for pair in zip(b.images, b.targets, strict=True)]
    others = {k: v.clone() for k, v in network.state_dict().items() if "seg_layers.1" not in k}

    def entropy() -> float:
        with torch.no_grad():
            logits = network(torch.stack([image for image, _ in patches])[:, None])
        targets = torch.stack([target for _, target in patches])
        return float(torch.nn.functional.cross_entropy(logits, targets.clamp(max=8)))

    before = entropy()
    fit_last_layer(network, patches)
    assert entropy() < 0.6 * before
    after = network.state_dict()
    assert all(torch.equal(after[name], weights) for name, weights in others.items())


def test_a_network_of_version_1_starts_with_half_of_its_midbrain_in_each_part():
    old = dataclasses.replace(SMALL, classes=SMALL.classes[:5])
    network, grown = build_network(old).eval(), build_network(SMALL).eval()
    grown.load_state_dict(add_parts(network.state_dict()))
    image = torch.randn(1, 1, 24, 24, 24)
    with torch.no_grad():
        before, after = network(image).softmax(1)[0], grown(image).softmax(1)[0]
    midbrain = after[[MIDBRAIN, TECTUM]]
    torch.testing.assert_close(midbrain[0], midbrain[1])
    torch.testing.assert_close(midbrain.sum(0), before[MIDBRAIN], atol=0.05, rtol=0.1)
    torch.testing.assert_close(after[MEDULLA], before[MEDULLA], atol=0.05, rtol=0.1)


@pytest.mark.parametrize(
    ("steps", "minutes", "done"), [(10, None, 0.5), (None, 2.0, 0.25), (4, 2.0, 1.0)]
)
def test_progress_counts_steps_or_minutes(steps, minutes, done):
    assert Plan(steps, minutes, 1, 1).progress(5, 30.0) == done


def test_a_run_leaves_a_checkpoint_a_log_and_curves(run):
    state = torch.load(run / "checkpoint.pth", weights_only=True)
    assert state["step"] == 3
    with (run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["step"] == "3"
    assert rows[-1]["cases"].startswith("ds011_sub-05 ")
    assert (run / "curves.png").exists()


def test_a_run_goes_on_where_it_stopped(run, cases, tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes((run / "checkpoint.pth").read_bytes())
    train(SMALL, cases, tmp_path, plan(4), CPU)
    assert torch.load(tmp_path / "checkpoint.pth", weights_only=True)["step"] == 4


def test_a_run_starts_from_weights_that_are_given(run, cases, tmp_path):
    export_network(SMALL, [run], tmp_path / "model")
    given = tmp_path / "model" / "fold_0" / "checkpoint_final.pth"
    train(SMALL, cases, tmp_path / "next", plan(1), CPU, start=read_exported(given))
    first = torch.load(run / "checkpoint.pth", weights_only=True)["average"]
    second = torch.load(tmp_path / "next" / "checkpoint.pth", weights_only=True)["average"]
    for name in first:  # one warm-up step moves them by no more than this
        torch.testing.assert_close(first[name], second[name], atol=2e-3, rtol=2e-3)


def test_weights_bring_their_own_channels(run, cases, tmp_path, monkeypatch):
    export_network(SMALL, [run], tmp_path / "model")
    given = tmp_path / "model" / "fold_0" / "checkpoint_final.pth"
    save_cases(tmp_path / "data.npz", iter(cases.values()))
    words = ["segmenter", "--data", "data.npz", "--out", "next", "--steps", "1"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train", *words, "--start", str(given)])
    monkeypatch.setitem(LOOKS, "segmenter", dataclasses.replace(SEGMENTER, size=24))
    train_module.main()
    weights = read_run(tmp_path / "next")["average"]
    assert look_of(SEGMENTER, weights, tmp_path).features == SMALL.features


def test_a_run_of_other_channels_or_another_network_is_not_gone_on_with(run, cases, tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes((run / "checkpoint.pth").read_bytes())
    other = dataclasses.replace(SMALL, features=(4, 8, 16))
    with pytest.raises(UsageError, match="with other features"):
        train(other, cases, tmp_path, plan(4), CPU)
    with pytest.raises(UsageError, match="no locator"):
        train(LOCATOR, cases, tmp_path, plan(4), CPU)


def test_a_run_of_another_seed_start_or_data_is_not_gone_on_with(run, cases, tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes((run / "checkpoint.pth").read_bytes())
    with pytest.raises(UsageError, match="with other seed"):
        train(SMALL, cases, tmp_path, dataclasses.replace(plan(4), seed=2), CPU)
    export_network(SMALL, [run], tmp_path / "model")
    given = tmp_path / "model" / "fold_0" / "checkpoint_final.pth"
    with pytest.raises(UsageError, match="with other start"):
        train(SMALL, cases, tmp_path, plan(4), CPU, start=read_exported(given))
    case = cases["ds011_sub-01"]
    brighter = {**case.arrays, "near/image": case.arrays["near/image"] + 1}
    changed = cases | {case.name: dataclasses.replace(case, arrays=brighter)}
    with pytest.raises(UsageError, match="with other data"):
        train(SMALL, changed, tmp_path, plan(4), CPU)


@pytest.mark.parametrize(
    "options",
    ["--seed -3", "--minutes x", "--small 7", "--features 8", "--features 8,a", "--batch 0"],
)
def test_options_out_of_range_are_refused(options, monkeypatch):
    words = ["train", *["segmenter", "--data", "d", "--out", "o"], *options.split()]
    monkeypatch.setattr("sys.argv", [*words, *([] if "minutes" in options else ["--steps", "1"])])
    with pytest.raises(SystemExit, match="2"):
        train_module.main()


def test_a_signal_keeps_what_was_learned_and_the_log_tells_no_step_twice(
    cases, tmp_path, monkeypatch
):
    def one_step_and_a_signal(self, *given):
        loss = learn(self, *given)
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return loss

    learn = Run.learn
    (tmp_path / "log.csv").write_text("step,seconds,loss,dice,cases\n25,9,0.5,,\n")
    monkeypatch.setattr(Run, "learn", one_step_and_a_signal)
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, cases, tmp_path, plan(4), CPU)
    assert read_run(tmp_path)["step"] == 2
    train(SMALL, cases, tmp_path, plan(4), CPU)
    with (tmp_path / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4"]


def test_a_run_that_is_done_is_left_alone(run, cases, capsys):
    before = (run / "checkpoint.pth").read_bytes()
    train(SMALL, cases, run, plan(3), CPU)
    assert "trained to its end: 3 steps" in capsys.readouterr().out
    assert (run / "checkpoint.pth").read_bytes() == before


def test_nothing_is_exported_where_one_of_both_networks_is_amiss(run, tmp_path, monkeypatch):
    words = ["model", "--name", "mine", "--segmenter", str(run), "--locator", str(tmp_path)]
    for options in (words, [*words[:-1], str(run)]):  # no run; swapped
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["export", *options])
        assert guarded(export_module.main) in (2, 5)
        assert not (tmp_path / "model").exists()


def test_a_folder_without_a_run_is_not_exported(tmp_path):
    with pytest.raises(ModelError, match="holds no checkpoint"):
        export_network(SMALL, [tmp_path], tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("module", "words", "text"),
    [
        ("train", "segmenter --data none.npz --out out --steps 1", "none.npz cannot be read"),
        ("train", "segmenter --data notes.txt --out out --steps 1", "is no prepared file"),
        ("train", "segmenter --data data.npz --out out --steps 1 --without ds1", "dataset ds011"),
        ("train", "segmenter --data data.npz --out out --steps 1 --without ds011", "No head or"),
        ("train", "segmenter --data data.npz --out out --steps 1 --start notes.txt", "no weights"),
        ("train", "segmenter --data data.npz --out out --steps 1 --start none.pth", "No such file"),
        ("complete", "segmenter data.npz none.pth new.npz", "No such file"),
        ("data", ". . new.npz", "no labels to learn"),
        ("complete", "locator data.npz none.pth new.npz --outer", "is of a segmenter"),
        ("train", "segmenter --data data.npz --out notes.txt --steps 1", "cannot be made"),
        ("data", ". . none/new.npz", "no place for a file"),
        ("export", ". --name mine --locator . --segmenter .", "no model folder"),
        ("export", "out --name open1 --locator . --segmenter .", "confused with open"),
        ("export", "out --name mine --locator . --segmenter .", "holds no checkpoint.pth"),
        ("evaluate", "{model} . .", "no head of the validation part"),
        ("labels", "--data . --out out", "lacks allen"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    module, words, text, cases, tmp_path, monkeypatch, capsys
):
    save_cases(tmp_path / "data.npz", iter(cases.values()))
    (tmp_path / "notes.txt").write_text("notes")
    monkeypatch.chdir(tmp_path)
    shipped = Path(bids_app.__file__).parent / "models" / "open"
    monkeypatch.setattr("sys.argv", [module, *words.format(model=shipped).split()])
    assert guarded(import_module(f"training.{module}").main) in (2, 5)
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize("able", [True, False])
def test_mixed_precision_is_for_processors_that_have_it(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able}, raising=False)
    assert computes_in_bfloat16(CPU) is able
    assert computes_in_bfloat16(torch.device("cuda"))


def test_only_the_training_part_is_trained_on(cases, tmp_path):
    held_out = {"ds011_sub-05": cases["ds011_sub-05"]}
    with pytest.raises(UsageError, match="No head or map"):
        train(SMALL, held_out, tmp_path, plan(1), CPU)


def test_validation_scores_each_region_and_skips_those_without_labels(cases):
    scores = validate(build_network(SMALL), list(cases.values()), SMALL, CPU)
    assert list(scores) == list(cases)
    assert all(0 <= s <= 1 for s in scores["ds011_sub-01"][:3])
    assert np.isnan(scores["ds011_sub-01"][3])


def test_the_stock_predictor_loads_the_exported_model(run, tmp_path):
    predictor = pytest.importorskip("nnunetv2.inference.predict_from_raw_data").nnUNetPredictor
    export_network(SMALL, [run], tmp_path)
    stock = predictor(device=CPU, perform_everything_on_device=False, allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(tmp_path), None)
    assert stock.allowed_mirroring_axes == (2,)
    assert stock.configuration_manager.spacing == [1.0, 1.0, 1.0]
    state = torch.load(run / "checkpoint.pth", weights_only=True)["average"]
    ours = build_network(SMALL).eval()
    ours.load_state_dict({k: v.half().float() for k, v in state.items()})
    image = torch.randn(1, 1, 24, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(stock.network.eval()(image), ours(image))


def test_several_runs_become_folds_and_those_of_an_earlier_export_go(run, tmp_path):
    for runs in ([run, run, run], [run, run]):
        export_network(SMALL, runs, tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("fold_*"))] == ["fold_0", "fold_1"]


def test_several_runs_become_one_network_of_their_mean(run, cases, tmp_path):
    train(SMALL, cases, tmp_path / "other", plan(1), CPU)
    runs = [run, tmp_path / "other"]
    export_network(SMALL, runs, tmp_path / "model", mean=True)
    (path,) = (tmp_path / "model").glob("fold_*/checkpoint_final.pth")
    found = torch.load(path, weights_only=True)["network_weights"]
    a, b = (torch.load(r / "checkpoint.pth", weights_only=True)["average"] for r in runs)
    assert found.keys() == a.keys()
    for name, weights in found.items():
        torch.testing.assert_close(weights, ((a[name] + b[name]) / 2).half())


def test_an_exported_model_is_small_and_its_files_match_the_manifest(run, tmp_path):
    for name in LOOKS:
        export_network(SMALL, [run], tmp_path / name)
    (tmp_path / "MODEL_CARD.md").write_text("for readers")
    write_manifest(tmp_path, "open")
    model = read_manifest(tmp_path)
    verify(model)
    assert [r.name for r in model.regions] == ["midbrain", "pons", "medulla"]
    assert model.parts == ("tegmentum", "tectum", "scp", "mcp")
    again = tmp_path / "again"
    size = (tmp_path / "segmenter/fold_0/checkpoint_final.pth").stat().st_size
    for earlier in (tmp_path / "segmenter", tmp_path / "segmenter/fold_0/checkpoint_final.pth"):
        export_network(SMALL, [earlier], again)
        copy = again / "fold_0" / "checkpoint_final.pth"
        there, back = (
            torch.load(tmp_path / "segmenter/fold_0/checkpoint_final.pth", weights_only=True),
            torch.load(copy, weights_only=True),
        )
        torch.testing.assert_close(back["network_weights"], there["network_weights"])
        assert copy.stat().st_size < size + 5000
    shutil.rmtree(again)
    assert (model.name, model.label, model.engine) == ("open", "open2", "cascade")
    weights = tmp_path / "segmenter" / "fold_0" / "checkpoint_final.pth"
    parameters = sum(p.numel() for p in build_network(SMALL).parameters())
    assert weights.stat().st_size < 2 * parameters + 60_000
    assert torch.load(weights, weights_only=True)["init_args"] == {"configuration": "3d_fullres"}
    write_manifest(tmp_path, "my-own")
    own = read_manifest(tmp_path)
    assert (own.name, own.label, own.licence, own.reference) == (
        "my-own",
        "myown",
        "not stated",
        "",
    )
    assert json.loads((tmp_path / "segmenter" / "dataset.json").read_text())["labels"]["cord"] == 4


class UpperHalfIsPons(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.long)
        found[:, found.shape[1] // 2 :] = PONS
        return logits_for(found, CLASSES)


def test_what_is_set_aside_between_regions_is_filled_and_nothing_else_is_changed(cases):
    labels = np.full((40, 40, 40), IGNORE, np.uint8)
    labels[25, 20, 20] = MIDBRAIN
    given = Case("ds011_sub-01", True, {**cases["ds011_sub-01"].arrays, "near/labels": labels})

    filled = complete_regions(given, UpperHalfIsPons(), SMALL).arrays["near/labels"]

    expected = labels.copy()
    # The patch is 8 to 31 along each axis, of which a voxel at every border stays free.
    expected[21:31, 9:31, 9:31] = PONS
    expected[25, 20, 20] = MIDBRAIN
    assert (filled == expected).all()
    filled = complete_regions(given, UpperHalfIsPons(), SMALL, outer=True).arrays["near/labels"]
    assert (filled == IGNORE).sum() == 40**3 - 24**3
    assert (filled == 0).sum() == 24**3 // 2


def test_the_inside_of_the_skull_is_added_to_a_head(cases):
    look = dataclasses.replace(LOCATOR, size=16, features=(4, 8))
    case = cases["ds011_sub-01"]
    far = {key.replace("near", "far"): array for key, array in case.arrays.items()}
    given = Case(case.name, True, {**case.arrays, **far})

    found = complete_skull(given, build_network(look).eval(), look).arrays

    assert found.keys() == given.arrays.keys() | {"far/brain", "near/brain"}
    assert found["far/brain"].shape == far["far/labels"].shape
    assert set(np.unique(found["far/brain"])) <= {0, 1}


def test_far_from_the_labels_one_voxel_counts_for_eight():
    target = torch.zeros(2, 48, 48, 48, dtype=torch.long)
    target[0, 20:24, 20:24, 20:24] = PONS
    index, counts = rows_that_count(target)
    assert float(counts.sum()) == pytest.approx(target.numel(), rel=0.02)
    near = torch.zeros(target.shape, dtype=torch.bool)
    near[0, 12:32, 12:32, 12:32] = True
    assert set(near.flatten().nonzero()[:, 0].tolist()) <= set(index.tolist())
    assert counts[near.flatten()[index]].eq(1).all()


def test_a_pair_that_is_cut_to_what_is_labelled_differs_as_the_whole_does():
    target = torch.zeros(2, 32, 32, 32, dtype=torch.long)
    target[:, 12:18, 14:20, 13:19] = PONS
    moved = torch.nn.functional.affine_grid(
        torch.eye(3, 4)[None], [1, 1, 32, 32, 32], align_corners=True
    )
    moved[..., 2] += 2 * 1.5 / 31
    both = logits_for(target, CLASSES)
    seen = torch.ones(2, 32, 32, 32, dtype=torch.bool)
    whole = disagreement(both, moved, seen, SEGMENTER)
    cut = cut_pair(both, moved, seen, target)
    assert cut[0].shape[2:] == (22, 22, 22)
    assert whole > 0.1
    torch.testing.assert_close(disagreement(*cut, SEGMENTER), whole, rtol=1e-3, atol=1e-4)


def test_a_thin_part_is_told_from_what_is_around_it():
    target = torch.zeros(1, 32, 32, 32, dtype=torch.long)
    target[:, 8:12, 8:12, 8:12] = SCP
    logits = logits_for(target, CLASSES)
    logits[:, SCP] = 20  # all is called superior peduncle
    without, with_rare = (loss_of(logits, target, SEGMENTER, rare) for rare in (0.0, 0.3))
    assert with_rare > without + 0.1
