"""Import of nnU-Net v1 models, such as the published one of MARS-brainstem.

A model comes as a folder or as an archive with that folder somewhere inside. It becomes an nnU-Net
v2 model folder with a manifest, to be run in the engine's mode ``v1``; nnU-Net v2 itself can load
it to train on. Nothing is written unless all of it can be.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bids_app.engines.nnunet.plans import read_plans
from bids_app.engines.nnunet.postprocessing import POSTPROCESSING, steps_text
from bids_app.engines.nnunet.weights import CHECKPOINT, fill, load, save
from bids_app.errors import ModelError
from bids_app.io.files import owned_name
from bids_app.models.importers.nnunet_v1 import convert as convert_v1
from bids_app.models.importers.nnunet_v1.unpack import unpack
from bids_app.models.importers.nnunet_v1.unpickle import read_pickle
from bids_app.models.importers.nnunet_v2 import trained_folds
from bids_app.models.manifest import Model, describe_file, list_files
from bids_app.models.place import put_in_place
from bids_app.regions import PARTS, region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PLANS = "plans.pkl"
WEIGHTS = "model_final_checkpoint.model"
UNFINISHED = "model_best.model.pkl"  # all that there is while a fold is being trained
# Files of a model, wherever its folder lies; whatever else an archive holds stays there.
WANTED = re.compile(
    r"(?:.*/)?(?:plans\.pkl|postprocessing\.json|"
    rf"fold_\d+/(?:{re.escape(WEIGHTS)}(?:\.pkl)?|{re.escape(UNFINISHED)})?)"
)
MIRROR_AXES = (0, 1, 2)  # nnUNetTrainerV2 mirrors along all three


def is_v1(source: Path) -> bool:
    """Tell whether a path may hold an nnU-Net v1 model: an archive, or a folder with plans."""
    return source.is_file() or any(source.rglob(PLANS))


def import_v1(
    source: Path,
    target: Path,
    *,
    name: str,
    label: str,
    licence: str,
    citation: str,
    doi: str = "",
    labels: Sequence[str] = PARTS,
) -> Model:
    """Install an nnU-Net v1 model.

    Parameters
    ----------
    source : Path
        A folder or tar archive that holds one model: ``plans.pkl`` and ``fold_*``.
    target : Path
        Model folder to make.
    name, label, licence, citation, doi : str
        For the manifest.
    labels : sequence of str
        Names of the classes 1, 2, ..., which nnU-Net v1 does not store.

    Returns
    -------
    Model
        The installed model, verified. Importing the same files again changes nothing.

    Raises
    ------
    ModelError
        The source is damaged, unsafe, or not to be reproduced exactly; or another model is there.
    """

    def make(made: Path) -> Model:
        with _folder(source, target) as folder:
            convert(folder, made, labels)
        return Model(
            folder=made,
            name=name,
            label=label,
            version="1",
            engine="nnunet",
            averaging="softmax",
            mode="v1",
            licence=licence,
            citation=citation,
            doi=doi,
            regions=tuple(region(value, text) for value, text in enumerate(labels, start=1)),
            files=list_files(made),
            sources=(describe_file(source, source.name),) if source.is_file() else (),
        )

    return put_in_place(target, make)


def convert(source: Path, folder: Path, labels: Sequence[str] = PARTS) -> None:
    """Write the nnU-Net v2 model folder of an nnU-Net v1 model.

    Parameters
    ----------
    source : Path
        Holds ``plans.pkl`` and ``fold_*``.
    folder : Path
        Made here.
    labels : sequence of str
        Names of the classes 1, 2, ...

    Raises
    ------
    ModelError
        The source is damaged, unsafe, or not to be reproduced exactly.
    """
    try:
        _convert(source, folder, labels)
    except (ModelError, OSError):
        raise
    except Exception as error:  # whole pickles of wrong content raise almost anything
        raise ModelError(
            f"The model is damaged, or no nnU-Net v1 model ({error!r}). Get the files again."
        ) from error


def _convert(source: Path, folder: Path, labels: Sequence[str]) -> None:
    v1 = read_pickle(source / PLANS)
    trained = trained_folds(source, (WEIGHTS, f"{WEIGHTS}.pkl"), UNFINISHED)
    folds = [fold / WEIGHTS for fold in trained]
    facts = [read_pickle(path.with_name(f"{WEIGHTS}.pkl")) for path in folds]
    trainers = {fact["name"] for fact in facts}
    convert_v1.refuse_unless(trainers == {convert_v1.TRAINER}, f"its trainer is {min(trainers)}")
    stages = {int(fact["init"][5]) for fact in facts}
    plans = [convert_v1.convert_plans(v1, stage) for stage in stages]
    # nnU-Net v1 runs by the plans that each fold carries.
    plans += [convert_v1.convert_plans(fact.get("plans", v1), max(stages)) for fact in facts]
    convert_v1.refuse_unless(
        all(other == plans[0] for other in plans), "its folds were trained with different plans"
    )
    if (classes := int(v1["num_classes"])) != len(labels):
        raise ModelError(
            f"This nnU-Net v1 model has {classes} classes; of v1, models of the {len(labels)} "
            f"classes {', '.join(labels)} can be used."
        )

    folder.mkdir(parents=True)
    dataset = {
        "channel_names": {"0": "T1w"},
        "labels": {"background": 0} | {text: i for i, text in enumerate(labels, start=1)},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    _write_json(folder / "plans.json", plans[0])
    _write_json(folder / "dataset.json", dataset)
    if (source / POSTPROCESSING).exists():
        content = json.loads((source / POSTPROCESSING).read_text(encoding="utf-8"))
        steps = convert_v1.convert_postprocessing(content)
        (folder / POSTPROCESSING).write_text(steps_text(steps), encoding="utf-8")
    (configuration,) = plans[0]["configurations"]
    for path in folds:
        _convert_fold(path, folder, configuration)


def _convert_fold(path: Path, folder: Path, configuration: str) -> None:
    _check_sums(path)
    network = read_plans(folder, configuration).network()
    plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    arguments = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
    try:
        content = load(path)
    except ModelError as error:  # which speaks of an installed model, in a place that will go
        raise ModelError(
            f"{path.parent.name}/{path.name}: damaged, or it holds more than weights, which is "
            "never loaded. Get the files again."
        ) from error
    weights = convert_v1.convert_weights(
        content["state_dict"], network.state_dict(), arguments["n_conv_per_stage"][0]
    )
    fill(network, weights)
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise ValueError(f"{path.parent.name}: weights that are no numbers")
    checkpoint = {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": configuration, "fold": path.parent.name[len("fold_") :]},
        "inference_allowed_mirroring_axes": MIRROR_AXES,
    }
    place = folder / path.parent.name / CHECKPOINT
    place.parent.mkdir()
    save(checkpoint, place)


def _check_sums(path: Path) -> None:
    """Compare the checksums of a zip file, which torch passes over."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile  # noqa: TRY301
    except Exception as error:  # a damaged archive raises almost anything
        raise ModelError(
            f"{path.parent.name}/{path.name}: damaged. Get the files again."
        ) from error


@contextmanager
def _folder(source: Path, target: Path) -> Iterator[Path]:
    """Find the folder of the model, unpacked beside the target if need be."""
    if source.is_dir():
        yield _only_model(source, source.name)
        return
    unpacked = target.with_name(owned_name(f"{target.name}-unpacked"))
    try:
        unpack(source, unpacked, WANTED)
        yield _only_model(unpacked, source.name)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _only_model(root: Path, name: str) -> Path:
    folders = sorted(path.parent for path in root.rglob(PLANS))
    found = [folder for folder in folders if any(folder.glob(f"fold_*/{WEIGHTS}"))]
    found = found or [folder for folder in folders if any(folder.glob("fold_*"))]
    if len(found) != 1:
        raise ModelError(
            f"{name}: {len(found) or 'no'} nnU-Net v1 models in it; one is needed, "
            f"a folder with {PLANS} and fold_0/{WEIGHTS}."
        )
    return found[0]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
