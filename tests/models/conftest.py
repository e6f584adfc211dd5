"""A model folder for the tests of this package."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bids_app.models.manifest import MANIFEST, list_files, manifest_text, read_manifest

TEXT = """
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
    (folder / MANIFEST).write_text(TEXT + "[[files]]\npath='x'\nbytes=1\nsha256=''")
    model = replace(read_manifest(folder), files=list_files(folder))
    (folder / MANIFEST).write_text(manifest_text(model))
    return model
