"""A checkpoint of MD-GRU becomes a model that the app runs, or is refused by what differs."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from make_mdgru_model import SMALL, random_weights, with_slots, write_checkpoint

from bids_app.engines.mdgru.engine import WEIGHTS, MDGRUModel
from bids_app.engines.mdgru.inference import predict, whiten
from bids_app.engines.mdgru.layout import PUBLISHED
from bids_app.engines.mdgru.network import MDGRU
from bids_app.engines.mdgru.options import Inference
from bids_app.engines.mdgru.resampling import (
    box_in_millimetres,
    from_millimetres,
    is_coarse_or_fine,
    to_millimetres,
)
from bids_app.errors import ModelError
from bids_app.models.importers.mdgru.graph import Graph, check_graph
from bids_app.models.importers.mdgru.nodes import Node, OtherGraphError, read_nodes
from bids_app.models.install import import_model
from bids_app.models.manifest import manifest_text, read_manifest, verify
from bids_app.models.store import find

CPU = torch.device("cpu")
# Made by the original code; see the README there
TINY = Path(__file__).parents[3] / "test_data" / "mdgru_tiny"
SMALL_WINDOWS = {"window": [12, 12, 12], "padding": [2, 2, 2]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return write_checkpoint(folder, with_slots(random_weights(SMALL))).parent


@pytest.fixture(scope="module")
def model(checkpoint, tmp_path_factory):
    return import_model(checkpoint, "small", tmp_path_factory.mktemp("models"))


def test_a_checkpoint_becomes_a_verified_model(model, checkpoint):
    assert find(str(model.folder)).engine == "mdgru"
    assert [r.name for r in model.regions] == ["midbrain", "pons", "medulla"]
    assert [file.path for file in model.files] == [WEIGHTS]
    assert {file.path for file in model.sources} == {p.name for p in checkpoint.iterdir()}
    assert model.inference["window"] == [100, 100, 100]
    assert model.inference["padding"] == [20, 20, 20]


def test_any_file_of_a_checkpoint_names_it(model, checkpoint):
    files = list(checkpoint.iterdir())
    assert len(files) > 1
    for path in files:
        assert import_model(path, "small", model.folder.parent) == model


def test_a_shard_without_its_index_is_reported(checkpoint, tmp_path):
    (shard,) = checkpoint.glob("*.data-*")
    alone = Path(shutil.copy(shard, tmp_path))
    with pytest.raises(ModelError, match=r"model_1\.index is missing"):
        import_model(alone, "alone", tmp_path / "models")


def test_another_checkpoint_does_not_replace_a_model(model, tmp_path):
    other = random_weights(SMALL) | {"1/b": np.zeros(3, np.float32)}
    folder = write_checkpoint(tmp_path, with_slots(other)).parent
    with pytest.raises(ModelError, match="another model"):
        import_model(folder, "small", model.folder.parent)


def test_the_published_name_is_for_the_published_layout(checkpoint, tmp_path):
    with pytest.raises(ModelError, match=r"has the shape .* under its own name.* --models-dir "):
        import_model(checkpoint, "mars-mdgru", tmp_path)
    assert not list(tmp_path.iterdir())
    folder = write_checkpoint(tmp_path / "published", random_weights_of_published()).parent
    verify(import_model(folder, "mars-mdgru", tmp_path))


def random_weights_of_published():
    return {f"default/{name}": np.zeros(shape, np.float32) for name, shape in PUBLISHED.items()}


def test_the_manifest_says_how_it_is_run_and_is_part_of_the_digest(model, tmp_path):
    changed = manifest_text(model).replace("[100, 100, 100]", "[60, 60, 80]")
    (tmp_path / "model.toml").write_text(changed)
    read = read_manifest(tmp_path)
    assert read.inference["window"] == [60, 60, 80]
    assert read.sha256 != model.sha256


@pytest.mark.parametrize(
    "table",
    [
        {"windows": [100] * 3},
        {"window": [100, 100]},
        {"window": [100.0] * 3},
        {"window": 100},
        {"padding": [1, 20, 20]},
        {"padding": [50, 20, 20]},
        {"batch": 0},
        {"batch": True},
        {"convolution": "tiled", "precision": "bfloat16"},
        {"labels": "best"},
        {"convolution": "fft"},
        {"precision": "float16"},
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused(table):
    with pytest.raises(ValueError, match="inference"):
        Inference.read(table)


def test_a_manifest_that_cannot_be_followed_is_refused_when_it_is_read(model, tmp_path):
    text = manifest_text(model) + "\n"
    path = tmp_path / "model.toml"
    path.write_text(text.replace("[inference]\n", '[inference]\nconvolution = "fft"\n'))
    with pytest.raises(ModelError) as caught:
        read_manifest(tmp_path)
    why = "[inference] convolution is 'fft', not 'direct' or 'tiled'"
    assert str(caught.value) == f"{path}: not a valid manifest ({why})."


def test_weights_of_another_network_are_not_run(tmp_path):
    torch.save({"1/W": torch.zeros(2)}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match="1/W"):
        MDGRUModel(tmp_path, {}, device=CPU)


def test_the_graph_gives_the_window_size(tmp_path):
    tiny = import_model(TINY, "tiny", tmp_path)
    assert tiny.inference["window"] == [16, 18, 20]


UNKNOWN = b"\x12\x0b\x08" + b"\xff" * 9 + b"\x01"  # a size that is -1


@pytest.fixture(scope="module")
def nodes():
    return read_nodes(gzip.decompress((TINY / "brainstem_140000.meta.gz").read_bytes()))


CELL = "default/2/mdgru/dim3/backward/rnn/while/CGRUCell"


def altered(node, op=None, swap=None, replace=None):
    inputs = list(node.inputs)
    if swap:
        inputs[swap[0]], inputs[swap[1]] = inputs[swap[1]], inputs[swap[0]]
    for number, name in (replace or {}).items():
        inputs[number] = name
    return Node(op or node.op, tuple(inputs), node.attributes)


@pytest.mark.parametrize(
    ("name", "change", "option"),
    [
        ("default/1/Tanh", {"op": "Relu"}, "activation after layer 1"),
        ("default/2/truediv", {"op": "Identity"}, "mean"),
        ("default/2/AddN", {"op": "Mul"}, "how scans are combined"),
        (f"{CELL}/Tanh", {"op": "Relu"}, "activation of the candidate"),
        (f"{CELL}/Sigmoid", {"op": "Relu"}, "activation or order of the gates"),
        (f"{CELL}/Sigmoid_1", {"op": "Relu"}, "activation or order of the gates"),
        (f"{CELL}/Candidate/mul", {"replace": {1: f"{CELL}/Candidate/Reshape"}}, "reset gate"),
        (f"{CELL}/add_2", {"op": "Sub"}, "normalisation"),
        (f"{CELL}/mul", {"swap": (0, 1), "replace": {0: f"{CELL}/Sigmoid_1"}}, "residual"),
        (f"{CELL}/Gates/ConvLinear/mul", {"op": "Div"}, "DropConnect"),
        ("default/2/mdgru/dim3/backward/ReverseV2", {"op": "Identity"}, "direction of a scan"),
        ("default/Placeholder_2", {"op": "Mul"}, "input of the first layer"),
    ],
)
def test_a_graph_that_differs_is_refused_by_its_option(nodes, name, change, option):
    other = dict(nodes) | {name: altered(nodes[name], **change)}
    with pytest.raises(OtherGraphError, match=option):
        Graph(other).check()


def test_a_graph_without_the_loop_of_a_scan_is_refused(nodes):
    merges = {name: altered(node, "Enter") for name, node in nodes.items() if node.op == "Merge"}
    with pytest.raises(OtherGraphError, match="loop of the scan"):
        Graph(dict(nodes) | merges).check()


def test_a_graph_that_runs_in_circles_is_refused(nodes):
    name = f"{CELL}/add_2"
    circle = altered(nodes[name], "AddV2", replace={0: name, 1: name})
    with pytest.raises(OtherGraphError, match="does not end"):
        Graph(dict(nodes) | {name: circle}).check()


def test_windows_of_no_fixed_size_are_refused(nodes):
    sizes = 4 * UNKNOWN + b"\x12\x02\x08\x02"
    node = Node("Placeholder", (), {"shape": b":" + bytes([len(sizes)]) + sizes})
    with pytest.raises(OtherGraphError, match="size of the windows"):
        Graph(dict(nodes) | {"default/Placeholder_2": node}).check()


def test_a_damaged_graph_is_refused(tmp_path):
    data = gzip.decompress((TINY / "brainstem_140000.meta.gz").read_bytes())
    for number, damage in enumerate((data[:-100_000], data[5:], b"", b"\xff" * 100)):
        path = tmp_path / f"{number}.meta"
        path.write_bytes(damage)
        with pytest.raises(ModelError, match=path.name):
            check_graph(path)


def test_images_near_one_millimetre_are_left_alone():
    assert not is_coarse_or_fine((0.8, 1, 1.2))
    assert is_coarse_or_fine((1, 1, 1.21))
    assert is_coarse_or_fine((0.79, 1, 1))


def blob(shape, spacing, middle):
    """A smooth bump about a point in mm from the image's centre."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    squares = [(axis - at) ** 2 for axis, at in zip(axes, middle, strict=True)]
    distance = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    return np.exp(-distance / 50).astype(np.float32)


def test_a_bump_keeps_its_place_there_and_back():
    shape, spacing, middle = (21, 30, 16), (2.0, 1.3, 2.5), (3, -4, 2)
    image = blob(shape, spacing, middle)
    fine = to_millimetres(image, spacing)
    assert fine.shape == (42, 39, 40)
    assert np.abs(fine - blob(fine.shape, (1, 1, 1), middle)).max() < 0.01
    everything = tuple(slice(0, n) for n in fine.shape)
    box = (slice(4, 15), slice(8, 20), slice(3, 13))
    back = from_millimetres(fine[None], everything, fine.shape, box, shape, spacing)[0]
    assert np.abs(back - image[box]).max() < 0.01
    part = box_in_millimetres(box, shape, spacing, fine.shape)
    again = from_millimetres(fine[None][:, *part], part, fine.shape, box, shape, spacing)[0]
    assert np.abs(again - back).max() < 1e-4


def test_the_model_runs_in_millimetres_and_answers_on_the_grid_of_the_image(model):
    image = blob((9, 10, 8), (2, 1.5, 1.5), (0, 0, 0)) * 100
    engine = MDGRUModel(model.folder, SMALL_WINDOWS, device=CPU)
    found = engine.predict(image, (2, 1.5, 1.5))
    assert found.shape == (4, 9, 10, 8)
    assert np.allclose(found.sum(0), 1, atol=0.02)
    box = (slice(2, 5), slice(0, 10), slice(3, 8))
    assert np.abs(engine.predict(image, (2, 1.5, 1.5), box=box) - found[:, *box]).max() < 1e-3


def test_without_reslicing_the_model_gives_what_its_network_gives(model):
    image = blob((12, 10, 9), (1, 1, 1), (0, 0, 0))
    network = MDGRU(torch.load(model.folder / WEIGHTS, weights_only=True), device=CPU)
    expected = predict(network, whiten(image, (1, 1, 1)), (12,) * 3, (2,) * 3, device=CPU)
    options = SMALL_WINDOWS | {"convolution": "direct"}
    found = MDGRUModel(model.folder, options, device=CPU).predict(image, (1, 1, 1))
    assert np.array_equal(found, expected)


def test_a_copy_of_the_model_folder_runs_from_anywhere(model, tmp_path):
    copied = Path(shutil.copytree(model.folder, tmp_path / "elsewhere"))
    verify(find(str(copied)))
