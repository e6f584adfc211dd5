"""Models of nnU-Net v1 come in whole and safely, or not at all."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import shutil
import tarfile
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from make_v1_model import write_v1_model

from bids_app.engines.nnunet.inference import NnUNet
from bids_app.errors import ModelError, OutputError
from bids_app.models.importers.nnunet_v1 import unpack
from bids_app.models.importers.nnunet_v1.importer import WEIGHTS
from bids_app.models.importers.nnunet_v1.unpickle import read_pickle
from bids_app.models.install import import_model
from bids_app.models.manifest import read_manifest, verify


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_v1_model(tmp_path_factory.mktemp("original") / "v1", folds=2)


@pytest.fixture
def source(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "source"))


@pytest.fixture
def target(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "v1small"


def pack(source, archive, inside="a/3d_fullres/Task600_Brainstem/x"):
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(source, inside)
    return archive


def import_(source, target):
    return import_model(source, target.name, target.parent)


def refused(source, target, reason=None):
    """The import fails with one line, and leaves nothing behind."""
    with pytest.raises(ModelError, match=reason) as caught:
        import_(source, target)
    assert "\n" not in str(caught.value)
    assert not list(target.parent.iterdir())


def edit_pickle(path, change):
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content))


def test_a_folder_becomes_a_verified_model(source, target):
    model = import_(source, target)
    verify(read_manifest(target))
    assert (model.mode, model.averaging, model.engine) == ("v1", "softmax", "nnunet")
    assert [r.name for r in model.regions] == ["midbrain", "pons", "medulla"]
    assert sorted(file.path for file in model.files) == [
        "dataset.json",
        "fold_0/checkpoint_final.pth",
        "fold_1/checkpoint_final.pth",
        "plans.json",
        "postprocessing.json",
    ]
    NnUNet(target, device=torch.device("cpu"), averaging="softmax", mode="v1")


def test_an_archive_gives_the_same_model_wherever_it_holds_it(source, target, tmp_path):
    model = import_(source, target)
    for i, inside in enumerate(["", "deep/er/down"]):
        archive = pack(source, tmp_path / f"{i}.tar.gz", inside or "plain")
        packed = import_(archive, target.with_name(f"other{i}"))
        assert packed.sha256 == model.sha256


def test_importing_again_changes_nothing(source, target):
    import_(source, target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    import_(source, target)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    assert list(target.parent.iterdir()) == [target]


def test_another_model_of_that_name_stays(source, target, tmp_path):
    before = import_(source, target).sha256
    other = write_v1_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="holds another model"):
        import_(other, target)
    assert read_manifest(target).sha256 == before


def test_of_two_stages_the_trained_one_is_taken(tmp_path, target):
    source = write_v1_model(tmp_path / "two", stages=2, settings={"current_spacing": [0.5] * 3})
    import_(source, target)
    plans = json.loads((target / "plans.json").read_text())
    assert list(plans["configurations"]) == ["3d_fullres"]
    assert plans["configurations"]["3d_fullres"]["spacing"] == [0.5, 0.5, 0.5]


def test_how_probabilities_are_resampled_is_taken_over(tmp_path, target):
    export = {"force_separate_z": True, "interpolation_order": 3, "interpolation_order_z": 1}
    source = write_v1_model(tmp_path / "v1", plans={"segmentation_export_params": export})
    import_(source, target)
    settings = json.loads((target / "plans.json").read_text())["configurations"]["3d_fullres"]
    assert settings["resampling_fn_probabilities_kwargs"] == {
        "is_seg": False, "force_separate_z": True, "order": 3, "order_z": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"trainer": "nnUNetTrainerV2_Loss_DiceTopK10"}, "its trainer is nnUNetTrainerV2_Loss"),
        ({"settings": {"conv_kernel_sizes": [[1, 3, 3], [3, 3, 3]]}}, "kernels other than"),
        ({"plans": {"num_modalities": 2}}, "several images"),
        ({"plans": {"normalization_schemes": {0: "CT"}}}, "not z-scored"),
        ({"plans": {"all_classes": [1, 2, [1, 2, 3]]}}, "labels are regions"),
        ({"plans": {"preprocessor_name": "PreprocessorFor2D"}}, "its own preprocessing"),
        ({"settings": {"patch_size": [8, 8]}}, "two-dimensional"),
        ({"settings": {"patch_size": [9, 8, 8]}}, "damaged"),
        ({"settings": {"current_spacing": [1, 1, float("nan")]}}, "damaged"),
        ({"settings": {"pool_op_kernel_sizes": [[1, 2, 2]]}}, "do not fit the network"),
        ({"plans": {"base_num_features": 3}}, "do not fit the network"),
        (
            {"plans": {"num_classes": 2, "all_classes": [1, 2]}},
            r"has 2 classes\. Only nnU-Net v1 models of the 3",
        ),
    ],
)
def test_what_cannot_be_reproduced_is_refused(tmp_path, target, options, reason):
    usual = {"base": 2, "pools": [(2, 2, 2)]}
    refused(write_v1_model(tmp_path / "v1", **usual, **options), target, reason)


def test_folds_of_different_plans_are_refused(source, target):
    facts = source / "fold_1" / f"{WEIGHTS}.pkl"
    stage = {"current_spacing": np.array([2.0, 2.0, 2.0])}
    edit_pickle(facts, lambda c: c["plans"]["plans_per_stage"][0].update(stage))
    refused(source, target, "different plans")


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("name", ["plans.pkl", f"fold_1/{WEIGHTS}.pkl", f"fold_1/{WEIGHTS}"])
def test_a_file_that_wants_to_run_code_is_refused(source, target, tmp_path, name):
    marker = tmp_path / "code was run"
    if name.endswith(".pkl"):
        edit_pickle(source / name, lambda content: content.update(x=Hostile(marker)))
    else:
        torch.save({"state_dict": {}, "x": Hostile(marker)}, source / name)
    refused(source, target)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "numpy.load", "torch.load"])
def test_a_pickle_may_name_numbers_alone(tmp_path, name):
    module, _, function = name.rpartition(".")
    path = tmp_path / "x.pkl"
    path.write_bytes(f"c{module}\n{function}\n.".encode())
    with pytest.raises(ModelError, match=f"asks for {name}"):
        read_pickle(path)


@pytest.mark.parametrize("protocol", [3, 4])
def test_plans_are_read_as_numbers_and_lists(tmp_path, protocol):
    content = {
        "array": np.arange(6).reshape(2, 3),
        "fortran": np.asfortranarray(np.eye(2, 3)),
        "big-endian": np.array([1.5], dtype=">f4"),
        "scalar": np.float64(0.5),
        "text": np.array(["ab", "c"]),
        "objects": np.array([None, {"a": 1}], dtype=object),
        "ordered": OrderedDict([(0, "nonCT")]),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert read_pickle(path) == {
        "array": [[0, 1, 2], [3, 4, 5]],
        "fortran": [[1, 0, 0], [0, 1, 0]],
        "big-endian": [1.5],
        "scalar": 0.5,
        "text": ["ab", "c"],
        "objects": [None, {"a": 1}],
        "ordered": {0: "nonCT"},
    }


def member(name, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        member("/tmp/plans.pkl"),
        member("../plans.pkl"),
        member("a/../../plans.pkl"),
        member("a\\..\\plans.pkl"),
        member("a/plans.pkl", tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("b/link", tarfile.LNKTYPE, linkname="plain/plans.pkl"),
        member("b/pipe", tarfile.FIFOTYPE),
        member("b/device", tarfile.CHRTYPE),
    ],
    ids=lambda m: f"{m.name} {m.type.decode()}",
)
def test_an_archive_with_a_hostile_member_is_refused(source, target, tmp_path, hostile):
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(source, "plain")
        tar.addfile(hostile)
    refused(archive, target, "refused, its member")


@pytest.mark.parametrize("wanted", [True, False], ids=["a file of the model", "another file"])
def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_does(
    source, target, tmp_path, monkeypatch, wanted
):
    monkeypatch.setattr(unpack, "ALWAYS", 2**20)
    archive = tmp_path / "x.tar.gz"
    large = member("plain/fold_9/model_final_checkpoint.model" if wanted else "plain/zeros")
    large.size = 40 * 2**20 + 20 * sum(p.stat().st_size for p in source.rglob("*.*"))
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(source, "plain")
        with Path("/dev/zero").open("rb") as zeros:
            tar.addfile(large, zeros)
    started = time.monotonic()
    refused(archive, target, "refused, it unpacks to more than 20 times its size")
    assert time.monotonic() - started < 5


def test_an_archive_of_two_models_is_refused(source, target, tmp_path):
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(source, "one")
        tar.add(source, "two")
    refused(archive, target, "2 nnU-Net v1 models")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.tar.gz", b"<html>not found</html>", "a web page, not a tar archive"),
        ("x.tar.gz", b"text", r"not a tar archive \([^:]*\)\. Get it again\.$"),
        ("x.zip", b"PK\3\4", "a zip archive. Unpack it, and import the folder"),
        ("model_final_checkpoint.model", b"PK\3\4", "Give the folder of the model"),
    ],
)
def test_a_file_that_is_no_archive_is_refused(tmp_path, target, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, target, reason)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ([WEIGHTS], rf"^fold_0 lacks {WEIGHTS}\. Get"),
        ([f"{WEIGHTS}.pkl"], rf"^fold_0 lacks {WEIGHTS}\.pkl\. Get"),
        ([WEIGHTS, f"{WEIGHTS}.pkl"], rf"^fold_0 lacks {WEIGHTS} and {WEIGHTS}\.pkl\. Get"),
    ],
)
def test_a_fold_without_weights_is_named(source, target, tmp_path, packed, lost, reason):
    for name in lost:
        (source / "fold_0" / name).unlink()
    refused(pack(source, tmp_path / "x.tar.gz") if packed else source, target, reason)


@pytest.mark.parametrize("packed", [False, True])
def test_a_fold_whose_training_was_not_finished_is_named(source, target, tmp_path, packed):
    for path in source.glob("fold_*/*"):
        path.rename(path.with_name(path.name.replace("final_checkpoint", "best")))
    reason = "^fold_0 lacks .* training was not finished: there is only model_best.model"
    refused(pack(source, tmp_path / "x.tar.gz") if packed else source, target, reason)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_an_archive_whose_later_members_cannot_be_read_is_damaged(
    source, target, tmp_path, compress
):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for path in sorted(source.rglob("*")):
            tar.add(path, path.relative_to(source), recursive=False)
    for end in ("bad header", "none"):
        data = bytearray(whole.getvalue())
        start = data.index(b"fold_1")
        data = data[:start] if end == "none" else data[:start] + b"F" + data[start + 1 :]
        archive = tmp_path / "x.tar"
        archive.write_bytes(compress(bytes(data)))
        refused(archive, target, r"^x\.tar: damaged\. Get it again")


def test_an_archive_with_a_wrong_checksum_is_damaged(source, target, tmp_path):
    archive = pack(source, tmp_path / "x.tar.gz")
    data = bytearray(archive.read_bytes())
    data[-8] ^= 1
    archive.write_bytes(data)
    refused(archive, target, r"^x\.tar\.gz: damaged\. Get it again")


def test_a_folder_that_cannot_be_written_is_reported(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"{tmp_path / 'file'}: the folder of models"):
        import_(source, tmp_path / "file" / "model")


def flip(data, rng, times=1):
    changed = bytearray(data)
    for _ in range(times):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def damage_archive(source, archive, rng, _marker):
    data = pack(source, archive).read_bytes()
    damaged = flip(data, rng, 3) if rng.random() < 0.5 else data[: rng.randrange(len(data))]
    archive.write_bytes(damaged)


def damage_file(source, archive, rng, _marker):
    path = rng.choice([p for p in sorted(source.rglob("*")) if p.is_file()])
    data = path.read_bytes()
    path.write_bytes(flip(data, rng, 2) if rng.random() < 0.7 else data[: rng.randrange(len(data))])
    pack(source, archive)


ODD = [None, -1, 0, 10**12, 0.5, "3", b"", [], {}, float("inf"), [1, 2], np.eye(3), [[[]]]]


def damage_plans(source, archive, rng, _marker):
    """Pickles that are whole, with values of wrong types and shapes."""

    def change(content):
        here = content.get("plans", content)
        if rng.random() < 0.5:
            here = here["plans_per_stage"][0]
        key = rng.choice(sorted(here))
        here[key] = rng.choice(ODD)

    path = rng.choice(sorted(source.rglob("*.pkl")))
    edit_pickle(path, change)
    if path.name == "plans.pkl":  # so that the folds agree with them
        plans = pickle.loads(path.read_bytes())
        for facts in source.rglob("*.model.pkl"):
            edit_pickle(facts, lambda content: content.update(plans=plans))
    pack(source, archive)


def damage_weights(source, archive, rng, _marker):
    """Checkpoints with right checksums, with tensors of wrong types and shapes."""
    path = rng.choice(sorted(source.rglob(WEIGHTS)))
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    name = rng.choice(sorted(state))
    tensor = state[name]
    state[name] = rng.choice(
        [
            None,
            "tensor",
            tensor[None],
            tensor.flatten()[:1].expand(2**20, 2**20),
            tensor.int(),
            tensor * torch.nan,
            tensor.to(torch.complex64),
            tensor.to_sparse(),
            tensor.to("meta"),
            torch.zeros(0),
        ]
    )
    if rng.random() < 0.2:
        del state[name]
    if rng.random() < 0.1:
        content["state_dict"] = list(state)
    torch.save(content, path)
    pack(source, archive)


def add_hostile(source, archive, rng, marker):
    path = rng.choice(sorted(source.rglob("*.pkl")))
    edit_pickle(path, lambda content: content.update(x=Hostile(marker)))
    pack(source, archive)
    with tarfile.open(archive, "w") as tar:
        tar.add(source, "x")
        name = rng.choice(["../evil", "x/../../evil", str(marker), "x/fold_0/y"])
        info = member(name, rng.choice([tarfile.REGTYPE, tarfile.SYMTYPE]), linkname=str(marker))
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))


@pytest.mark.parametrize(
    "damage", [damage_archive, damage_file, damage_plans, damage_weights, add_hostile]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_is_reported_and_leaves_nothing(original, tmp_path, damage):
    reported = 0
    for seed in range(40):
        rng = random.Random(seed)
        place = tmp_path / str(seed)
        source = Path(shutil.copytree(original, place / "source"))
        archive, target, marker = place / "x.tar.gz", place / "models" / "m", place / "marker"
        target.parent.mkdir()
        damage(source, archive, rng, marker)
        line = None
        try:
            import_(archive, target)
        except ModelError as error:
            line = str(error)
        if line is not None:
            reported += 1
            assert "\n" not in line
            assert not list(target.parent.iterdir())
        else:  # what was hit does not matter
            assert list(target.parent.iterdir()) == [target]
            verify(read_manifest(target))
            NnUNet(target, device=torch.device("cpu"), averaging="softmax", mode="v1")
            assert read_manifest(target).folds == ("0", "1")
        assert {p.name for p in place.iterdir()} == {"source", "x.tar.gz", "models"}
        shutil.rmtree(place)
    assert reported > 20
