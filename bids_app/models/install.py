"""Installing models: a folder of models, and new folders put there whole or not at all."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bids_app.errors import ModelError, UsageError, reason
from bids_app.models.place import put_in_place, trained_folds
from bids_app.models.store import (
    IMPORTED,
    MANIFEST,
    NAME,
    NOT_STATED,
    PACKAGED,
    Model,
    install_options,
    installed,
    label_of,
    list_files,
    models_dir,
    read_manifest,
    registry,
    sharing,
    verify,
)
from bids_app.regions import region

if TYPE_CHECKING:
    from pathlib import Path

_NETWORK_FILES = ("plans.json", "dataset.json", "fold_*/checkpoint_final.pth")
_KINDS = {  # by engine and mode
    ("cascade", "v2"): "a pair of networks as the packaged model",
    ("nnunet", "v1"): "an nnU-Net v1 model",
    ("nnunet", "v2"): "an nnU-Net v2 model",
    ("mdgru", "v2"): "a TensorFlow checkpoint of MD-GRU",
}


@dataclass(frozen=True)
class Credits:
    """Whose a model is, for the manifest of one that has none yet."""

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
        A model folder with a manifest; or, for which a manifest is made, a folder that nnU-Net v2
        trained (``plans.json``, ``dataset.json``, ``fold_*/checkpoint_final.pth``), an nnU-Net
        v1 model as a folder or archive, or a TensorFlow checkpoint of MD-GRU.
    name : str
        Name to install it under.
    directory : Path or None
        Folder of models; see `models_dir`.
    credits_ : Credits
        For a manifest that is made.
    published : str
        The model of the registry that the source is said to be, if any.

    Returns
    -------
    Model
        The installed model, verified. Installing the same files again mends what is damaged of
        them, adds what was not known of them, and changes nothing else.

    Raises
    ------
    ModelError
        The source is no model or of another kind than the published one that it is said or named
        to be, or another model of this name is there.
    OutputError
        The folder of models cannot be written.
    UsageError
        No folder of models is named, or the name cannot be used.
    """
    target = target_folder(name, directory)
    published = published or (name if name in registry() else "")
    try:
        there = source.exists() or source.with_name(f"{source.name}.index").is_file()
    except OSError as error:
        raise ModelError(f"{source}: cannot be read ({reason(error)}).") from None
    if not there:
        beside = sorted(source.parent.glob("*.index"))
        hint = f"Is it {beside[0]}?" if beside else "Name a model's folder or archive."
        raise ModelError(f"{source}: no such file or folder. {hint}")
    if not (source / MANIFEST).is_file():
        from bids_app.models.importers.mdgru.importer import import_checkpoint, is_checkpoint
        from bids_app.models.importers.nnunet_v1.importer import import_v1, is_v1  # brings torch

        if is_checkpoint(source):
            _check_kind(source, ("mdgru", "v2"), published, directory)
            label = check_label(name, label_of(name), directory)
            return import_checkpoint(source, target, name=name, label=label, **asdict(credits_))
        if is_v1(source):
            _check_kind(source, ("nnunet", "v1"), published, directory)
            label = check_label(name, label_of(name), directory)
            return import_v1(source, target, name=name, label=label, **asdict(credits_))
    described = _described(source, name, credits_)
    _check_kind(source, (described.engine, described.mode), published, directory)
    check_label(name, described.label, directory)

    def copy(made: Path) -> Model:
        for file in described.files:
            path = made / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file.path, path)
        verify(replace(described, folder=made))
        _check_plans(described, made)
        return described

    return put_in_place(target, copy)


def target_folder(name: str, directory: Path | None) -> Path:
    """Name the folder that a model is to be installed in.

    Raises
    ------
    UsageError
        No folder of models is named, or the name cannot be used.
    """
    root = models_dir(directory)
    if root is None:
        raise UsageError("Name a folder for models with --models-dir or BRAINSTEM_MODELS_DIR.")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"The name {name!r} cannot be used: a name has letters, digits, '-', '_' and '.' only, "
            "and begins with a letter or a digit."
        )
    if (PACKAGED / name / MANIFEST).exists():
        raise UsageError(f"The name {name} is the packaged model's. Choose another name.")
    return root / name


def _check_kind(
    source: Path, kind: tuple[str, str], published: str, directory: Path | None
) -> None:
    """Refuse what cannot be the published model, by the engine that it is for and its mode."""
    kinds = {name: (entry["engine"], entry["mode"]) for name, entry in registry().items()}
    wanted = kinds.get(published, kind)
    if kind == wanted:
        return
    where = shlex.quote(str(source))
    said = f"{source}: {published} is {_KINDS[wanted]}, and this looks like {_KINDS[kind]}."
    for name, other in kinds.items():
        if kind == other and kind[0] in IMPORTED:
            words = f"{name} {where} {install_options(directory)}"
            raise ModelError(f"{said} Install that with `brainstem-models import {words}`.")
    root = shlex.quote(str(models_dir(directory)))
    raise ModelError(
        f"{said} A model of your own, such as one trained on from {published}, needs a name of "
        f"its own: `brainstem-models import NAME {where} --models-dir {root}`."
    )


def _described(source: Path, name: str, credits_: Credits) -> Model:
    """Describe the model in a folder, under its new name and label."""
    if (source / MANIFEST).is_file():
        model = read_manifest(source)
        verify(model)
        if model.licence == NOT_STATED:
            model = replace(model, **asdict(credits_))
        return model if name == model.name else replace(model, name=name, label=label_of(name))
    if (source / _NETWORK_FILES[0]).is_file():
        trained_folds(source, ("checkpoint_final.pth",), "checkpoint_best.pth")
    if not all(list(source.glob(pattern)) for pattern in _NETWORK_FILES):
        raise ModelError(
            f"{source}: here is neither a {MANIFEST}, nor the files of an nnU-Net v2 model "
            f"({', '.join(_NETWORK_FILES)}), nor an nnU-Net v1 model (plans.pkl), "
            "nor a TensorFlow checkpoint of MD-GRU (*.index, *.data-*)."
        )
    files = [f for pattern in _NETWORK_FILES for f in list_files(source, pattern)]
    return Model(
        folder=source,
        name=name,
        label=label_of(name),
        version="1",
        engine="nnunet",
        averaging="logits",
        mode="v2",
        **asdict(credits_),
        regions=tuple(region(value, text) for value, text in _labels(source)),
        files=tuple(files),
    )


def _check_plans(model: Model, folder: Path) -> None:
    """Refuse plans that name anything but what nnU-Net's planners write."""
    if model.engine == "mdgru":
        return
    from bids_app.engines.nnunet.plans import check_plans  # brings torch

    for network in ("locator", "segmenter") if model.engine == "cascade" else (".",):
        check_plans(folder / network)


def check_label(name: str, label: str, directory: Path | None) -> str:
    """Give a label back, unless results would be taken for those of another model.

    Raises
    ------
    UsageError
        When another model, published or installed, has it.
    """
    published = [known for known, entry in registry().items() if entry["label"] == label.lower()]
    for other in (*published, *sharing(name, label, installed(directory))):
        if other != name:
            raise UsageError(
                f"The name {name} would be taken for {other}: both are seg-{label} in file names. "
                "Choose another name."
            )
    return label


def _labels(source: Path) -> list[tuple[int, str]]:
    path = source / "dataset.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        labels = {str(text): value for text, value in content["labels"].items()}
        channels = content["channel_names"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path}: cannot be read as nnU-Net writes it ({reason(error)})."
        ) from None
    values = [value for text, value in labels.items() if text != "background"]
    if len(channels) != 1 or not all(isinstance(v, int) and 0 < v < 256 for v in values):
        raise ModelError(f"{path}: models of one T1w channel with plain labels can be used.")
    return sorted((v, text) for text, v in labels.items() if text != "background")
