"""The manifest of a model folder, ``model.toml``: read, written and checked against the files.

A manifest reads::

    name = "open"                # what the user types
    label = "open1"              # seg-<label> in file names, alphanumeric
    version = "1.0.0"
    engine = "cascade"           # cascade, nnunet or mdgru
    averaging = "softmax"        # or logits
    mode = "v2"                  # nnU-Net version whose inference is followed
    licence = "CC-BY-4.0"
    citation = "..."
    doi = ""
    parts = ["tectum", "scp"]    # distinguished beside the labels; left out where there are none

    [labels]                     # label value = name of the region
    1 = "midbrain"

    [[files]]                    # every file that may be read
    path = "locator/plans.json"
    bytes = 1234
    sha256 = "..."

    [inference]                  # options of the engine, if it has any
    window = [100, 100, 100]

    [[sources]]                  # imported models: the archive or files it was converted from
    path = "nnUNet_brainstem.tar.gz"
    bytes = 1234
    sha256 = "..."

No file of a model folder is loaded before its size and SHA-256 match the manifest. Files that the
manifest does not list are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_app.engines.mdgru.options import Inference
from bids_app.errors import ModelError, UsageError, reason
from bids_app.io.files import open_regular, read_toml
from bids_app.regions import PART_NAMES, Region, region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MANIFEST = "model.toml"
NOT_STATED = "not stated"  # licence of a model that came without one
_ALLOWED = {
    "engine": ("cascade", "nnunet", "mdgru"),
    "averaging": ("softmax", "logits"),
    "mode": ("v1", "v2"),
}
# Options of the command line that have no effect on an engine.
_UNUSED_OPTIONS = {
    "cascade": ("region",),  # a cascade always segments a box around the brainstem
    "nnunet": (),
    "mdgru": ("float32", "folds", "no_tta"),  # one network, run once, as its manifest says
}
_TEXT_ENTRIES = (
    "name", "label", "version", "engine", "averaging", "mode", "licence", "citation", "doi",
)  # fmt: skip
_TABLES = ("labels", "inference", "files", "sources")
_FILE_ENTRIES = ("path", "bytes", "sha256")


@dataclass(frozen=True)
class ModelFile:
    """One file: its path within the model folder, its size in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """The content of a manifest, and the folder it lies in.

    Attributes
    ----------
    parts : tuple of str
        Those of `bids_app.regions.PART_NAMES` that it distinguishes beside its regions.
    sources : tuple of ModelFile
        Published files that an imported model was converted from.
    inference : mapping
        Options of the engine.
    """

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
    sources: tuple[ModelFile, ...] = ()
    parts: tuple[str, ...] = ()
    inference: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        names = [region.name for region in self.regions]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ModelError(f"{self.folder}: several labels are named {', '.join(repeated)}.")

    @cached_property
    def sha256(self) -> str:
        """Digest of everything that can change a result: files, labels, engine and its options."""
        parts: dict[str, Any] = {
            "engine": self.engine,
            "averaging": self.averaging,
            "mode": self.mode,
            "labels": [[r.index, r.name] for r in self.regions],
            "files": sorted([f.path, f.sha256] for f in self.files),
        }
        # Both are omitted when empty, so that digests of older models stay the same.
        if self.inference:
            parts["inference"] = dict(self.inference)
        if self.parts:
            parts["parts"] = list(self.parts)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the networks of the ensemble; empty for a model of a single network."""
        # In a cascade, only the segmenter has folds to choose from.
        found = (re.match(r"(?:segmenter/)?fold_([^/]+)/", file.path) for file in self.files)
        return tuple(sorted({match[1] for match in found if match}))

    @property
    def unused_options(self) -> tuple[str, ...]:
        """Command-line options that have no effect on this model."""
        return _UNUSED_OPTIONS[self.engine]

    @property
    def reference(self) -> str:
        """Citation with its DOI, in one line."""
        return f"{self.citation} https://doi.org/{self.doi}" if self.doi else self.citation

    def check_folds(self, folds: Sequence[str]) -> None:
        """Check that the model has the requested folds.

        Raises
        ------
        UsageError
            The model has folds, but not all of these.
        """
        if "folds" in self.unused_options:
            return
        if missing := [name for name in folds if name not in self.folds]:
            noun = "folds" if len(self.folds) > 1 else "fold"
            raise UsageError(
                f"--folds {' '.join(missing)}: the model {self.name} only has {noun} "
                f"{', '.join(self.folds)}."
            )

    def ineffective_options(self, settings: Mapping[str, Any]) -> str:
        """List given options that have no effect on this model, as a warning; empty if none.

        Parameters
        ----------
        settings : mapping of str to object
            Options by name, as in `bids_app.settings.Settings`.
        """
        given = ", ".join(
            f"--{name.replace('_', '-')}" for name in self.unused_options if settings[name]
        )
        return f"{given}: no effect with the model {self.name} ({self.engine})" if given else ""


def read_manifest(folder: Path) -> Model:
    """Read the manifest of a model folder; no other file is opened.

    Raises
    ------
    ModelError
        The manifest is missing, is not TOML, or an entry is missing, unknown or invalid.
    """
    path = folder / MANIFEST
    try:
        content = read_toml(path)
    except FileNotFoundError:
        raise ModelError(f"{folder}: no {MANIFEST} in this folder.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({why_unreadable(error, folder)}).") from None
    try:
        return _parse(content, folder)
    except KeyError as error:
        raise ModelError(f"{path}: not a valid manifest (no entry {error.args[0]}).") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a valid manifest ({error}).") from None


def why_unreadable(error: Exception, path: Path | None) -> str:
    """Describe why a path cannot be read; for a lack of permissions, suggest the remedy."""
    if isinstance(error, PermissionError):
        return f"permission denied; ask its owner for `chmod -R a+rX {shlex.quote(str(path))}`"
    return reason(error)


def manifest_text(model: Model) -> str:
    """Write a manifest as TOML; `read_manifest` returns the same model."""
    # JSON strings are TOML basic strings, except for DEL, which no entry may contain.
    lines = [
        f"{key} = {json.dumps(getattr(model, key), ensure_ascii=False)}" for key in _TEXT_ENTRIES
    ]
    if model.parts:
        lines += [f"parts = {json.dumps(model.parts)}"]
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


def verify(model: Model) -> None:
    """Check that a model folder holds exactly the files of its manifest, byte for byte.

    Raises
    ------
    ModelError
        A file is missing, has another size or digest, or is not listed; see `check_unlisted`.
    """
    for problem in find_corrupt_files(model).values():
        raise ModelError(f"{problem} Install the model again under the same name.")
    check_unlisted(model)


def find_corrupt_files(model: Model) -> dict[str, str]:
    """Describe what is wrong with listed files, by path; empty if all are intact."""
    found = {}
    for file in model.files:
        try:
            present = describe_file(model.folder / file.path, file.path)
        except OSError as error:
            found[file.path] = f"Model {model.name}: {file.path} cannot be read ({error.strerror})."
            continue
        if present != file:
            found[file.path] = (
                f"Model {model.name}: {file.path} does not match {MANIFEST} "
                f"({present.bytes} bytes, SHA-256 {present.sha256[:12]}...; expected {file.bytes} "
                f"bytes, SHA-256 {file.sha256[:12]}...)."
            )
    return found


def check_unlisted(model: Model) -> None:
    """Check that a model folder holds no file that its manifest does not list.

    Hidden files, files that file managers leave and Markdown text are allowed: no engine reads
    them.

    Raises
    ------
    ModelError
        There is such a file.
    """
    listed = {file.path for file in model.files} | {MANIFEST}
    for path in sorted(model.folder.rglob("*")):
        relative = path.relative_to(model.folder).as_posix()
        if (
            relative not in listed
            and path.is_file()
            and path.suffix != ".md"
            and not relative.startswith(".")
            and "/." not in relative
            and path.name.lower() not in ("thumbs.db", "desktop.ini")
        ):
            raise ModelError(
                f"Model {model.name}: {relative} is not listed in {MANIFEST}. Remove the file."
            )


def list_files(folder: Path, pattern: str = "**/*") -> tuple[ModelFile, ...]:
    """Describe the files of a folder that match a pattern, for a new manifest."""
    described = []
    for path in sorted(p for p in folder.glob(pattern) if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if relative != MANIFEST and path.suffix != ".md":
            described.append(describe_file(path, relative))
    return tuple(described)


def describe_file(path: Path, name: str) -> ModelFile:
    """Describe one file, under the path that a manifest lists it with."""
    with open_regular(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return ModelFile(name, os.fstat(stream.fileno()).st_size, digest)


def _parse(content: dict[str, Any], folder: Path) -> Model:
    text: dict[str, str] = {key: content[key] for key in _TEXT_ENTRIES}
    for key, value in text.items():
        if not isinstance(value, str):
            raise TypeError(f"{key} is not text")
        if key in _ALLOWED and value not in _ALLOWED[key]:
            raise ValueError(f"{key} is {value!r}, not {' or '.join(map(repr, _ALLOWED[key]))}")
    _check_entries(content, (*_TEXT_ENTRIES, "parts", *_TABLES), "the manifest")
    parts = content.get("parts", [])
    if not isinstance(parts, list) or not all(part in PART_NAMES for part in parts):
        raise ValueError(f"parts are some of {', '.join(PART_NAMES)}")
    if parts and text["engine"] != "cascade":
        raise ValueError("only a cascade has parts")
    if not (text["label"].isascii() and text["label"].isalnum()):
        raise ValueError(f"label {text['label']!r} is not alphanumeric")
    regions = tuple(region(int(k), str(v)) for k, v in content["labels"].items())
    if not regions or not all(0 < r.index < 256 for r in regions):
        raise ValueError("at least one label is needed, with a value from 1 to 255")
    inference = dict(content.get("inference", {}))
    if text["engine"] == "mdgru":
        Inference.read(inference)
    return Model(
        folder=folder,
        regions=tuple(sorted(regions, key=lambda r: r.index)),
        files=_parse_files(content["files"], "[[files]]"),
        sources=_parse_files(content.get("sources", []), "[[sources]]"),
        parts=tuple(parts),
        inference=inference,
        **text,
    )


def _parse_files(table: Sequence[Mapping[str, Any]], where: str) -> tuple[ModelFile, ...]:
    files = []
    for entry in table:
        _check_entries(entry, _FILE_ENTRIES, where)
        path = PurePosixPath(entry["path"])
        if path.is_absolute() or ".." in path.parts or "\\" in entry["path"]:
            raise ValueError(f"file {entry['path']!r} lies outside the model's folder")
        files.append(ModelFile(str(path), int(entry["bytes"]), str(entry["sha256"]).lower()))
    return tuple(files)


def _check_entries(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse unknown entries, such as a setting in the wrong table."""
    for key in table:
        if key not in known:
            raise ValueError(f"{where} has no entry {key}; it has {', '.join(known)}")
