"""Models are installed whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from make_fixture_model import write_random_model
from make_mdgru_model import SMALL, random_weights, with_slots, write_checkpoint
from make_v1_model import write_v1_model

from bids_app.cli import models as cli
from bids_app.errors import ModelError, UsageError
from bids_app.io import files
from bids_app.models import install, store
from bids_app.models.manifest import MANIFEST, verify


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder as nnU-Net v2 leaves it."""
    folder = tmp_path_factory.mktemp("trained")
    write_random_model(folder, folds=2, features=(2, 4), patch_size=(8, 8, 8))
    (folder / "progress.png").touch()
    return folder


def test_a_trained_folder_becomes_a_model_of_its_needed_files(trained, tmp_path):
    model = install.import_model(trained, "my-model", tmp_path)
    assert model.folder == tmp_path / "my-model"
    assert (model.label, model.engine, model.averaging) == ("mymodel", "nnunet", "logits")
    assert [r.name for r in model.regions] == ["midbrain", "pons", "medulla"]
    assert not (model.folder / "progress.png").exists()
    verify(model)
    assert [p.name for p in tmp_path.iterdir()] == ["my-model"]


def test_a_fold_without_weights_is_named(trained, tmp_path):
    source = Path(shutil.copytree(trained, tmp_path / "source"))
    (source / "fold_8").mkdir()
    with pytest.raises(ModelError, match=r"^fold_8 lacks checkpoint_final\.pth\. Get"):
        install.import_model(source, "mine", tmp_path / "models")
    (source / "fold_8" / "checkpoint_best.pth").touch()
    with pytest.raises(ModelError, match="not finished: there is only checkpoint_best"):
        install.import_model(source, "mine", tmp_path / "models")


def test_assumptions_about_v1_files_are_reported(tmp_path, capsys):
    source = write_v1_model(tmp_path / "v1", folds=2)
    words = [str(source), "--accept-licence", "--models-dir", str(tmp_path / "models")]
    assert cli.main(["import", "mine", *words]) == 0
    printed = capsys.readouterr()
    assert "2 folds: 0 1): installed in" in printed.out
    assert "assumed: 1 midbrain, 2 pons, 3 medulla. If" in printed.out
    assert not printed.err
    assert cli.main(["list", *words[-2:]]) == 0
    assert "  2 (0 1)  " in capsys.readouterr().out
    assert cli.main(["import", "mars-nnunet", *words]) == 0
    printed = capsys.readouterr()
    assert "assumed" not in printed.out
    assert "warning: The published model has 5 folds, but these files hold fewer" in printed.err


def test_installing_again_changes_nothing_and_another_model_is_refused(trained, tmp_path):
    first = install.import_model(trained, "mine", tmp_path)
    assert install.import_model(trained, "mine", tmp_path) == first
    other = write_random_model(tmp_path / "other", seed=7, features=(2, 4), patch_size=(8, 8, 8))
    with pytest.raises(ModelError, match="another model"):
        install.import_model(other, "mine", tmp_path)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_installing_again_repairs_damaged_files_and_leaves_the_rest(
    trained, tmp_path, version, caplog
):
    source = trained if version == "v2" else write_v1_model(tmp_path / "v1")
    model = install.import_model(source, "mine", tmp_path / "models")
    weights = model.folder / "fold_0" / "checkpoint_final.pth"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (model.folder / "plans.json").unlink()
    (model.folder / "NOTES.md").write_text("mine")
    with pytest.raises(ModelError, match="Install the model again under the same name"):
        verify(model)
    assert install.import_model(source, "mine", tmp_path / "models") == model
    verify(model)
    assert (model.folder / "NOTES.md").exists()
    assert caplog.text.count("Replacing it.") == 2
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["mine"]


@pytest.mark.parametrize("manifest", [None, "["])
def test_a_folder_that_is_no_model_stays_and_the_way_out_is_given(trained, tmp_path, manifest):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "scan.nii.gz").touch()
    if manifest:
        (folder / MANIFEST).write_text(manifest)
    with pytest.raises(ModelError, match=f"remove {folder} first, then run the same command"):
        install.import_model(trained, "mine", tmp_path)
    assert (folder / "scan.nii.gz").exists()


def test_a_folder_of_models_that_cannot_be_written_is_named(trained, tmp_path, capsys):
    models = tmp_path / "models"
    models.touch()  # root may write to any folder, but to no folder that is a file
    for source in (trained, write_v1_model(tmp_path / "v1")):
        assert cli.main(["import", "mine", str(source), "--models-dir", str(models)]) == 6
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {models}: the folder of models cannot be written (")
        assert ".tmp" not in line


def test_a_model_folder_can_be_installed_under_another_name(trained, tmp_path):
    first = install.import_model(trained, "mine", tmp_path)
    second = install.import_model(first.folder, "renamed", tmp_path)
    assert (second.name, second.label) == ("renamed", "renamed")
    assert second.sha256 == first.sha256


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    for source in (tmp_path / "x", tmp_path / "nowhere"):
        with pytest.raises(ModelError):
            install.import_model(source, "mine", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["../mine", "a b", "", "open1", "marsnnunet", "MARS-nnunet"])
def test_names_that_mislead_or_escape_are_refused(trained, tmp_path, name):
    with pytest.raises(UsageError):
        install.import_model(trained, name, tmp_path)


def test_without_a_folder_of_models_nothing_is_installed(trained, monkeypatch):
    monkeypatch.delenv("BRAINSTEM_MODELS_DIR", raising=False)
    with pytest.raises(UsageError, match="BRAINSTEM_MODELS_DIR"):
        install.import_model(trained, "mine", None)


def test_the_command_lists_imports_and_verifies(trained, tmp_path, capsys):
    models = ("--models-dir", str(tmp_path))
    assert cli.main(["import", "mine", str(trained), *models]) == 0
    assert cli.main(["list", *models]) == 0
    printed = capsys.readouterr().out
    assert "seg-mine" in printed
    assert "not installed" in printed
    assert cli.main(["verify", "mine", *models]) == 0
    (tmp_path / "mine" / "plans.json").write_text("{}")
    assert cli.main(["verify", "mine", *models]) == 5
    assert "plans.json" in capsys.readouterr().err


def test_a_folder_without_a_manifest_is_named_as_not_usable(trained, tmp_path, capsys):
    models = ("--models-dir", str(tmp_path))
    install.import_model(trained, "mine", tmp_path)
    shutil.copytree(tmp_path / "mine", tmp_path / "bare")
    (tmp_path / "bare" / MANIFEST).unlink()
    assert cli.main(["list", *models]) == 0
    assert f"not usable: {tmp_path / 'bare'}: no model.toml" in capsys.readouterr().out
    for names in ((), ("bare",)):
        assert cli.main(["verify", *names, *models]) == 5
        printed = capsys.readouterr()
        assert "bare: not usable" in printed.out
        assert f"import NAME {tmp_path / 'bare'} --models-dir {tmp_path}`" in printed.err


def test_a_file_given_as_a_model_gets_the_import_command(tmp_path):
    (tmp_path / "x.tar.gz").touch()
    with pytest.raises(
        ModelError,
        match=r"x\.tar\.gz: a file, not a model folder\. .* import NAME .*x\.tar\.gz --models",
    ):
        store.find(str(tmp_path / "x.tar.gz"), tmp_path)


def test_a_damaged_manifest_does_not_hide_the_other_models(trained, tmp_path, capsys):
    install.import_model(trained, "mine", tmp_path)
    shutil.copytree(tmp_path / "mine", tmp_path / "damaged")
    (tmp_path / "damaged" / MANIFEST).write_text("[")
    assert cli.main(["list", "--models-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "not usable:" in printed
    assert "seg-mine" in printed


def test_each_model_that_is_not_usable_has_a_line(trained, tmp_path, capsys):
    models = ("--models-dir", str(tmp_path))
    for name in ("one", "two"):
        (install.import_model(trained, name, tmp_path).folder / "plans.json").write_text("{}")
    assert cli.main(["verify", *models]) == 5
    one, two = capsys.readouterr().err.splitlines()
    assert one.startswith("error: Model one: plans.json does not match model.toml")
    assert two.startswith("error: Model two: plans.json does not match model.toml")
    assert cli.main(["verify", "--models-dir", str(tmp_path / "nowhere")]) == 5
    assert f"The folder {tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err


def test_a_second_import_says_that_the_model_was_there(trained, tmp_path, capsys):
    words = ["import", "mine", str(trained), "--models-dir", str(tmp_path)]
    assert cli.main(words) == cli.main(words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"): installed in {tmp_path / 'mine'}")
    assert second.endswith(f"): already installed in {tmp_path / 'mine'}")
    (tmp_path / "mine" / "plans.json").write_text("{}")
    assert cli.main(words) == 0
    assert capsys.readouterr().out.endswith(f"): repaired in {tmp_path / 'mine'}\n")


def test_an_empty_name_is_refused(trained, import_, capsys):
    for words in (("", trained), ("mine", trained, "--name", "")):
        assert import_(*words) == 2
        assert capsys.readouterr().err.startswith(
            "error: The name '' cannot be used. A name consists"
        )


def test_the_name_of_the_packaged_model_is_taken(trained, tmp_path, import_, capsys):
    for words in (("open", trained), ("open", trained, "--name", "x")):
        assert import_(*words) == 2
        assert "open is the name of the packaged model" in capsys.readouterr().err


def test_leftovers_of_a_killed_import_are_removed(trained, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine = files.owned_name("mine")
    left = tmp_path / mine.replace(f"_{os.getpid()}_", f"_{dead.pid}_")
    others = tmp_path / f".mine.otherhost_{dead.pid}_01234567.tmp"
    for folder in (left, others):
        (folder / "fold_0").mkdir(parents=True)
    install.import_model(trained, "mine", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"mine", others.name}


def test_a_version_1_model_is_imported_with_the_published_licence_once_it_is_accepted(
    tmp_path, capsys
):
    source = write_v1_model(tmp_path / "v1")
    words = ["import", "mars-nnunet", str(source), "--models-dir", str(tmp_path / "models")]
    words += ["--name", "v1small"]
    assert cli.main(words) == 2
    assert "CC-BY-NC-ND-4.0" in capsys.readouterr().err
    assert cli.main([*words, "--accept-licence"]) == 0
    model = store.find("v1small", tmp_path / "models")
    verify(model)
    assert (model.label, model.mode, model.licence) == ("v1small", "v1", "CC-BY-NC-ND-4.0")
    assert cli.main([*words, "--accept-licence"]) == 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small MD-GRU as TensorFlow saves it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    weights = with_slots(random_weights(SMALL))
    return write_checkpoint(folder, weights, stem="brainstem_7").parent


@pytest.fixture
def import_(tmp_path):
    def run(*words):
        place = ("--models-dir", str(tmp_path / "models"), "--accept-licence")
        return cli.main(["import", *map(str, words), *place])

    return run


def test_a_model_of_another_kind_is_refused_with_the_command_for_it(
    checkpoint, trained, tmp_path, import_, capsys
):
    v1 = write_v1_model(tmp_path / "v1")
    made = install.import_model(checkpoint, "made", tmp_path).folder
    for name, source, right in (
        ("mars-nnunet", checkpoint, "mars-mdgru"),
        ("mars-nnunet", made, "mars-mdgru"),
        ("mars-mdgru", v1, "mars-nnunet"),
    ):
        for renamed in ((), ("--name", "x")):
            assert import_(name, source, *renamed) == 5
            said = capsys.readouterr()
            (line,) = said.err.splitlines()
            assert f"`brainstem-models import {right} {source} --accept-licence" in line
            assert not said.out, "no licence before an error"
    assert not list((tmp_path / "models").glob("*"))


def test_two_models_with_one_label_are_refused(trained, tmp_path, capsys):
    models = ("--models-dir", str(tmp_path))
    assert cli.main(["import", "tiny-v1", str(trained), *models]) == 0
    for name in ("tinyv1", "Tiny-v1"):
        assert cli.main(["import", name, str(trained), *models]) == 2
        assert f"The name {name} would be confused with tiny-v1" in capsys.readouterr().err
    made = install.import_model(trained, "tinyv1", tmp_path / "elsewhere").folder
    assert cli.main(["import", "tinyv1", str(made), *models]) == 2
    shutil.copytree(made, tmp_path / "tinyv1")  # as earlier versions let it come to be
    for name in ("tiny-v1", "tinyv1"):
        with pytest.raises(ModelError, match=r"tiny-v1 and tinyv1 have the same label.*seg-tinyv1"):
            store.find(name, tmp_path)
    capsys.readouterr()
    assert cli.main(["list", *models]) == 0
    assert "tiny-v1 and tinyv1 have the same label" in capsys.readouterr().err
    assert store.find("open", tmp_path).name == "open"


def test_a_published_name_is_for_that_model_and_its_licence(
    trained, checkpoint, tmp_path, import_, capsys
):
    v1 = write_v1_model(tmp_path / "v1")
    words = ["import", "x", str(v1), "--name", "mars-nnunet", "--models-dir", str(tmp_path / "m")]
    assert cli.main(words) == 2
    assert "Accept these terms with --accept-licence" in capsys.readouterr().err
    own = ("mars-nnunet", trained), ("mars-nnunet", trained, "--name", "x")
    other = ("mars-mdgru", trained), ("x", trained, "--name", "mars-mdgru")
    for case in (*own, *other):
        assert import_(*case) == 5
        assert "a name of its own: `brainstem-models import NAME" in capsys.readouterr().err
    assert import_("mars-mdgru", v1, "--name", "mars-nnunet") == 2
    assert not list((tmp_path / "models").glob("*"))
    assert cli.main([*words, "--accept-licence"]) == 0
    assert store.find("mars-nnunet", tmp_path / "m").licence == "CC-BY-NC-ND-4.0"
    nameless = install.import_model(v1, "mine", tmp_path / "m").folder
    assert import_("mars-nnunet", nameless) == 0
    assert store.find("mars-nnunet", tmp_path / "models").licence == "CC-BY-NC-ND-4.0"


def test_an_unchecked_graph_is_reported(checkpoint, tmp_path, import_, capsys):
    assert import_("mine", checkpoint) == 0
    assert "graph was NOT checked" in capsys.readouterr().out
    write_v1_model(tmp_path / "v1")
    assert import_("other", tmp_path / "v1") == 0
    assert "NOT checked" not in capsys.readouterr().out


def test_a_later_import_states_the_licence_and_leaves_the_users_settings(
    checkpoint, tmp_path, import_, capsys
):
    assert import_("mine", checkpoint) == 0
    manifest = tmp_path / "models" / "mine" / MANIFEST
    manifest.write_text(manifest.read_text().replace("[20, 20, 20]", "[10, 10, 10]"))
    before = store.find("mine", tmp_path / "models")
    assert before.licence == "not stated"
    assert import_("mars-mdgru", checkpoint, "--name", "mine") == 0
    assert "licence CC-BY-NC-ND-4.0): already installed in" in capsys.readouterr().out
    after = store.find("mine", tmp_path / "models")
    assert (after.licence, after.doi) == ("CC-BY-NC-ND-4.0", "10.1002/hbm.70141")
    assert after.sha256 == before.sha256
    verify(after)
    assert import_("mine", checkpoint) == 0
    assert store.find("mine", tmp_path / "models") == after


def test_a_trained_folder_has_its_licence_stated_later_too(trained, tmp_path):
    install.import_model(trained, "mine", tmp_path)
    credits_ = install.Credits("CC0-1.0", "Somebody", "10.1/2")
    assert install.import_model(trained, "mine", tmp_path, credits_).licence == "CC0-1.0"
    assert store.find("mine", tmp_path).reference == "Somebody https://doi.org/10.1/2"


def test_a_checkpoint_can_be_given_by_its_prefix(checkpoint, import_, capsys):
    assert import_("mine", checkpoint / "brainstem_7") == 0
    assert import_("mine", checkpoint / "brainstem") == 5
    assert f"Did you mean {checkpoint / 'brainstem_7.index'}?" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["brainstem_7.index", "brainstem_7.data-00000-of-00001"])
def test_a_missing_file_of_a_checkpoint_is_named(checkpoint, tmp_path, import_, missing, capsys):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "part"))
    (folder / missing).unlink()
    assert import_("mars-mdgru", folder) == 5
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {missing} is missing in {folder}")
    assert not said.out


def test_plans_that_ask_for_other_code_are_refused_before_anything_is_installed(trained, tmp_path):
    source = Path(shutil.copytree(trained, tmp_path / "source"))
    plans = json.loads((source / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"]["nonlin"] = "torch.nn.functional.torch.os.getpid"
    (source / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=r"torch\.os\.getpid, which nnU-Net's planners do not"):
        install.import_model(source, "mine", tmp_path / "models")
    assert not list((tmp_path / "models").glob("*"))
