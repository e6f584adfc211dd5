"""Installing models from files, or from where they are published, into the folder of models."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from bids_app.errors import ModelError, OutputError, UsageError, reason
from bids_app.io.files import lock
from bids_app.models.manifest import (
    MANIFEST,
    NOT_STATED,
    Model,
    check_unlisted,
    find_corrupt_files,
    read_manifest,
    verify,
)
from bids_app.models.place import existing_model, put_in_place
from bids_app.models.store import (
    NAME,
    PACKAGED,
    default_label,
    install_options,
    installed,
    models_dir,
    registry,
    sharing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    # From the source, the folder to create and a template, to the model.
    Converter = Callable[[Path, Path, Model], Model]

IMPORTED = ("nnunet", "mdgru")  # engines of the published models that can be imported
_SECONDS_BETWEEN_CHECKS = 0.5
_KINDS = {  # by engine and mode
    ("cascade", "v2"): "a localizer and a segmenter, like the packaged model",
    ("nnunet", "v1"): "an nnU-Net v1 model",
    ("nnunet", "v2"): "an nnU-Net v2 model",
    ("mdgru", "v2"): "a TensorFlow checkpoint of MD-GRU",
}


@dataclass(frozen=True)
class Credits:
    """Licence and citation of a model, for the manifest of one that has none yet."""

    licence: str = NOT_STATED
    citation: str = "a model of the user's own"
    doi: str = ""


def import_model(
    source: Path,
    name: str,
    directory: Path | None,
    credits_: Credits = Credits(),
    published: str = "",
) -> Model:
    """Install a model from files.

    Parameters
    ----------
    source : Path
        A model folder with a manifest; or, without a manifest, a folder that nnU-Net v2 trained,
        an nnU-Net v1 model as a folder or archive, or a TensorFlow checkpoint of MD-GRU.
    name : str
        Name to install it under.
    directory : Path or None
        Folder of models; see `models_dir`.
    credits_ : Credits
        For a new manifest.
    published : str
        The model of the registry that the source is supposed to be, if any.

    Returns
    -------
    Model
        The installed model, verified. Installing the same files again repairs damaged ones and
        completes the manifest, and changes nothing else.

    Raises
    ------
    ModelError
        The source is not a model, or is not the kind of model that `published` or `name` says, or
        another model of this name is installed.
    OutputError
        The folder of models cannot be written.
    UsageError
        No folder of models is set, or the name cannot be used.
    """
    target = target_folder(name, directory)
    published = published or (name if name in registry() else "")
    _check_exists(source)
    if (source / MANIFEST).is_file():
        model = read_manifest(source)
        verify(model)
        if model.licence == NOT_STATED:
            model = replace(model, **asdict(credits_))
        if model.name != name:
            model = replace(model, name=name, label=default_label(name))
        convert: Converter = _copy
    else:
        engine, mode, convert = _recognize(source)
        model = Model(
            folder=target,
            name=name,
            label=default_label(name),
            version="1",
            engine=engine,
            averaging="softmax",
            mode=mode,
            **asdict(credits_),
            regions=(),
            files=(),
        )
    _check_kind(source, (model.engine, model.mode), published, directory)
    check_label(name, model.label, directory)
    return put_in_place(target, lambda made: convert(source, made, model))


def _recognize(source: Path) -> tuple[str, str, Converter]:
    """Engine, mode and converter of files without a manifest."""
    from bids_app.models.importers.mdgru.importer import import_checkpoint, is_checkpoint
    from bids_app.models.importers.nnunet_v1.importer import import_v1, is_v1  # brings torch
    from bids_app.models.importers.nnunet_v2 import check_trained, describe_trained

    if is_checkpoint(source):
        return "mdgru", "v2", import_checkpoint
    if is_v1(source):
        return "nnunet", "v1", import_v1
    check_trained(source)
    return "nnunet", "v2", lambda *a: _copy(a[0], a[1], describe_trained(a[0], a[2]))


def _copy(source: Path, folder: Path, model: Model) -> Model:
    """Copy the files of a model, and check its plans for names that planners do not write."""
    for file in model.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, path)
    verify(replace(model, folder=folder))
    if model.engine != "mdgru":
        from bids_app.engines.nnunet.plans import check_plans  # brings torch

        for network in ("locator", "segmenter") if model.engine == "cascade" else (".",):
            check_plans(folder / network)
    return model


def fetch_model(name: str, directory: Path | None, url: str | None = None) -> Model:
    """Download a published model and install it.

    If another process is fetching the same model, this one waits and uses what that installed.
    Partial downloads stay in a hidden folder beside the model, and the next fetch resumes them.
    The folder is removed after success.

    Parameters
    ----------
    name : str
        A model of the registry with files to download.
    directory : Path or None
        Folder of models; see `models_dir`.
    url : str, optional
        Folder of the files on a mirror, or the address of one of them there.

    Returns
    -------
    Model
        The installed model, verified. Nothing is downloaded if it was installed and intact.

    Raises
    ------
    ModelError
        A file cannot be downloaded or is not the published one, or cannot be imported.
    OutputError
        The folder of models cannot be written.
    UsageError
        No folder of models is set, or the address is not an HTTP address.
    """
    target = target_folder(name, directory)
    if (model := _intact_model(target)) is not None:
        return model
    entry = registry()[name]
    names = [file["name"] for file in entry["files"]]
    folder = target.with_name(f".{name}.download")
    with _exclusive(target.with_name(f".{name}.fetch.lock")):
        if (model := _intact_model(target)) is not None:
            return model
        from bids_app.models.download import download  # brings pooch and requests

        base = (url or entry["url"]).rstrip("/")
        for file in names:
            base = base.removesuffix(f"/{file}")
        try:
            for file in entry["files"]:
                address = urljoin(f"{base}/", file["name"])
                download(address, folder / file["name"], file.get("bytes"), file.get("digest"))
        except ModelError as error:
            sources = ", ".join(urljoin(entry["url"], file) for file in names)
            raise ModelError(
                f"{error} Alternatively, get {sources} another way and install with "
                f"`brainstem-models import {name} PATH {install_options(directory)}`."
            ) from None
        finally:
            with suppress(OSError):  # it stays if it holds anything
                folder.rmdir()
        source = folder / names[0] if len(names) == 1 else folder
        credits_ = Credits(entry["licence"], entry["citation"], entry["doi"])
        try:
            model = import_model(source, name, directory, credits_, name)
        except OutputError as error:
            raise OutputError(
                f"{error} The download is kept: fix this, then run the same command again."
            ) from None
        except ModelError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return model


def target_folder(name: str, directory: Path | None) -> Path:
    """Folder to install a model in.

    Raises
    ------
    UsageError
        No folder of models is set, or the name cannot be used.
    """
    root = models_dir(directory)
    if root is None:
        raise UsageError("Set the folder of models with --models-dir or BRAINSTEM_MODELS_DIR.")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"The name {name!r} cannot be used. A name consists of letters, digits, '-', '_' and "
            "'.', and begins with a letter or a digit."
        )
    if (PACKAGED / name / MANIFEST).exists():
        raise UsageError(f"The name {name} is the packaged model's. Choose another name.")
    return root / name


def check_label(name: str, label: str, directory: Path | None) -> None:
    """Check that no other model, published or installed, has the label of a new one.

    Raises
    ------
    UsageError
        Another model has this label, or it is like those of maps of parts, so that results would
        be confused.
    """
    if label.lower().endswith("parts"):
        raise UsageError(
            f"The name {name} ends with parts, as the names of maps of parts do. Choose another "
            "name."
        )
    published = [known for known, entry in registry().items() if entry["label"] == label.lower()]
    for other in (*published, *sharing(name, label, installed(directory))):
        if other != name:
            raise UsageError(
                f"The name {name} would be confused with {other}: both are seg-{label} in file "
                "names. Choose another name."
            )


def _check_exists(source: Path) -> None:
    try:
        exists = source.exists() or source.with_name(f"{source.name}.index").is_file()
    except OSError as error:
        raise ModelError(f"{source}: cannot be read ({reason(error)}).") from None
    if not exists:
        beside = sorted(source.parent.glob("*.index"))
        hint = f"Did you mean {beside[0]}?" if beside else "Give a model's folder or archive."
        raise ModelError(f"{source}: no such file or folder. {hint}")


def _check_kind(
    source: Path, kind: tuple[str, str], published: str, directory: Path | None
) -> None:
    """Refuse files that cannot be the published model, judging by their engine and mode."""
    kinds = {name: (entry["engine"], entry["mode"]) for name, entry in registry().items()}
    wanted = kinds.get(published, kind)
    if kind == wanted:
        return
    where = shlex.quote(str(source))
    problem = f"{source}: {published} is {_KINDS[wanted]}, but this looks like {_KINDS[kind]}."
    for name, other in kinds.items():
        if kind == other and kind[0] in IMPORTED:
            words = f"{name} {where} {install_options(directory)}"
            raise ModelError(f"{problem} Install it with `brainstem-models import {words}`.")
    root = shlex.quote(str(models_dir(directory)))
    raise ModelError(
        f"{problem} A model of your own, such as one fine-tuned from {published}, needs a name of "
        f"its own: `brainstem-models import NAME {where} --models-dir {root}`."
    )


def _intact_model(target: Path) -> Model | None:
    """Read the installed model; None if it is not installed or has damaged files."""
    if (model := existing_model(target)) is None or find_corrupt_files(model):
        return None
    check_unlisted(model)
    return model


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock, after waiting for any other process to release it."""
    waiting = False
    while True:
        with lock(path) as acquired:
            if acquired:
                yield
                return
        if not waiting:
            print("Another process is fetching this model: waiting for it.", file=sys.stderr)
            waiting = True
        time.sleep(_SECONDS_BETWEEN_CHECKS)
