"""Write small nnU-Net v2 models whose answers are known or sharply decided, for the tests.

Three kinds: random networks with far-apart logits, networks that sort voxels into bands of
intensity, and a cascade of two of the latter with the labels of the open model. Run as a script it
writes the cascade: ``python make_fixture_model.py FOLDER``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

LAYERS = ("conv_op", "norm_op", "dropout_op", "nonlin")
LOCATOR_LABELS = ("background", "brainstem", "rest")
SEGMENTER_LABELS = ("background", "midbrain", "pons", "medulla", "cord")
PARTS_LABELS = (
    "background", "tegmentum", "pons", "medulla", "cord", "tectum", "scp", "mcp", "icp",
)  # fmt: skip


def write_random_model(
    folder: Path,
    *,
    seed: int = 0,
    folds: int = 2,
    labels: Sequence[str] = ("background", "midbrain", "pons", "medulla"),
    patch_size: Sequence[int] = (32, 40, 32),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    features: Sequence[int] = (4, 8, 16),
    mirror_axes: Sequence[int] | None = (0, 1, 2),
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model of random networks whose classes are far apart at most voxels.

    Parameters
    ----------
    folder : Path
        Made if need be.
    seed : int
        Of the weights.
    folds : int
        Networks to write.
    labels : sequence of str
        Background first.
    patch_size, spacing : sequence
        Of the network, in (z, y, x) order; spacing in mm.
    features : sequence of int
        Channels of each stage.
    mirror_axes : sequence of int or None
        Allowed at inference.
    changes : mapping, optional
        Entries of the plans' configuration, and ``transpose_forward``, to be put in place of the
        usual ones.

    Returns
    -------
    Path
        `folder`.
    """
    architecture = _architecture(features, norm="torch.nn.modules.instancenorm.InstanceNorm3d")
    networks = []
    for fold in range(folds):
        torch.manual_seed(1000 * seed + fold)
        network = _build(architecture, len(labels))
        with torch.no_grad():
            network.decoder.seg_layers[-1].weight *= 20
        networks.append(network.state_dict())
    return _write(folder, networks, architecture, labels, patch_size, spacing, mirror_axes, changes)


def write_band_model(
    folder: Path,
    bands: Sequence[tuple[str, float]],
    *,
    patch_size: Sequence[int],
    spacing: Sequence[float],
    mirror_axes: Sequence[int] | None = None,
) -> Path:
    """Write a model that sorts voxels by intensity.

    Parameters
    ----------
    folder : Path
        Made if need be.
    bands : sequence of (name, intensity)
        A label and the intensity of its voxels, background first; none below 0. A voxel gets the
        label whose intensity is nearest.
    patch_size, spacing, mirror_axes
        As for a random model.

    Returns
    -------
    Path
        `folder`.
    """
    architecture = _architecture((2, 2), norm=None)
    network = _build(architecture, len(bands))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        # The centre of each kernel hands the intensity on, by way of the skip connection, which
        # comes second in the decoder's input; rectifiers leave positive values alone.
        blocks = [(b.conv, 0) for b in network.encoder.stages[0][0].convs]
        decoder = network.decoder.stages[-1].convs
        blocks += [(decoder[0].conv, 2), (decoder[1].conv, 0)]
        for conv, channel in blocks:
            conv.weight[0, channel, 1, 1, 1] = 1
        # Lines of rising slope; neighbours cross half way between their intensities.
        last = network.decoder.seg_layers[-1]
        for k, (_, intensity) in enumerate(bands):
            last.weight[k, 0] = 40 * intensity
            last.bias[k] = -20 * intensity**2
    changes = {
        "normalization_schemes": ["NoNormalization"],
        "resampling_fn_data_kwargs": _resampling(order=1),
    }
    names = [name for name, _ in bands]
    return _write(
        folder,
        [network.state_dict()],
        architecture,
        names,
        patch_size,
        spacing,
        mirror_axes,
        changes,
    )


def write_cascade(folder: Path, *, parts: bool = False) -> Path:
    """Write a cascade with the grids and labels of the open model.

    Its locator takes voxels near intensity 2 for the brainstem and voxels near 1 for the rest of
    the inside of the skull; its segmenter takes 1.6 for midbrain, 2 for pons, 2.4 for medulla, 2.8
    for cord and 1 or less for background. With `parts` it has the classes of version 2, in their
    order: 1.6 is tegmentum, 1.8 tectum, 3.2 superior and 3.6 middle peduncle, 4 inferior one.
    """
    locator = dict(zip(LOCATOR_LABELS, (0.0, 2.0, 1.0), strict=True))
    segmenter = dict(zip(SEGMENTER_LABELS, (1.0, 1.6, 2.0, 2.4, 2.8), strict=True))
    if parts:
        segmenter = dict(
            zip(PARTS_LABELS, (1.0, 1.6, 2.0, 2.4, 2.8, 1.8, 3.2, 3.6, 4.0), strict=True)
        )
    write_band_model(
        folder / "locator", list(locator.items()), patch_size=(64,) * 3, spacing=(4.0,) * 3
    )
    write_band_model(
        folder / "segmenter",
        list(segmenter.items()),
        patch_size=(96,) * 3,
        spacing=(1.0,) * 3,
        mirror_axes=(2,),
    )
    return folder


def _architecture(features: Sequence[int], *, norm: str | None) -> dict[str, Any]:
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": norm,
            "norm_op_kwargs": {"eps": 1e-05, "affine": True} if norm else None,
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": list(LAYERS),
    }


def _build(architecture: Mapping[str, Any], classes: int) -> Any:  # layers are reached by name
    arguments = dict(architecture["arch_kwargs"])
    arguments["conv_op"] = torch.nn.Conv3d
    arguments["norm_op"] = torch.nn.InstanceNorm3d if arguments["norm_op"] else None
    arguments["nonlin"] = torch.nn.LeakyReLU
    return PlainConvUNet(1, num_classes=classes, **arguments)


def _resampling(*, order: int) -> dict[str, Any]:
    return {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}


def _write(
    folder: Path,
    networks: Sequence[Mapping[str, Tensor]],
    architecture: Mapping[str, Any],
    labels: Sequence[str],
    patch_size: Sequence[int],
    spacing: Sequence[float],
    mirror_axes: Sequence[int] | None,
    changes: Mapping[str, Any] | None,
) -> Path:
    configuration: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "median_image_size_in_voxels": list(patch_size),
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": architecture,
    }
    for kind, order, is_seg in (("data", 3, False), ("seg", 1, True), ("probabilities", 1, False)):
        configuration[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{kind}_kwargs"] = _resampling(order=order) | {
            "is_seg": is_seg
        }
    changes = dict(changes or {})
    forward = changes.pop("transpose_forward", [0, 1, 2])
    configuration |= changes
    plans = {
        "dataset_name": "Dataset900_Fixture",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": list(patch_size),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": forward,
        "transpose_backward": [forward.index(axis) for axis in range(3)],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0, "std": 1.0}},
    }
    dataset = {
        "channel_names": {"0": "T1w"},
        "labels": {name: value for value, name in enumerate(labels)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=1), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1), encoding="utf-8")
    for fold, weights in enumerate(networks):
        place = folder / f"fold_{fold}"
        place.mkdir(exist_ok=True)
        checkpoint = {
            "network_weights": weights,
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres", "fold": fold},
            "inference_allowed_mirroring_axes": None if mirror_axes is None else tuple(mirror_axes),
        }
        torch.save(checkpoint, place / "checkpoint_final.pth")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    write_cascade(parser.parse_args().folder)
