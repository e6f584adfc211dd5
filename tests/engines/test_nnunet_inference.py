"""The engine gives what nnunetv2's own predictor gives, without its float16 sums."""

import json
import subprocess
import sys
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from make_fixture_model import write_band_model, write_random_model

from bids_app.engines.nnunet.inference import NnUNet
from bids_app.engines.nnunet.plans import read_plans
from bids_app.engines.nnunet.votes import Votes, relative_spread
from bids_app.errors import ModelError, UsageError
from bids_app.workflow.interrupt import Interrupted

CPU = torch.device("cpu")
SMALL = {"patch_size": (16, 24, 16), "features": (4, 8)}
PIECE = ((20, 44), (50, 80), (40, 58))
THICK = ((30, 36), (50, 78), (40, 56))


@pytest.fixture(scope="module")
def head(whole_head):
    """A T1w head at 2 mm, (z, y, x)."""
    return np.asarray(nib.load(whole_head).dataobj, dtype=np.float32).T


@pytest.fixture
def folder(tmp_path):
    return write_random_model(tmp_path / "model", **SMALL)


def cut(image, box):
    return image[tuple(slice(*ends) for ends in box)]


def edit(folder, change, name="plans.json"):
    """Change one JSON file of a model."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def stock(folder, image, spacing, monkeypatch, *, mirror, half):
    """Logits on the network's grid and labels by nnunetv2, in float16 as it comes or in float32."""
    import nnunetv2.inference.predict_from_raw_data as module

    seen = []
    with monkeypatch.context() as patch:
        if not half:
            gaussian = partial(module.compute_gaussian, dtype=torch.float32)
            patch.setattr(module, "compute_gaussian", gaussian)
            patch.setattr(torch, "half", torch.float32)
        predictor = module.nnUNetPredictor(use_mirroring=mirror, device=CPU, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), None)
        sums = predictor.predict_logits_from_preprocessed_data
        patch.setattr(
            predictor,
            "predict_logits_from_preprocessed_data",
            lambda data: seen.append(sums(data)) or seen[0].clone(),
        )
        labels = predictor.predict_single_npy_array(image[None], {"spacing": spacing})
    return seen[0].float().numpy(), labels


@pytest.mark.parametrize(
    ("box", "spacing", "changes", "mirror"),
    [
        pytest.param(PIECE, (1, 1, 1), {}, True, id="several tiles"),
        pytest.param(PIECE, (1, 1, 1), {}, False, id="no mirroring"),
        pytest.param(((30, 42), (60, 75), (40, 53)), (1, 1, 1), {}, True, id="less than a tile"),
        pytest.param(((30, 42), (60, 73), (40, 50)), (2, 2, 2), {}, True, id="larger voxels"),
        pytest.param(THICK, (3.5, 1, 1), {}, True, id="thick slices"),
        pytest.param(
            THICK, (3.5, 1, 1.1), {"transpose_forward": [1, 2, 0]}, True, id="transposed axes"
        ),
        pytest.param(
            ((70, 98), (0, 30), (30, 50)),
            (1.1, 1, 1),
            {"use_mask_for_norm": [True]},
            False,
            id="normalised within non-zero",
        ),
    ],
)
def test_labels_are_those_of_the_stock_predictor(
    tmp_path, head, monkeypatch, box, spacing, changes, mirror
):
    image = cut(head, box)
    folder = write_random_model(tmp_path, **SMALL, changes=changes)
    engine = NnUNet(folder, device=CPU, mirror=mirror)
    logits = engine.infer(engine.prepare(image, spacing).data).mean
    labels = engine.predict(image, spacing).argmax(0)

    exact, exact_labels = stock(folder, image, spacing, monkeypatch, mirror=mirror, half=False)
    assert np.abs(logits - exact).max() < 1e-3
    assert np.array_equal(labels, exact_labels)

    rounded, rounded_labels = stock(folder, image, spacing, monkeypatch, mirror=mirror, half=True)
    differ = labels != rounded_labels
    print(f"{differ.sum()} of {differ.size} voxels differ from the stock predictor")
    assert differ.mean() < 0.01
    differ = logits.argmax(0) != rounded.argmax(0)
    best = np.sort(logits, axis=0)
    rounding = np.abs(rounded - exact).max(axis=0)
    assert np.all((best[-1] - best[-2] <= 2 * rounding + 1e-3)[differ])


def test_the_image_is_left_as_it_was(folder, head):
    image = cut(head, PIECE)
    before = image.copy()
    NnUNet(folder, device=CPU, mirror=False).predict(image, (1, 1, 1))
    assert np.array_equal(image, before)


def test_the_same_image_gives_the_same_bytes(folder, head):
    engine = NnUNet(folder, device=CPU, mirror=False)
    first, second = (engine.predict(cut(head, PIECE), (1, 1, 1)).tobytes() for _ in range(2))
    assert first == second


def test_a_run_that_is_to_end_can_leave_off_before_any_pass(folder, head):
    engine = NnUNet(folder, device=CPU, mirror=False)
    passes = []

    def leave_off():
        passes.append(1)
        if len(passes) == 3:
            raise Interrupted

    engine.before_each_pass(leave_off)
    with pytest.raises(Interrupted):
        engine.predict(cut(head, PIECE), (1, 1, 1))
    assert len(passes) == 3


@pytest.mark.parametrize("mirror", [False, True])
def test_progress_adds_up_to_the_passes(folder, head, mirror):
    engine = NnUNet(folder, device=CPU, mirror=mirror)
    passes, calls = [], []
    engine.before_each_pass(lambda: passes.append(1))
    engine.infer(
        engine.prepare(cut(head, PIECE), (1, 1, 1)).data, lambda n, of: calls.append((n, of))
    )
    assert calls == [(1, len(passes))] * len(passes)


def test_mirrorings_at_once_give_the_same_bytes(folder, head):
    threads = torch.get_num_threads()
    answers = []
    try:
        for number in (1, 2, 8):
            torch.set_num_threads(number)
            engine = NnUNet(folder, device=CPU)
            torch.set_num_threads(1)  # of what is beside the passes
            answers.append(engine.predict(cut(head, PIECE), (1, 1, 1)).tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(set(answers)) == 1


def test_background_is_certain_outside_the_nonzero_box(folder, head):
    image = np.pad(cut(head, PIECE), 3)
    found = NnUNet(folder, device=CPU, mirror=False).predict(image, (1.5, 1.5, 1.5))
    assert found.shape == (4, *image.shape)
    assert np.all(found[0, :3] == 1)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_an_empty_image_gives_an_answer(folder):
    found = NnUNet(folder, device=CPU, mirror=False).predict(np.zeros((9, 9, 9), "f4"), (1, 1, 1))
    assert np.isfinite(found).all()


def test_softmax_is_averaged_where_the_model_says_so(folder, head):
    image = cut(head, PIECE)
    logits, softmax = (
        NnUNet(folder, device=CPU, averaging=averaging) for averaging in ("logits", "softmax")
    )
    prepared = softmax.prepare(image, (1, 1, 1))
    mean = softmax.infer(prepared.data).mean
    assert mean.min() >= 0
    np.testing.assert_allclose(mean.sum(0), 1, atol=1e-5)
    assert not np.allclose(mean, logits.probabilities(logits.infer(prepared.data).mean), atol=0.01)


def test_folds_are_averaged(folder, head):
    image = cut(head, PIECE)
    one, other, both = (
        NnUNet(folder, device=CPU, folds=folds, mirror=False) for folds in (["0"], ["1"], None)
    )
    prepared = both.prepare(image, (1, 1, 1))
    mean = (one.infer(prepared.data).mean + other.infer(prepared.data).mean) / 2
    np.testing.assert_allclose(both.infer(prepared.data).mean, mean, atol=1e-4)


def test_networks_are_compared_with_each_other(folder, head):
    image = cut(head, PIECE)
    one, other, both = (
        NnUNet(folder, device=CPU, folds=folds, mirror=False) for folds in (["0"], ["1"], None)
    )
    prepared = both.prepare(image, (1, 1, 1))
    a, b = one.infer(prepared.data).mean.argmax(0), other.infer(prepared.data).mean.argmax(0)
    expected = [
        2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum())
        for k in range(1, len(both.labels))
    ]
    assert both.infer(prepared.data).agreement == pytest.approx(expected)
    assert one.infer(prepared.data).agreement is None


def test_single_passes_are_compared_and_counted(folder, head):
    image = cut(head, PIECE)
    mirrored, plain = (NnUNet(folder, device=CPU, mirror=mirror) for mirror in (True, False))
    prepared = mirrored.prepare(image, (1, 1, 1))
    found, alone = mirrored.infer(prepared.data), plain.infer(prepared.data)
    networks, classes = 2, len(mirrored.labels)
    assert found.sizes.shape == (networks * 8, classes - 1)
    assert all(0 <= dice < 1 for dice in found.mirror_dice)
    # The first pass of each network is the one that runs without mirroring.
    assert alone.sizes.shape == (networks, classes - 1)
    np.testing.assert_allclose(found.sizes[::8], alone.sizes, rtol=1e-4)
    assert alone.mirror_dice is None


def test_votes_count_what_passes_share():
    first, second = torch.zeros((2, 4, 4, 4), dtype=torch.uint8)
    first[:2], second[1:3], second[0, 0, 0] = 1, 1, 2
    votes = Votes(torch.ones(4, 4, 4))
    for _ in range(2):  # two tiles alike
        votes.add([first, second], 4)
    np.testing.assert_allclose(votes.sizes, [[64, 0, 0], [64, 2, 0]])
    np.testing.assert_allclose(votes.mirror_dice(), [[2 * 32 / 128, 0, np.nan]])


def test_the_spread_of_sizes_is_relative():
    spread = relative_spread(np.array([[90.0, 10, 0], [110, 30, 0]]))
    assert spread[:2] == pytest.approx((np.sqrt(200) / 100, np.sqrt(200) / 20))
    assert np.isnan(spread[2])
    assert relative_spread(np.array([[90.0, 10]])) is None


def test_weights_stored_as_float16_are_run_in_float32(folder, head):
    image = cut(head, PIECE)
    whole = NnUNet(folder, device=CPU, mirror=False).predict(image, (1, 1, 1))
    for path in folder.glob("fold_*/checkpoint_final.pth"):
        content = torch.load(path, weights_only=True)
        content["network_weights"] = {k: w.half() for k, w in content["network_weights"].items()}
        torch.save(content, path)
    half = NnUNet(folder, device=CPU, mirror=False).predict(image, (1, 1, 1))
    assert half.dtype == np.float32
    assert (half.argmax(0) == whole.argmax(0)).mean() > 0.95


def test_losses_of_the_training_in_a_checkpoint_are_no_hindrance(folder):
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["logging"] = {"losses": [np.float64(1), np.float32(2)], "device": torch.device("cuda")}
    torch.save(content, path)
    NnUNet(folder, device=CPU)


def test_plans_from_before_nnunetv2_2_3_are_understood(folder, head):
    image = cut(head, THICK)
    new = NnUNet(folder, device=CPU, mirror=False).predict(image, (1, 1, 1))

    def make_old(plans):
        settings = plans["configurations"]["3d_fullres"]
        del settings["architecture"]
        settings |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 4,
            "unet_max_num_features": 320,
            "n_conv_per_stage_encoder": [2, 2],
            "n_conv_per_stage_decoder": [2],
            "num_pool_per_axis": [1, 1, 1],
            "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
            "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        }

    edit(folder, make_old)
    with pytest.warns(UserWarning, match="old nnU-Net plans"):
        old = NnUNet(folder, device=CPU, mirror=False).predict(image, (1, 1, 1))
    assert np.array_equal(old, new)


def test_a_configuration_takes_over_what_it_inherits(folder):
    def move(plans):
        plans["configurations"]["base"] = plans["configurations"].pop("3d_fullres")
        plans["configurations"]["3d_fullres"] = {"inherits_from": "base", "spacing": [2, 2, 2]}

    edit(folder, move)
    assert NnUNet(folder, device=CPU).patch_mm == (32, 48, 32)


def test_sums_go_to_main_memory_where_the_gpu_is_full(folder, head, monkeypatch, caplog):
    engine = NnUNet(folder, device=CPU, mirror=False)
    prepared = engine.prepare(cut(head, PIECE), (1, 1, 1))
    expected = engine.infer(prepared.data).mean
    run, failed = engine._infer, []

    def fail_once(*arguments):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*arguments)

    monkeypatch.setattr(engine, "_infer", fail_once)
    assert np.array_equal(engine.infer(prepared.data).mean, expected)
    assert "main memory" in caplog.text


class Hostile:
    def __reduce__(self):
        return print, ("code was run",)


@pytest.mark.parametrize(
    "content",
    [{"network_weights": Hostile()}, {"weights": {}}, [1], {"network_weights": {}}],
    ids=["wants to run code", "other keys", "no mapping", "no weights"],
)
def test_a_checkpoint_that_is_none_is_refused(folder, content, capsys):
    if isinstance(content, dict):
        content["init_args"] = {"configuration": "3d_fullres"}
    torch.save(content, folder / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match="Install the model again") as caught:
        NnUNet(folder, device=CPU)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("cut_to", [0, 100, 5000])
def test_a_checkpoint_cut_short_is_refused(folder, cut_to):
    path = folder / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:cut_to])
    with pytest.raises(ModelError, match="cannot be loaded"):
        NnUNet(folder, device=CPU)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"labels": 3, "configurations": 1}'])
def test_damaged_plans_are_refused(folder, name, text):
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(ModelError, match="missing or damaged"):
        NnUNet(folder, device=CPU)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("dataset.json", {"labels": {"background": 0, "all": [1, 2]}}, "region labels"),
        ("dataset.json", {"labels": {"background": 0, "pons": 2}}, "not 0, 1, 2"),
        ("dataset.json", {"channel_names": {"0": "T1w", "1": "T2w"}}, "2 images per head"),
        ("plans.json", {"patch_size": [16, 16]}, "two-dimensional"),
        ("plans.json", {"previous_stage": "3d_lowres"}, "second stage"),
    ],
)
def test_models_of_other_kinds_are_refused(folder, name, change, reason):
    def update(content):
        target = content["configurations"]["3d_fullres"] if name == "plans.json" else content
        target |= change

    edit(folder, update, name)
    with pytest.raises(ModelError, match=reason):
        NnUNet(folder, device=CPU)


def architecture_of(plans):
    return plans["configurations"]["3d_fullres"]["architecture"]


# Each of these reaches code outside of nnU-Net by a path that begins like an allowed one.
REACHED = "torch.nn.functional.torch.os.getpid"


@pytest.mark.parametrize(
    "name",
    ["subprocess.Popen", REACHED, "torch.nn.modules.conv.torch.hub.load", "", ["torch.nn.Conv3d"]],
)
@pytest.mark.parametrize("key", ["conv_op", "norm_op", "dropout_op", "nonlin"])
def test_plans_name_no_layer_but_those_of_the_table(folder, key, name):
    edit(folder, lambda plans: architecture_of(plans)["arch_kwargs"].update({key: name}))
    with pytest.raises(ModelError, match="planners do not write"):
        NnUNet(folder, device=CPU)


@pytest.mark.parametrize(
    "name",
    [
        "subprocess.Popen",
        "dynamic_network_architectures.architectures.unet.torch.os.getpid",
        "dynamic_network_architectures.architectures.unet.np.load",
    ],
)
def test_plans_name_no_network_but_those_of_the_table(folder, name):
    edit(folder, lambda plans: architecture_of(plans).update(network_class_name=name))
    with pytest.raises(ModelError, match=r"the network .* planners do not write"):
        NnUNet(folder, device=CPU)


def test_plans_have_no_other_argument_imported(folder):
    def ask(plans):
        architecture_of(plans)["arch_kwargs"]["block"] = REACHED
        architecture_of(plans)["_kw_requires_import"].append("block")

    edit(folder, ask)
    with pytest.raises(ModelError, match="argument block"):
        NnUNet(folder, device=CPU)


def test_plans_list_no_other_argument_for_import(folder):
    edit(folder, lambda plans: architecture_of(plans)["_kw_requires_import"].append("strides"))
    with pytest.raises(ModelError, match="argument strides"):
        NnUNet(folder, device=CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [("norm_op_kwargs", {"device": 0}), ("nonlin_kwargs", {"__class__": 0})],
)
def test_plans_give_layers_no_other_argument(folder, key, value):
    edit(folder, lambda plans: architecture_of(plans)["arch_kwargs"].update({key: value}))
    with pytest.raises(ModelError, match="contain the argument"):
        NnUNet(folder, device=CPU)


def test_arguments_in_plans_are_numbers(folder):
    edit(folder, lambda plans: architecture_of(plans)["arch_kwargs"].update(strides=REACHED))
    with pytest.raises(ModelError, match="not made of numbers"):
        NnUNet(folder, device=CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resampling_fn_data", "recursive_find_python_class"),
        ("resampling_fn_seg", "torch"),
        ("resampling_fn_probabilities", "np.load"),
        ("normalization_schemes", ["ImageNormalization"]),
        ("normalization_schemes", ["__builtins__"]),
        ("resampling_fn_data_kwargs", {"device": "cuda"}),
        ("resampling_fn_data_kwargs", {"data": 1}),
    ],
)
def test_plans_name_no_function_but_those_of_the_tables(folder, key, value):
    edit(folder, lambda plans: plans["configurations"]["3d_fullres"].update({key: value}))
    with pytest.raises(ModelError, match="planners do not write"):
        NnUNet(folder, device=CPU)


@pytest.mark.parametrize("module", ["unet", "residual_unet"])
def test_residual_encoders_are_in_the_table_under_both_their_names(folder, module):
    def ask(plans):
        architecture = architecture_of(plans)
        name = f"dynamic_network_architectures.architectures.{module}.ResidualEncoderUNet"
        architecture["network_class_name"] = name
        arguments = architecture["arch_kwargs"]
        arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")

    edit(folder, ask)
    network = read_plans(folder, "3d_fullres").network()
    assert type(network).__name__ == "ResidualEncoderUNet"


def test_a_fold_that_is_not_there_is_named(folder):
    with pytest.raises(UsageError, match="--folds 4: the model only has folds 0, 1"):
        NnUNet(folder, device=CPU, folds=["4"])


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="no fold_"):
        NnUNet(tmp_path, device=CPU)


def test_a_band_model_sorts_voxels_by_intensity(tmp_path):
    bands = [("background", 0), ("pons", 2), ("medulla", 1)]
    folder = write_band_model(tmp_path, bands, patch_size=(8, 8, 8), spacing=(1, 1, 1))
    image = np.random.default_rng(0).choice([0, 1, 2], (12, 10, 8)).astype(np.float32)
    labels = NnUNet(folder, device=CPU).predict(image, (1, 1, 1)).argmax(0)
    assert np.array_equal(labels, np.array([0, 2, 1])[image.astype(int)])


def test_start_up_imports_no_trainer_or_image_reader():
    heavy = ("nnunetv2.training", "nnunetv2.inference.predict", "torchvision", "timm", "blosc2")
    heavy += ("SimpleITK", "torch._dynamo", "batchgenerators.dataloading", "matplotlib")
    code = f"""
import sys
import bids_app.engines.nnunet.cascade
print(*(m for m in sys.modules if m.startswith({heavy!r})))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
