"""A model is used only if its files match its manifest, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bids_app.errors import ModelError
from bids_app.models.manifest import MANIFEST, read_manifest, verify


def test_a_manifest_says_the_same_when_written_and_read(model):
    assert read_manifest(model.folder) == model
    verify(model)


def test_regions_have_the_settled_names_and_codes(model):
    midbrain, other = model.regions
    assert (midbrain.abbreviation, midbrain.freesurfer) == ("MB", 173)
    assert (other.index, other.abbreviation, other.freesurfer) == (7, "REDN", None)


def test_labels_with_names_of_one_region_are_refused(model):
    manifest = model.folder / MANIFEST
    manifest.write_text(manifest.read_text().replace("red nucleus", "Mesencephalon"))
    with pytest.raises(ModelError, match=r"several labels are named midbrain\."):
        read_manifest(model.folder)


@pytest.mark.parametrize("content", [b"weightX", b"weight", b"weights and more"])
def test_changed_weights_are_refused(model, content):
    (model.folder / "fold_0" / "weights.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.pth does not match model\.toml"):
        verify(model)


def test_a_missing_file_is_refused(model):
    (model.folder / "plans.json").unlink()
    with pytest.raises(ModelError, match=r"plans\.json cannot be read"):
        verify(model)


def test_a_file_that_is_not_listed_is_refused_and_a_text_is_not(model):
    (model.folder / "MODEL_CARD.md").write_text("text")
    verify(model)
    (model.folder / "fold_1").mkdir()
    (model.folder / "fold_1" / "weights.pth").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"fold_1/weights.pth is not listed"):
        verify(model)


def test_hidden_files_and_those_of_file_managers_are_passed_over(model):
    for name in (".DS_Store", "._plans.json", "Thumbs.db", "fold_0/desktop.ini", ".git/config"):
        (model.folder / name).parent.mkdir(exist_ok=True)
        (model.folder / name).touch()
    verify(model)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('label = "mine2"', 'label = "mine_2"', "not alphanumeric"),
        ('engine = "nnunet"', 'engine = "magic"', "not 'cascade' or"),
        ('path = "plans.json"', 'path = "../plans.json"', "outside"),
        ('path = "plans.json"', 'path = "/etc/passwd"', "outside"),
        ('licence = "CC0-1.0"\n', "", "no entry licence"),
        ("7 =", "700 =", "from 1 to 255"),
        ("[labels]", "[inferences]\nbatch = 4\n[labels]", "has no entry inferences; it has name"),
        ("[[files]]", "[[files]]\nbatch = 4", r"\[\[files\]\] has no entry batch; it has path"),
        ("[labels]", "[labels", "cannot be read"),
    ],
)
def test_a_wrong_manifest_is_refused(model, old, new, message):
    path = model.folder / MANIFEST
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=message):
        read_manifest(model.folder)


def test_the_digest_depends_on_weights_and_labels(model):
    other = replace(model, files=(replace(model.files[0], sha256="0"), *model.files[1:]))
    fewer = replace(model, regions=model.regions[:1])
    assert len({model.sha256, other.sha256, fewer.sha256}) == 3
    assert replace(model, citation="another").sha256 == model.sha256
