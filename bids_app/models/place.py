"""Moving a new model folder into place, completely or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.errors import ModelError, OutputError, reason
from bids_app.io.files import clean, owned_name, replacing, write_new
from bids_app.models.manifest import (
    MANIFEST,
    NOT_STATED,
    Model,
    find_corrupt_files,
    manifest_text,
    read_manifest,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bids_app.errors import BrainstemError

LOG = logging.getLogger(__name__)


def put_in_place(target: Path, make: Callable[[Path], Model]) -> Model:
    """Make a model in a temporary folder, then move it into place if it is not installed yet.

    If the model is installed but damaged, only the damaged files are replaced.

    Parameters
    ----------
    target : Path
        Folder of the model.
    make : callable
        Fills the folder it is given, except for the manifest, and describes the model.

    Returns
    -------
    Model
        The installed model, verified. A manifest that was there before is kept; see `_complete`.

    Raises
    ------
    ModelError
        Something else occupies the target, or the files to import cannot be read.
    OutputError
        The folder of models cannot be written.
    """
    made = target.with_name(owned_name(target.name))
    try:
        clean([target.parent])  # leftovers of imports that were killed
        existing_model(target)
        model = make(made)
        write_new(made / MANIFEST, manifest_text(model).encode())
        if (existing := existing_model(target)) is None:
            made.rename(target)
            existing = read_manifest(target)
        if replace(existing, inference=model.inference).sha256 != model.sha256:
            raise ModelError(
                f"{target} holds another model. Remove that folder first, or use another --name."
            )
        for file, problem in find_corrupt_files(existing).items():
            (target / file).parent.mkdir(exist_ok=True)
            (made / file).replace(target / file)
            LOG.warning("%s Replacing it.", problem)
        verify(existing)
        return _complete(existing, model)
    except OSError as error:
        raise _write_or_read_error(error, target.parent) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def existing_model(target: Path) -> Model | None:
    """Read the model at the target of an installation; None if nothing is there.

    Raises
    ------
    ModelError
        Something is there, but not a readable model.
    """
    if not os.path.lexists(target):
        return None
    try:
        return read_manifest(target)
    except ModelError as error:
        raise ModelError(
            f"{error} To install a model there, remove {target} first, then run the same command "
            "again."
        ) from None


def _write_or_read_error(error: OSError, root: Path) -> BrainstemError:
    """Distinguish a failure to write the folder of models from a failure to read the source."""
    path = Path(error.filename) if error.filename else root
    if root in (path, *path.parents) or path in root.parents:
        return OutputError(f"{root}: the folder of models cannot be written ({reason(error)}).")
    return ModelError(f"{path}: cannot be read ({reason(error)}).")


def _complete(existing: Model, new: Model) -> Model:
    """Add to a manifest what a later import of the same weights knows in addition.

    That is a licence and citation, if none was stated, and source files. ``[inference]`` may hold
    the user's own settings and stays; a difference is logged.

    Raises
    ------
    OSError
        The manifest cannot be written.
    """
    if dict(existing.inference) != dict(new.inference):
        LOG.warning(
            "%s: keeping [inference] as it is; these files suggest %s",
            existing.folder / MANIFEST,
            ", ".join(f"{name} = {value}" for name, value in new.inference.items()),
        )
    completed = existing
    if existing.licence == NOT_STATED != new.licence:
        completed = replace(completed, licence=new.licence, citation=new.citation, doi=new.doi)
    if set(existing.sources) < set(new.sources):
        completed = replace(completed, sources=new.sources)
    if completed != existing:
        with replacing(existing.folder / MANIFEST) as manifest:
            write_new(manifest, manifest_text(completed).encode())
    return completed
