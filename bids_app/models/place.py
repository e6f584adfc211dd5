"""Putting a converted model into its place, whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.errors import ModelError, OutputError, reason
from bids_app.io.files import clean, owned_name, replacing
from bids_app.models.store import (
    MANIFEST,
    NOT_STATED,
    Model,
    damage,
    manifest_text,
    read_manifest,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bids_app.errors import BrainstemError

LOG = logging.getLogger(__name__)


def put_in_place(target: Path, make: Callable[[Path], Model]) -> Model:
    """Make a model beside its place, and move it there unless it is there already.

    Of a model that is there and damaged, the damaged files are replaced, each at once; all else
    in its folder stays.

    Parameters
    ----------
    target : Path
        Model folder to make.
    make : callable
        Makes the folder that it is given, without a manifest, and describes it.

    Returns
    -------
    Model
        The installed model, verified; of one that was there before see `complete`.

    Raises
    ------
    ModelError
        Something else is there, or what it is made from cannot be read.
    OutputError
        The folder of models cannot be written.
    """
    made = target.with_name(owned_name(target.name))
    try:
        clean([target.parent])  # what imports left that were killed
        occupant(target)
        model = make(made)
        (made / MANIFEST).write_text(manifest_text(model), encoding="utf-8")
        if (there := occupant(target)) is None:
            made.rename(target)
            there = read_manifest(target)
        if replace(there, inference=model.inference).sha256 != model.sha256:
            raise ModelError(
                f"{target} holds another model. Remove that folder first, or use another --name."
            )
        for file, said in damage(there).items():
            (target / file).parent.mkdir(exist_ok=True)
            (made / file).replace(target / file)
            LOG.warning("%s It is replaced.", said)
        verify(there)
        return complete(there, model)
    except OSError as error:
        raise _told(error, target.parent) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def trained_folds(folder: Path, needed: Sequence[str], unfinished: str) -> list[Path]:
    """Find the folds of a model; refuse one that lacks a file, so that none is dropped unnoticed.

    Parameters
    ----------
    folder : Path
        With a folder ``fold_*`` a fold, as training leaves it.
    needed : sequence of str
        Files of a trained fold.
    unfinished : str
        A file that is there while the fold is being trained.

    Returns
    -------
    list of Path
        Folders of the folds, in order.

    Raises
    ------
    ModelError
        A file is missing.
    """
    folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    for fold in folds:
        _check_fold(fold, needed, unfinished)
    return folds


def _check_fold(fold: Path, needed: Sequence[str], unfinished: str) -> None:
    if not (lacking := [name for name in needed if not (fold / name).is_file()]):
        return
    training = f" Its training was not finished: there is {unfinished}."
    raise ModelError(
        f"{fold.name} lacks {' and '.join(lacking)}."
        f"{training if (fold / unfinished).is_file() and len(lacking) == len(needed) else ''} "
        "Get the files again, or import the model without this fold."
    )


def occupant(target: Path) -> Model | None:
    """Read the model in the place of a new one, if there is anything.

    Raises
    ------
    ModelError
        What is there is no model that can be read.
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


def _told(error: OSError, root: Path) -> BrainstemError:
    """Say which it is that failed: writing to the folder of models, or reading elsewhere."""
    at = Path(error.filename) if error.filename else root
    if root in (at, *at.parents) or at in root.parents:
        return OutputError(f"{root}: the folder of models cannot be written ({reason(error)}).")
    return ModelError(f"{at}: cannot be read ({reason(error)}).")


def complete(there: Model, new: Model) -> Model:
    """Give an installed model what a later import of the same weights knows more of it.

    That is a licence and a citation, where none was stated, and files that it was made from.
    Settings of its ``[inference]``, which may be its user's own, stay; a difference is told.

    Parameters
    ----------
    there : Model
        As installed.
    new : Model
        The same model, as the later import describes it.

    Raises
    ------
    OSError
        The manifest cannot be written.
    """
    if dict(there.inference) != dict(new.inference):
        LOG.warning(
            "%s: its [inference] stays as it is; by these files it would be %s",
            there.folder / MANIFEST,
            ", ".join(f"{name} = {value}" for name, value in new.inference.items()),
        )
    known = there
    if there.licence == NOT_STATED != new.licence:
        known = replace(known, licence=new.licence, citation=new.citation, doi=new.doi)
    if set(there.sources) < set(new.sources):
        known = replace(known, sources=new.sources)
    if known != there:
        with replacing(there.folder / MANIFEST) as manifest:
            manifest.write_text(manifest_text(known), encoding="utf-8")
    return known
