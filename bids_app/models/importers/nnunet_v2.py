"""Import of nnU-Net v2 models, from the folder that training leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bids_app.errors import ModelError, reason
from bids_app.io.tables import load_json
from bids_app.models.manifest import MANIFEST, list_files
from bids_app.regions import region

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bids_app.models.manifest import Model

_NETWORK_FILES = ("plans.json", "dataset.json", "fold_*/checkpoint_final.pth")


def check_trained(source: Path) -> None:
    """Check that a folder holds a trained model.

    Raises
    ------
    ModelError
        It lacks ``plans.json``, ``dataset.json`` or ``fold_*/checkpoint_final.pth``.
    """
    if (source / _NETWORK_FILES[0]).is_file():
        trained_folds(source, ("checkpoint_final.pth",), "checkpoint_best.pth")
    if not all(list(source.glob(pattern)) for pattern in _NETWORK_FILES):
        raise ModelError(
            f"{source}: not a model. There is neither a {MANIFEST}, nor the files of an nnU-Net v2 "
            f"model ({', '.join(_NETWORK_FILES)}), nor an nnU-Net v1 model (plans.pkl), "
            "nor a TensorFlow checkpoint of MD-GRU (*.index, *.data-*)."
        )


def describe_trained(source: Path, template: Model) -> Model:
    """Describe a trained model by the files that inference needs.

    Parameters
    ----------
    source : Path
        See `check_trained`.
    template : Model
        Name, label, licence and citation.

    Raises
    ------
    ModelError
        ``dataset.json`` cannot be read, or the model has several input channels or region labels.
    """
    files = [file for pattern in _NETWORK_FILES for file in list_files(source, pattern)]
    regions = tuple(region(value, text) for value, text in _read_labels(source))
    return replace(template, averaging="logits", regions=regions, files=tuple(files))


def trained_folds(folder: Path, needed: Sequence[str], unfinished: str) -> list[Path]:
    """Find the folds of a model, and check that each is complete.

    Parameters
    ----------
    folder : Path
        Holds a folder ``fold_*`` for each fold, as training leaves it.
    needed : sequence of str
        Files of a trained fold.
    unfinished : str
        A file that is present while a fold is being trained.

    Returns
    -------
    list of Path
        Folders of the folds, sorted.

    Raises
    ------
    ModelError
        A file is missing.
    """
    folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    for fold in folds:
        if missing := [name for name in needed if not (fold / name).is_file()]:
            training = len(missing) == len(needed) and (fold / unfinished).is_file()
            hint = f" Its training was not finished: there is only {unfinished}." * training
            raise ModelError(
                f"{fold.name} lacks {' and '.join(missing)}.{hint} "
                "Get the files again, or import the model without this fold."
            )
    return folds


def _read_labels(source: Path) -> list[tuple[int, str]]:
    path = source / "dataset.json"
    try:
        content = load_json(path)
        labels = [(v, str(text)) for text, v in content["labels"].items() if text != "background"]
        channels = content["channel_names"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{path}: not a dataset.json of nnU-Net ({reason(error)}).") from None
    if len(channels) != 1 or not all(isinstance(v, int) and 0 < v < 256 for v, _ in labels):
        raise ModelError(
            f"{path}: only models with one T1w channel and plain labels are supported."
        )
    return sorted(labels)
