"""A model is used only if it is, byte for byte, what its manifest names."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bids_app import regions
from bids_app.errors import ModelError
from bids_app.models import store

MANIFEST = """
name = "mine"
label = "mine2"
version = "2.1"
engine = "nnunet"
averaging = "logits"
mode = "v2"
licence = "CC0-1.0"
citation = "A \\"quoted\\" citation"
doi = "10.1/2"
[labels]
1 = "midbrain"
7 = "red nucleus"
"""


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "mine"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_0" / "weights.pth").write_bytes(b"weights")
    (folder / "plans.json").write_bytes(b"{}")
    (folder / store.MANIFEST).write_text(MANIFEST + "[[files]]\npath='x'\nbytes=1\nsha256=''")
    model = replace(store.read_manifest(folder), files=store.list_files(folder))
    (folder / store.MANIFEST).write_text(store.manifest_text(model))
    return model


def test_a_manifest_says_the_same_when_written_and_read(model):
    assert store.read_manifest(model.folder) == model
    store.verify(model)


def test_regions_have_the_settled_names_and_codes(model):
    midbrain, other = model.regions
    assert (midbrain.abbreviation, midbrain.freesurfer) == ("MB", 173)
    assert (other.index, other.abbreviation, other.freesurfer) == (7, "REDN", None)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Mesencephalon", "midbrain"),
        ("PONS", "pons"),
        ("Medulla_oblongata", "medulla"),
        ("medulla-Oblongata", "medulla"),
        (" myelencephalon", "medulla"),
        ("Brain stem", "brainstem"),
        ("Spinal_Cord", "Spinal_Cord"),
    ],
)
def test_regions_are_known_by_their_other_names(name, known):
    assert regions.region(2, name).name == known


def test_the_brainstem_is_made_of_its_parts_or_of_all_where_none_is_known():
    regions = [regions.region(i, name) for i, name in enumerate(("cord", "Pons", "medulla"), 1)]
    assert regions.of_brainstem(regions) == regions[1:]
    assert regions.of_brainstem(regions[:1]) == regions[:1]


def test_labels_with_names_of_one_region_are_refused(model):
    manifest = model.folder / store.MANIFEST
    manifest.write_text(manifest.read_text().replace("red nucleus", "Mesencephalon"))
    with pytest.raises(ModelError, match=r"several labels are named midbrain\."):
        store.read_manifest(model.folder)


@pytest.mark.parametrize("content", [b"weightX", b"weight", b"weights and more"])
def test_changed_weights_are_refused(model, content):
    (model.folder / "fold_0" / "weights.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.pth is not the file"):
        store.verify(model)


def test_a_missing_file_is_refused(model):
    (model.folder / "plans.json").unlink()
    with pytest.raises(ModelError, match=r"plans\.json cannot be read"):
        store.verify(model)


def test_a_file_that_is_not_listed_is_refused_and_a_text_is_not(model):
    (model.folder / "MODEL_CARD.md").write_text("text")
    store.verify(model)
    (model.folder / "fold_1").mkdir()
    (model.folder / "fold_1" / "weights.pth").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"fold_1/weights.pth is not listed"):
        store.verify(model)


def test_hidden_files_and_those_of_file_managers_are_passed_over(model):
    for name in (".DS_Store", "._plans.json", "Thumbs.db", "fold_0/desktop.ini", ".git/config"):
        (model.folder / name).parent.mkdir(exist_ok=True)
        (model.folder / name).touch()
    store.verify(model)


def test_a_folder_that_may_not_be_looked_into_is_named(model, monkeypatch):
    real = Path.stat

    def refuse(path, **how):
        if model.folder in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, **how)

    root = model.folder.parent
    told = r"mine.model\.toml: cannot be read \(permission denied; ask its owner for `chmod"
    with monkeypatch.context() as patched:  # as of another user, which root cannot be
        patched.setattr(Path, "stat", refuse)
        patched.setattr(Path, "read_text", lambda path, **_: refuse(path))
        for name in ("mine", str(model.folder)):
            with pytest.raises(ModelError, match=told):
                store.find(name, root)
    monkeypatch.setattr(store, "models_dir", lambda _: Closed(root))
    with pytest.raises(ModelError, match=f"{root}: cannot be read .permission denied"):
        store.find("mine", root)
    assert store.find("open", root).name == "open"


class Closed(type(Path())):
    """A folder of another user."""

    def iterdir(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('label = "mine2"', 'label = "mine_2"', "not alphanumeric"),
        ('engine = "nnunet"', 'engine = "magic"', "can be 'cascade' or"),
        ('path = "plans.json"', 'path = "../plans.json"', "outside"),
        ('path = "plans.json"', 'path = "/etc/passwd"', "outside"),
        ('licence = "CC0-1.0"\n', "", "it lacks licence"),
        ("7 =", "700 =", "1 to 255"),
        ("[labels]", "[inferences]\nbatch = 4\n[labels]", "has no entry inferences; it has name"),
        ("[[files]]", "[[files]]\nbatch = 4", r"\[\[files\]\] has no entry batch; it has path"),
        ("[labels]", "[labels", "cannot be read"),
    ],
)
def test_a_wrong_manifest_is_refused(model, old, new, message):
    path = model.folder / store.MANIFEST
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=message):
        store.read_manifest(model.folder)


def test_the_digest_tells_models_with_other_weights_or_labels_apart(model):
    other = replace(model, files=(replace(model.files[0], sha256="0"), *model.files[1:]))
    fewer = replace(model, regions=model.regions[:1])
    assert len({model.sha256, other.sha256, fewer.sha256}) == 3
    assert replace(model, citation="another").sha256 == model.sha256


def test_a_model_is_found_by_name_by_folder_and_in_the_folder_of_models(model, monkeypatch):
    assert store.find(str(model.folder)) == model
    assert store.find("mine", model.folder.parent) == model
    monkeypatch.setenv("BRAINSTEM_MODELS_DIR", str(model.folder.parent))
    assert store.find("mine") == model


@pytest.mark.parametrize("name", ["mars-nnunet", "mars-mdgru"])
def test_a_published_model_that_is_not_installed_says_how_it_can_be(name):
    with pytest.raises(
        ModelError, match=f"brainstem-models fetch {name} --accept-licence --models-dir"
    ):
        store.find(name)


def test_a_forgotten_or_wrong_folder_of_models_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("BRAINSTEM_MODELS_DIR", raising=False)
    for name in ("mine", "mars-mdgru"):
        with pytest.raises(ModelError, match=r"No folder of models was named.*--models-dir"):
            store.find(name)
        with pytest.raises(ModelError, match=f"There is no folder {tmp_path / 'x'}"):
            store.find(name, tmp_path / "x")
        with pytest.raises(ModelError) as told:
            store.find(name, tmp_path)
        assert "folder of models was" not in str(told.value)


def test_an_unknown_model_names_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match=r"Installed: open; .*not installed: .*mars-nnunet;"):
        store.find("nothing")
    with pytest.raises(ModelError, match="brainstem-models import"):
        store.find(str(tmp_path))
