"""Import of nnU-Net v1 models, such as the published one of MARS-brainstem.

A model is a folder, or an archive that contains this folder. It is converted to an nnU-Net v2 model
folder, which the engine runs in mode ``v1`` and nnU-Net v2 can fine-tune. Nothing is written unless
all of it can be converted.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bids_app.engines.nnunet.plans import read_plans
from bids_app.engines.nnunet.postprocessing import POSTPROCESSING, steps_text
from bids_app.engines.nnunet.weights import CHECKPOINT, fill
from bids_app.engines.torch_files import load, save
from bids_app.errors import ModelError
from bids_app.io.files import owned_name, write_new
from bids_app.io.tables import load_json
from bids_app.models.importers.nnunet_v1 import convert as convert_v1
from bids_app.models.importers.nnunet_v1.unpack import unpack
from bids_app.models.importers.nnunet_v1.unpickle import read_pickle
from bids_app.models.importers.nnunet_v2 import trained_folds
from bids_app.models.manifest import describe_file, list_files
from bids_app.regions import PARTS, region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bids_app.models.manifest import Model

PLANS = "plans.pkl"
WEIGHTS = "model_final_checkpoint.model"
UNFINISHED = "model_best.model.pkl"  # the only checkpoint while a fold is being trained
# Files of a model, anywhere in an archive; other files are not unpacked.
WANTED = re.compile(
    r"(?:.*/)?(?:plans\.pkl|postprocessing\.json|"
    rf"fold_\d+/(?:{re.escape(WEIGHTS)}(?:\.pkl)?|{re.escape(UNFINISHED)})?)"
)
MIRROR_AXES = (0, 1, 2)  # nnUNetTrainerV2 mirrors along all three


def is_v1(source: Path) -> bool:
    """Whether a path may be an nnU-Net v1 model: an archive, or a folder with plans."""
    return source.is_file() or any(source.rglob(PLANS))


def import_v1(source: Path, folder: Path, template: Model) -> Model:
    """Convert an nnU-Net v1 model to a model folder without a manifest, and describe it.

    nnU-Net v1 stores no label names: the classes are taken to be midbrain, pons and medulla.

    Parameters
    ----------
    source : Path
        A folder or tar archive that holds one model: ``plans.pkl`` and ``fold_*``.
    folder : Path
        Created here.
    template : Model
        Name, label, licence and citation, and the folder that the model will have.

    Raises
    ------
    ModelError
        The source is damaged or unsafe, or cannot be reproduced exactly.
    """
    with _model_folder(source, template.folder) as found:
        convert(found, folder)
    return replace(
        template,
        averaging="softmax",
        regions=tuple(region(value, text) for value, text in enumerate(PARTS, start=1)),
        files=list_files(folder),
        sources=(describe_file(source, source.name),) if source.is_file() else (),
    )


def convert(source: Path, folder: Path) -> None:
    """Convert an nnU-Net v1 model to an nnU-Net v2 model folder.

    Parameters
    ----------
    source : Path
        Holds ``plans.pkl`` and ``fold_*``.
    folder : Path
        Created here.

    Raises
    ------
    ModelError
        The source is damaged or unsafe, or cannot be reproduced exactly.
    """
    try:
        _convert(source, folder)
    except (ModelError, OSError):
        raise
    except Exception as error:  # an intact pickle with wrong content raises almost anything
        raise ModelError(
            f"The model is damaged, or not an nnU-Net v1 model ({error!r}). Get the files again."
        ) from error


def _convert(source: Path, folder: Path) -> None:
    v1 = read_pickle(source / PLANS)
    trained = trained_folds(source, (WEIGHTS, f"{WEIGHTS}.pkl"), UNFINISHED)
    folds = [fold / WEIGHTS for fold in trained]
    facts = [read_pickle(path.with_name(f"{WEIGHTS}.pkl")) for path in folds]
    trainers = {fact["name"] for fact in facts}
    convert_v1.refuse_unless(trainers == {convert_v1.TRAINER}, f"its trainer is {min(trainers)}")
    stages = {int(fact["init"][5]) for fact in facts}
    plans = [convert_v1.convert_plans(v1, stage) for stage in stages]
    # nnU-Net v1 uses the plans stored with each fold.
    plans += [convert_v1.convert_plans(fact.get("plans", v1), max(stages)) for fact in facts]
    convert_v1.refuse_unless(
        all(other == plans[0] for other in plans), "its folds were trained with different plans"
    )
    if (classes := int(v1["num_classes"])) != len(PARTS):
        raise ModelError(
            f"This nnU-Net v1 model has {classes} classes. Only nnU-Net v1 models of the "
            f"{len(PARTS)} classes {', '.join(PARTS)} are supported."
        )

    folder.mkdir(parents=True)
    dataset = {
        "channel_names": {"0": "T1w"},
        "labels": {"background": 0} | {text: i for i, text in enumerate(PARTS, start=1)},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    _write_json(folder / "plans.json", plans[0])
    _write_json(folder / "dataset.json", dataset)
    if (source / POSTPROCESSING).exists():
        content = load_json(source / POSTPROCESSING)
        steps = convert_v1.convert_postprocessing(content)
        write_new(folder / POSTPROCESSING, steps_text(steps).encode())
    (configuration,) = plans[0]["configurations"]
    for path in folds:
        _convert_fold(path, folder, configuration)


def _convert_fold(path: Path, folder: Path, configuration: str) -> None:
    _check_sums(path)
    network = read_plans(folder, configuration).network()
    plans = load_json(folder / "plans.json")
    arguments = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
    try:
        content = load(path)
    except ModelError as error:  # whose message is about an installed model
        raise ModelError(
            f"{path.parent.name}/{path.name}: damaged, or contains more than weights, which is "
            "never loaded. Get the files again."
        ) from error
    weights = convert_v1.convert_weights(
        content["state_dict"], network.state_dict(), arguments["n_conv_per_stage"][0]
    )
    fill(network, weights)
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise ValueError(f"{path.parent.name}: weights that are not finite")
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
    """Check the checksums of a zip file, which torch ignores."""
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
def _model_folder(source: Path, target: Path) -> Iterator[Path]:
    """Find the folder of the model, after unpacking an archive beside the target."""
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
            f"{name}: {len(found) or 'no'} nnU-Net v1 models in it; one is needed: "
            f"a folder with {PLANS} and fold_0/{WEIGHTS}."
        )
    return found[0]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_new(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
