"""Putting a converted model into its place, whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from bids_app.errors import ModelError
from bids_app.files import owned_name
from bids_app.models.store import MANIFEST, Model, manifest_text, read_manifest, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def put_in_place(target: Path, make: Callable[[Path], Model]) -> Model:
    """Make a model beside its place, and move it there unless it is there already.

    Parameters
    ----------
    target : Path
        Model folder to make.
    make : callable
        Makes the folder that it is given, without a manifest, and describes it.

    Returns
    -------
    Model
        The installed model, verified. Settings of its ``[inference]`` may be its user's own.

    Raises
    ------
    ModelError
        Another model is there, or nothing can be written.
    """
    made = target.with_name(owned_name(target.name))
    try:
        model = make(made)
        (made / MANIFEST).write_text(manifest_text(model), encoding="utf-8")
        if not target.exists():
            made.rename(target)
        there = read_manifest(target)
        if replace(there, inference=model.inference).sha256 != model.sha256:
            raise ModelError(f"{target} holds another model. Remove it, or use another --name.")
        verify(there)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise ModelError(f"{target}: not installed ({error.strerror}{where}).") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return there
