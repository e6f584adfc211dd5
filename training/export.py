"""Turn checkpoints of a run into a model folder: nnU-Net v2 models and their manifest.

``python -m training.export FOLDER --name NAME --locator RUN --segmenter RUN [RUN ...]``

Several runs of a network become the folds of an ensemble. In the place of a run may stand what was
exported before: a network's folder, or a file of its weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bids_app.cli.options import guarded
from bids_app.errors import UsageError
from bids_app.models.install import check_label
from bids_app.models.manifest import MANIFEST, NOT_STATED, Model, list_files, manifest_text
from bids_app.models.store import DEFAULT, NAME, default_label
from bids_app.regions import PART_NAMES, region
from training.networks import LOOKS, REGIONS, architecture
from training.weights import look_of, read_exported, read_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.networks import Look

LEFT_RIGHT = (2,)  # the x axis of (z, y, x): the only mirroring under which a brain keeps its shape
VERSION = "2.0.0"
MOST_LETTERS = 64  # of a name: it becomes a part of file names
CITATION = (
    "The brainstem BIDS App developers, 2026. Open brainstem model 2. Learned from SynthSeg's "
    "label maps (Billot et al. 2023, doi 10.1016/j.media.2023.102789), OpenNeuro ds000011 and "
    "ds002748, open_ms_data (Lesjak et al. 2016, doi 10.1007/s12021-016-9301-1), test images of "
    "niivue, and the Allen Human Reference Atlas (Ding et al. 2016, doi 10.1002/cne.24080)."
)


def plans_of(look: Look) -> dict[str, Any]:
    """Return the nnU-Net v2 plans of a network: arrays in (z, y, x) order of a RAS image."""
    size, spacing = [look.size] * 3, [look.spacing] * 3
    smooth = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": f"Dataset001_{look.name}",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": size,
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        # nnU-Net's own preprocessor looks for the channel, though a z-score uses nothing of it.
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 1,
                "patch_size": size,
                "median_image_size_in_voxels": size,
                "spacing": spacing,
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": smooth,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**smooth, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {**smooth, "order": 1},
                "architecture": architecture(look.features),
                "batch_dice": False,
            }
        },
    }


def export_network(look: Look, runs: Sequence[Path], folder: Path, *, mean: bool = False) -> None:
    """Write one nnU-Net v2 model folder from the averaged weights of runs, stored as float16.

    Parameters
    ----------
    look : Look
        Which network.
    runs : sequence of Path
        Folders of the runs, with ``checkpoint.pth``; each becomes a fold.
    folder : Path
        Where ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_final.pth`` go.
    mean : bool
        Make one network of the mean weights of the runs instead (Wortsman et al. 2022,
        https://proceedings.mlr.press/v162/wortsman22a.html); they must have started from one.

    Raises
    ------
    ModelError, UsageError
        As `read_runs`.
    """
    write_network(*read_runs(look, runs), folder, mean=mean)


def write_network(
    look: Look, averages: Sequence[dict[str, torch.Tensor]], folder: Path, *, mean: bool
) -> None:
    """Write what `export_network` does, from weights that are read."""
    checkpoints = [_checkpoint(weights) for weights in ([_mean(averages)] if mean else averages)]
    folder.mkdir(parents=True, exist_ok=True)
    dataset = {
        "channel_names": {"0": "T1w"},
        "labels": {name: index for index, name in enumerate(look.classes)},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    (folder / "plans.json").write_text(json.dumps(plans_of(look), indent=1) + "\n")
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
    for earlier in folder.glob("fold_*"):
        shutil.rmtree(earlier)  # else a fold of an earlier export would join the ensemble
    for fold, checkpoint in enumerate(checkpoints):
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")


def read_runs(look: Look, runs: Sequence[Path]) -> tuple[Look, list[dict[str, torch.Tensor]]]:
    """Read the averaged weights of the runs of one network, and the look with their channels.

    Raises
    ------
    ModelError
        When a run has no checkpoint.
    UsageError
        When a run is of another network, or two have different channels.
    """
    averages = [_read(run) for run in runs]
    looks = {look_of(look, own, run) for own, run in zip(averages, runs, strict=True)}
    if len(looks) > 1:
        channels = " and ".join(sorted(",".join(map(str, each.features)) for each in looks))
        raise UsageError(f"Runs of one {look.name} need the same channels; these have {channels}.")
    return looks.pop(), averages


def _read(run: Path) -> dict[str, torch.Tensor]:
    """Read the averaged weights of a run, or those of an exported network."""
    exported = run / "fold_0" / "checkpoint_final.pth"
    if run.is_file() or exported.is_file():
        return read_exported(run if run.is_file() else exported)
    average: dict[str, torch.Tensor] = read_run(run)["average"]
    return average


def _mean(averages: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Give the mean of several networks' weights; tensors that are shared stay so."""
    means: dict[int, torch.Tensor] = {}
    return {
        name: means.setdefault(
            tensor.data_ptr(), torch.stack([weights[name].double() for weights in averages]).mean(0)
        )
        for name, tensor in averages[0].items()
    }


def _checkpoint(average: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Make nnU-Net's checkpoint of a network's weights."""
    # The decoder holds the encoder once more under another name: the same tensors stay shared.
    halves: dict[int, torch.Tensor] = {}
    weights = {}
    for name, tensor in average.items():
        weights[name] = halves.setdefault(tensor.data_ptr(), tensor.half())
    return {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": LEFT_RIGHT,
    }


def write_manifest(folder: Path, name: str) -> None:
    """Write ``model.toml``: what the model is, its parts, and size and SHA-256 of its files.

    Only the one named `DEFAULT` is the open model, with its version, licence and citation.
    """
    ours = name == DEFAULT
    model = Model(
        folder=folder,
        name=name,
        label="open2" if ours else default_label(name),
        version=VERSION if ours else "1",
        engine="cascade",
        averaging="softmax",
        mode="v2",
        licence="CC-BY-4.0" if ours else NOT_STATED,
        citation=CITATION if ours else "",
        doi="",
        regions=tuple(region(i, name) for i, name in enumerate(REGIONS, start=1)),
        files=list_files(folder),
        parts=tuple(name for name in PART_NAMES if name in LOOKS["segmenter"].classes),
    )
    (folder / MANIFEST).write_text(manifest_text(model), encoding="utf-8")


def main() -> int:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description="Make a model folder from two runs.")
    parser.add_argument("folder", type=Path, help="the model folder to write")
    parser.add_argument(
        "--name",
        type=_name,
        required=True,
        help="what to call it, also in the names of its maps (seg-NAME); `open` is for releases of "
        "the open model",
    )
    for name in LOOKS:
        parser.add_argument(
            f"--{name}", type=Path, required=True, nargs="+", help="its runs, or exports"
        )
    parser.add_argument(
        "--mean",
        action="store_true",
        help="one network of several runs' mean weights, no ensemble: of runs that began with the "
        "same weights",
    )
    arguments = parser.parse_args()
    if arguments.name != DEFAULT:
        check_label(arguments.name, default_label(arguments.name), None)
    _check_folder(arguments.folder)
    # All are read first, so that nothing is written where one is amiss.
    read = {name: read_runs(look, getattr(arguments, name)) for name, look in LOOKS.items()}
    for name, (look, averages) in read.items():
        write_network(look, averages, arguments.folder / name, mean=arguments.mean)
    write_manifest(arguments.folder, arguments.name)
    return 0


def _check_folder(folder: Path) -> None:
    """Refuse a folder of other things: all that lies there would be listed as the model's."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or there - {*LOOKS, MANIFEST, "MODEL_CARD.md"}:
        raise UsageError(f"{folder} is no model folder. Name a new one, or that of a model.")


def _name(text: str) -> str:
    if not NAME.fullmatch(text) or len(text) > MOST_LETTERS:
        raise argparse.ArgumentTypeError(f"up to {MOST_LETTERS} letters, digits, . _ - make a name")
    return text


if __name__ == "__main__":
    raise SystemExit(guarded(main))
