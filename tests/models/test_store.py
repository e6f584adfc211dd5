"""Installed models are found by name or folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bids_app.errors import ModelError
from bids_app.io import files
from bids_app.models import store


def test_a_folder_that_may_not_be_looked_into_is_named(model, monkeypatch):
    real = Path.stat

    def refuse(path, **how):
        if model.folder in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, **how)

    root = model.folder.parent
    message = r"mine.model\.toml: cannot be read \(permission denied; ask its owner for `chmod"
    with monkeypatch.context() as patched:  # as of another user, which root cannot be
        patched.setattr(Path, "stat", refuse)
        patched.setattr(files, "open_regular", refuse)
        for name in ("mine", str(model.folder)):
            with pytest.raises(ModelError, match=message):
                store.find(name, root)

    def closed(folder):
        if folder == root:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return files.list_folder(folder)

    monkeypatch.setattr(store, "list_folder", closed)
    with pytest.raises(ModelError, match=f"{root}: cannot be read .permission denied"):
        store.find("mine", root)
    assert store.find("open", root).name == "open"


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


def test_a_forgotten_or_wrong_folder_of_models_is_reported(tmp_path, monkeypatch):
    monkeypatch.delenv("BRAINSTEM_MODELS_DIR", raising=False)
    for name in ("mine", "mars-mdgru"):
        with pytest.raises(ModelError, match=r"No folder of models is set.*--models-dir"):
            store.find(name)
        with pytest.raises(ModelError, match=f"The folder {tmp_path / 'x'} does not exist"):
            store.find(name, tmp_path / "x")
        with pytest.raises(ModelError) as caught:
            store.find(name, tmp_path)
        assert "folder of models is set" not in str(caught.value)


def test_an_unknown_model_names_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match=r"Installed: open; .*not installed: .*mars-nnunet\."):
        store.find("nothing")
    with pytest.raises(ModelError, match="brainstem-models import"):
        store.find(str(tmp_path))
