"""Installed models: found by name, in the package or in the user's folder of models, or by path."""

from __future__ import annotations

import os
import re
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.errors import ModelError
from bids_app.io.files import is_file, is_folder, list_folder, read_toml, status
from bids_app.models.manifest import MANIFEST, Model, read_manifest, why_unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGED = Path(__file__).parent
DEFAULT = "open"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of an installed model


def models_dir(option: Path | None = None) -> Path | None:
    """Folder of installed models: the option, else ``BRAINSTEM_MODELS_DIR``, else None."""
    if option is not None:
        return option
    variable = os.environ.get("BRAINSTEM_MODELS_DIR")
    return Path(variable) if variable else None


def registry() -> dict[str, dict[str, Any]]:
    """Entries of ``registry.toml``, the models known by name."""
    return read_toml(PACKAGED / "registry.toml")


def installed(directory: Path | None = None) -> dict[str, Path]:
    """Model folders by name: the packaged ones, then those of the folder of models.

    A folder without read permission is included, so that reading its manifest gives the reason.

    Raises
    ------
    ModelError
        The folder of models cannot be read.
    """
    packaged = [PACKAGED / entry.name for entry in list_folder(PACKAGED)]
    found = {path.name: path for path in packaged if is_file(path / MANIFEST)}
    root = models_dir(directory)
    try:
        folders = [root / entry.name for entry in list_folder(root)] if root is not None else []
    except (FileNotFoundError, NotADirectoryError):
        folders = []
    except OSError as error:
        raise ModelError(f"{root}: cannot be read ({why_unreadable(error, root)}).") from None
    return found | {p.name: p for p in folders if p.name[0] != "." and _has_manifest(p)}


def without_manifest(directory: Path | None = None) -> dict[str, Path]:
    """Folders in the folder of models that have no manifest, by name."""
    root = models_dir(directory)
    if root is None or not is_folder(root):
        return {}
    return {
        entry.name: root / entry.name
        for entry in list_folder(root)
        if entry.is_dir() and NAME.fullmatch(entry.name) and not _has_manifest(root / entry.name)
    }


def _has_manifest(folder: Path) -> bool:
    try:
        return stat.S_ISREG(status(folder / MANIFEST).st_mode)
    except PermissionError:
        return NAME.fullmatch(folder.name) is not None  # not lost+found
    except OSError:
        return False


def find(name: str, directory: Path | None = None) -> Model:
    """Find a model by name or folder, and read its manifest.

    Parameters
    ----------
    name : str
        A folder with a manifest, or the name of an installed model.
    directory : Path, optional
        Folder of installed models; see `models_dir`.

    Raises
    ------
    ModelError
        The model is unknown or not installed, its manifest cannot be read, or another installed
        model has the same label.
    """
    try:
        folders = installed(directory)
    except ModelError:
        if name != DEFAULT:  # which does not need the folder of models
            raise
        folders = {DEFAULT: PACKAGED / DEFAULT}
    if name in folders:
        model = read_manifest(folders[name])
        if problem := shared_label(model.label, (name, *sharing(name, model.label, folders))):
            raise ModelError(problem)
        return model
    if _has_manifest(Path(name)):
        return read_manifest(Path(name))
    raise ModelError(_why_not_found(name, folders, directory))


def _why_not_found(name: str, folders: Mapping[str, Path], directory: Path | None) -> str:
    where = models_dir(directory)
    if (path := Path(name)).exists():
        problem = f"no {MANIFEST} in this folder" if path.is_dir() else "a file, not a model folder"
        return (
            f"{name}: {problem}. Import it with `brainstem-models import NAME "
            f"{shlex.quote(name)} --models-dir {shlex.quote(str(where)) if where else 'FOLDER'}`."
        )
    if where is None:
        hint = (
            " No folder of models is set: if the model is in one, pass it with --models-dir or "
            "set BRAINSTEM_MODELS_DIR."
        )
    else:
        hint = "" if where.is_dir() else f" The folder {where} does not exist."
    if name in registry():
        options = install_options(directory)
        return (
            f"Model {name} is not installed{f' in {where}' if where else ''}.{hint} Install it "
            f"with `brainstem-models fetch {name} {options}`, or from files with "
            f"`brainstem-models import {name} PATH {options}`."
        )
    more = ", ".join(sorted({*registry()} - {*folders}))
    return (
        f"Unknown model {name}. Installed: {', '.join(sorted(folders))}; published, not "
        f"installed: {more or 'none'}. The path of a model folder also works.{hint}"
    )


def default_label(name: str) -> str:
    """Label in file names (``seg-<label>``) of a model that has no label of its own."""
    return re.sub(r"[^A-Za-z0-9]", "", name)


def sharing(name: str, label: str, folders: Mapping[str, Path]) -> list[str]:
    """Names of the other models with the same label, ignoring case.

    Parameters
    ----------
    name, label : str
        Of the model in question.
    folders : mapping of str to Path
        Model folders by name; see `installed`. Those whose manifest cannot be read are skipped.
    """
    found = []
    for other, folder in sorted(folders.items()):
        if other != name:
            with suppress(ModelError):
                if read_manifest(folder).label.lower() == label.lower():
                    found.append(other)
    return found


def shared_label(label: str, names: Sequence[str]) -> str:
    """Describe the problem of several models with one label; empty for a single model."""
    if len(names) < 2:
        return ""
    return (
        f"The models {' and '.join(sorted(names))} have the same label in file names, seg-{label}, "
        "and would overwrite each other's results. Remove the folder of one, then import it again "
        "with another --name."
    )


def install_options(directory: Path | None) -> str:
    """Command-line options that install a published model in the folder of models."""
    where = models_dir(directory)
    return f"--accept-licence --models-dir {shlex.quote(str(where)) if where else 'FOLDER'}"
