"""Model folders: found by name or path, described by a manifest, checked before they are used.

A model is a folder with a manifest, ``model.toml``::

    name = "open"                # what the user types
    label = "open1"              # seg-<label> in file names, alphanumeric
    version = "1.0.0"
    engine = "cascade"           # cascade, nnunet or mdgru
    averaging = "softmax"        # or logits
    mode = "v2"                  # nnU-Net version whose inference is followed
    licence = "CC-BY-4.0"
    citation = "..."
    doi = ""

    [labels]                     # label value = name of the region
    1 = "midbrain"

    [[files]]                    # every file that may be read
    path = "locator/plans.json"
    bytes = 1234
    sha256 = "..."

    [inference]                  # how the engine runs it, where there is a choice
    window = [100, 100, 100]

    [[sources]]                  # of an imported model: the archive or files that it was made from
    path = "nnUNet_brainstem.tar.gz"
    bytes = 1234
    sha256 = "..."

Nothing in a model folder is loaded before its size and SHA-256 match the manifest, and a file
that the manifest does not list is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import stat
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_app.engines.mdgru.options import Inference
from bids_app.errors import ModelError, UsageError, reason
from bids_app.regions import Region, region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGED = Path(__file__).parent
REGISTRY = PACKAGED / "registry.toml"
MANIFEST = "model.toml"
DEFAULT = "open"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a model that is installed
ENGINES = ("cascade", "nnunet", "mdgru")
AVERAGING = ("softmax", "logits")
MODES = ("v1", "v2")
IMPORTED = ("nnunet", "mdgru")  # engines whose published files can be read
_UNUSED = {
    "cascade": ("region",),  # it always looks there
    "nnunet": (),
    "mdgru": ("float32", "folds", "no_tta"),  # one network, run once, as its manifest says
}
_TEXTS = ("name", "label", "version", "engine", "averaging", "mode", "licence", "citation", "doi")
_TABLES = ("labels", "inference", "files", "sources")
_OF_FILE = ("path", "bytes", "sha256")
NOT_STATED = "not stated"  # licence of a model that came without one


@dataclass(frozen=True)
class ModelFile:
    """One file of a model folder: its place in the folder, size in bytes and SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """What a manifest says, and the folder that it stands in."""

    folder: Path
    name: str
    label: str
    version: str
    engine: str
    averaging: str
    mode: str
    licence: str
    citation: str
    doi: str
    regions: tuple[Region, ...]
    files: tuple[ModelFile, ...]
    sources: tuple[ModelFile, ...] = ()  # what was published, of a model made from it
    inference: Mapping[str, Any] = field(default_factory=dict, hash=False)  # for the engine

    def __post_init__(self) -> None:
        names = [region.name for region in self.regions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ModelError(f"{self.folder}: several labels are named {', '.join(twice)}.")

    @cached_property
    def sha256(self) -> str:
        """Digest of all that changes a result: engine, averaging, mode, labels, files and so on."""
        parts: dict[str, Any] = {
            "engine": self.engine,
            "averaging": self.averaging,
            "mode": self.mode,
            "labels": [[r.index, r.name] for r in self.regions],
            "files": sorted([f.path, f.sha256] for f in self.files),
        }
        if self.inference:  # left out else, so that digests of older models stay
            parts["inference"] = dict(self.inference)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the networks that may be chosen from; none of a model that is one network."""
        # Of a cascade, those of its segmenter: the locator is always used whole.
        found = (re.match(r"(?:segmenter/)?fold_([^/]+)/", file.path) for file in self.files)
        return tuple(sorted({match[1] for match in found if match}))

    @property
    def unused(self) -> tuple[str, ...]:
        """Options of how networks are run that mean nothing to its engine."""
        return _UNUSED[self.engine]

    @property
    def reference(self) -> str:
        """Citation with its DOI, in one line."""
        return f"{self.citation} https://doi.org/{self.doi}" if self.doi else self.citation


def models_dir(option: Path | None = None) -> Path | None:
    """Folder of installed models: the option, else ``BRAINSTEM_MODELS_DIR``, else none."""
    if option is not None:
        return option
    variable = os.environ.get("BRAINSTEM_MODELS_DIR")
    return Path(variable) if variable else None


def registry() -> dict[str, dict[str, Any]]:
    """Models known by name, as `registry.toml` lists them."""
    return tomllib.loads(REGISTRY.read_text(encoding="utf-8"))


def installed(directory: Path | None = None) -> dict[str, Path]:
    """Folders with a manifest, by name: the packaged ones, then those of `directory`.

    A folder that may not be looked into is among them, so that reading its manifest tells.

    Raises
    ------
    ModelError
        The folder of models may not be looked into.
    """
    found = {path.name: path for path in PACKAGED.iterdir() if (path / MANIFEST).is_file()}
    root = models_dir(directory)
    try:
        folders = sorted(root.iterdir()) if root is not None else []
    except (FileNotFoundError, NotADirectoryError):
        folders = []
    except OSError as error:
        raise ModelError(f"{root}: cannot be read ({_why(error, root)}).") from None
    return found | {p.name: p for p in folders if p.name[0] != "." and _has_manifest(p)}


def without_manifest(directory: Path | None = None) -> dict[str, Path]:
    """Folders in the folder of models that have no manifest, by name."""
    root = models_dir(directory)
    if root is None or not root.is_dir():
        return {}
    return {
        path.name: path
        for path in sorted(root.iterdir())
        if path.is_dir() and NAME.fullmatch(path.name) and not _has_manifest(path)
    }


def _has_manifest(folder: Path) -> bool:
    try:
        return stat.S_ISREG((folder / MANIFEST).stat().st_mode)
    except PermissionError:
        return NAME.fullmatch(folder.name) is not None  # which lost+found is not
    except OSError:
        return False


def _why(error: Exception, path: Path | None) -> str:
    """Tell why something cannot be read, and whom to ask where that is a matter of permissions."""
    if isinstance(error, PermissionError):
        return f"permission denied; ask its owner for `chmod -R a+rX {shlex.quote(str(path))}`"
    return reason(error)


def find(name: str, directory: Path | None = None) -> Model:
    """Find a model by the name or folder that the user gave, and read its manifest.

    Parameters
    ----------
    name : str
        A folder that holds a manifest, or the name of an installed model.
    directory : Path, optional
        Folder of installed models; see `models_dir`.

    Raises
    ------
    ModelError
        Unknown, not installed, its manifest cannot be read, or another one has its label.
    """
    try:
        folders = installed(directory)
    except ModelError:
        if name != DEFAULT:  # which needs no folder of models
            raise
        folders = {DEFAULT: PACKAGED / DEFAULT}
    if name in folders:
        model = read_manifest(folders[name])
        if line := shared_label(model.label, (name, *sharing(name, model.label, folders))):
            raise ModelError(line)
        return model
    if _has_manifest(Path(name)):
        return read_manifest(Path(name))
    where = models_dir(directory)
    if Path(name).exists():
        what = f"no {MANIFEST} in this folder" if Path(name).is_dir() else "a file"
        raise ModelError(
            f"{name}: {what}. Make a model of it with `brainstem-models import NAME "
            f"{shlex.quote(name)} --models-dir {shlex.quote(str(where)) if where else 'FOLDER'}`."
        )
    if where is None:
        looked = (
            " No folder of models was named: if it is in one, name that with --models-dir or "
            "BRAINSTEM_MODELS_DIR."
        )
    else:
        looked = "" if where.is_dir() else f" There is no folder {where}."
    if name in registry():
        options = install_options(directory)
        raise ModelError(
            f"Model {name} is not installed{f' in {where}' if where else ''}.{looked} Install it "
            f"with `brainstem-models fetch {name} {options}`, or from files with "
            f"`brainstem-models import {name} PATH {options}`."
        )
    more = ", ".join(sorted({*registry()} - {*folders}))
    raise ModelError(
        f"No model is called {name}. Installed: {', '.join(sorted(folders))}; published, not "
        f"installed: {more or 'none'}; or give a model's folder.{looked}"
    )


def label_of(name: str) -> str:
    """Make the label that a model of this name has in file names, where it brings none."""
    return re.sub(r"[^A-Za-z0-9]", "", name)


def sharing(name: str, label: str, folders: Mapping[str, Path]) -> list[str]:
    """Name the other models whose label is the same, also where upper and lower case are one.

    Parameters
    ----------
    name, label : str
        Of the model in question.
    folders : mapping of str to Path
        Model folders by name; see `installed`. Those whose manifest cannot be read are passed over.
    """
    found = []
    for other, folder in sorted(folders.items()):
        if other != name:
            with suppress(ModelError):
                if read_manifest(folder).label.lower() == label.lower():
                    found.append(other)
    return found


def shared_label(label: str, names: Sequence[str]) -> str:
    """Say what is wrong if several models have one label; empty if there is one."""
    if len(names) < 2:
        return ""
    return (
        f"The models {' and '.join(sorted(names))} have the same label in file names, seg-{label}: "
        "each would replace the other's results. Remove the folder of one, and import that again "
        "with another --name."
    )


def install_options(directory: Path | None) -> str:
    """Options with which a published model is installed in a folder of models."""
    where = models_dir(directory)
    return f"--accept-licence --models-dir {shlex.quote(str(where)) if where else 'FOLDER'}"


def read_manifest(folder: Path) -> Model:
    """Read a manifest; nothing else in the folder is opened.

    Raises
    ------
    ModelError
        The manifest is missing, is not TOML, or lacks or misstates an entry.
    """
    path = folder / MANIFEST
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return _parse(content, folder)
    except FileNotFoundError:
        raise ModelError(f"{folder}: no {MANIFEST} in this folder.") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read ({_why(error, folder)}).") from None
    except KeyError as error:
        raise ModelError(f"{path}: not a valid manifest (it lacks {error.args[0]}).") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a valid manifest ({error}).") from None


def verify(model: Model) -> None:
    """Check that a model folder holds just the files that its manifest lists, byte for byte.

    Raises
    ------
    ModelError
        A file is missing, has another size or digest, or is not listed; see `unlisted`.
    """
    for said in damage(model).values():
        raise ModelError(f"{said} Install the model again under the same name.")
    for said in unlisted(model):
        raise ModelError(said)


def damage(model: Model) -> dict[str, str]:
    """Say what is wrong with files of a model that its manifest lists, by their paths."""
    found = {}
    for file in model.files:
        try:
            there = describe_file(model.folder / file.path, file.path)
        except OSError as error:
            found[file.path] = f"Model {model.name}: {file.path} cannot be read ({error.strerror})."
            continue
        if there != file:
            found[file.path] = (
                f"Model {model.name}: {file.path} is not the file that {MANIFEST} names "
                f"({there.bytes} bytes, SHA-256 {there.sha256[:12]}...; expected {file.bytes}, "
                f"{file.sha256[:12]}...)."
            )
    return found


def unlisted(model: Model) -> list[str]:
    """Say which files of a model folder its manifest does not list.

    Hidden files, those that file managers leave and text in Markdown may be there: no engine
    reads them.
    """
    listed = {file.path for file in model.files} | {MANIFEST}
    return [
        f"Model {model.name}: {relative} is not listed in {MANIFEST}. Remove the file."
        for path in sorted(model.folder.rglob("*"))
        if (relative := path.relative_to(model.folder).as_posix()) not in listed
        and path.is_file()
        and path.suffix != ".md"
        and not relative.startswith(".")
        and "/." not in relative
        and path.name.lower() not in ("thumbs.db", "desktop.ini")
    ]


def check_folds(model: Model, folds: Sequence[str]) -> None:
    """Check that a model has the networks asked for, before anything is loaded.

    Raises
    ------
    UsageError
        It has folds, and not these.
    """
    if "folds" in model.unused:
        return
    if lacking := [name for name in folds if name not in model.folds]:
        noun = "folds" if len(model.folds) > 1 else "fold"
        raise UsageError(
            f"--folds {' '.join(lacking)}: the model {model.name} has {noun} "
            f"{', '.join(model.folds)} only."
        )


def without_effect(model: Model, given: Mapping[str, Any]) -> str:
    """Name options that mean nothing to a model, in a line for the user; empty if there are none.

    Parameters
    ----------
    model : Model
    given : mapping of str to object
        Options by name, as `bids_app.settings.Settings` has them.
    """
    names = ", ".join(f"--{name.replace('_', '-')}" for name in model.unused if given[name])
    return f"{names}: no effect with the model {model.name} ({model.engine})" if names else ""


def list_files(folder: Path, pattern: str = "**/*") -> tuple[ModelFile, ...]:
    """Describe the files of a folder that a pattern names, as a new manifest lists them."""
    described = []
    for path in sorted(p for p in folder.glob(pattern) if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if relative != MANIFEST and path.suffix != ".md":
            described.append(describe_file(path, relative))
    return tuple(described)


def describe_file(path: Path, name: str) -> ModelFile:
    """Describe one file, under the name that a manifest has for it."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return ModelFile(name, os.fstat(stream.fileno()).st_size, digest)


def manifest_text(model: Model) -> str:
    """Write a manifest as TOML; `read_manifest` gives the same model back."""
    # JSON strings are TOML basic strings, but for DEL, which no field may hold.
    lines = [f"{key} = {json.dumps(getattr(model, key), ensure_ascii=False)}" for key in _TEXTS]
    lines += ["", "[labels]"]
    lines += [f"{r.index} = {json.dumps(r.name, ensure_ascii=False)}" for r in model.regions]
    if model.inference:
        lines += ["", "[inference]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in model.inference.items()]
    for table, listed in (("files", model.files), ("sources", model.sources)):
        for file in listed:
            path = json.dumps(file.path, ensure_ascii=False)
            lines += ["", f"[[{table}]]", f"path = {path}", f"bytes = {file.bytes}"]
            lines += [f'sha256 = "{file.sha256}"']
    return "\n".join(lines) + "\n"


def _parse(content: dict[str, Any], folder: Path) -> Model:
    text = {key: _text(content, key) for key in _TEXTS}
    _check_entries(content, (*_TEXTS, *_TABLES), "the manifest")
    for table in ("files", "sources"):
        for entry in content.get(table, []):
            _check_entries(entry, _OF_FILE, f"[[{table}]]")
    if not (text["label"].isascii() and text["label"].isalnum()):
        raise ValueError(f"label {text['label']!r} is not alphanumeric")
    for key, allowed in (("engine", ENGINES), ("averaging", AVERAGING), ("mode", MODES)):
        if text[key] not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise ValueError(f"{key} is {text[key]!r}, and can be {choices}")
    regions = tuple(region(int(k), str(v)) for k, v in content["labels"].items())
    if not regions or not all(0 < r.index < 256 for r in regions):
        raise ValueError("labels must be 1 to 255, one at least")
    files, sources = (
        tuple(
            ModelFile(_member(f["path"]), int(f["bytes"]), str(f["sha256"]).lower()) for f in table
        )
        for table in (content["files"], content.get("sources", []))
    )
    inference = dict(content.get("inference", {}))
    if text["engine"] == "mdgru":
        Inference.read(inference)
    return Model(
        folder=folder,
        regions=tuple(sorted(regions, key=lambda r: r.index)),
        files=files,
        sources=sources,
        inference=inference,
        **text,
    )


def _text(content: dict[str, Any], key: str) -> str:
    value = content[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not text")
    return value


def _check_entries(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse what would mean nothing where it stands, as a setting at the end of the file."""
    for key in table:
        if key not in known:
            raise ValueError(f"{where} has no entry {key}; it has {', '.join(known)}")


def _member(path: str) -> str:
    member = PurePosixPath(path)
    if member.is_absolute() or ".." in member.parts or "\\" in path:
        raise ValueError(f"file {path!r} lies outside the model's folder")
    return str(member)
