"""Conversion of nnU-Net v1 plans and weights to v2, with bit-identical results.

Follows nnunet 1.7.1: ``Generic_UNet`` as ``nnUNetTrainerV2`` builds it (convolutions with stride
for pooling, transposed convolutions, instance norm, leaky ReLU) is ``PlainConvUNet`` with other
names. Models that would give other results are refused.
"""

from __future__ import annotations

import ast
import math
import re
from typing import TYPE_CHECKING, Any

import torch

from bids_app.engines.nnunet.postprocessing import LargestComponent
from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

TRAINER = "nnUNetTrainerV2"
MOST_FEATURES = 320
CUBE = [3, 3, 3]
_V1_LISTS = {
    "encoder.stages": "conv_blocks_context",
    "decoder.stages": "conv_blocks_localization",
    "decoder.transpconvs": "tu",
    "decoder.seg_layers": "seg_outputs",
}


def convert_plans(v1: Mapping[str, Any], stage: int) -> dict[str, Any]:
    """Convert the plans of one stage.

    Parameters
    ----------
    v1 : mapping
        Content of ``plans.pkl``.
    stage : int
        0, or 1 for the full-resolution stage of two.

    Returns
    -------
    dict
        Content of ``plans.json``, with one configuration.

    Raises
    ------
    ModelError
        The result would differ with v2's network or this engine.
    Exception
        Of any kind, if the plans are damaged.
    """
    settings = v1["plans_per_stage"][stage]
    patch = [int(n) for n in settings["patch_size"]]
    spacing = [float(mm) for mm in settings["current_spacing"]]
    pools = [[int(n) for n in pool] for pool in settings["pool_op_kernel_sizes"]]
    kernels = [[int(n) for n in kernel] for kernel in settings["conv_kernel_sizes"]]
    forward = [int(axis) for axis in v1["transpose_forward"]]
    backward = [int(axis) for axis in v1["transpose_backward"]]
    convolutions = int(v1.get("conv_per_stage", 2))
    refuse_unless(len(patch) == 3, "its network is two-dimensional")
    refuse_unless(int(v1["num_modalities"]) == 1, "it needs several images per head")
    refuse_unless(all(k == CUBE for k in kernels), "it has kernels other than 3 x 3 x 3")
    refuse_unless(v1["normalization_schemes"][0] == "nonCT", "its intensities are not z-scored")
    refuse_unless(
        v1.get("preprocessor_name") in (None, "GenericPreprocessor"), "it has its own preprocessing"
    )
    refuse_unless(
        list(v1["all_classes"]) == list(range(1, int(v1["num_classes"]) + 1)),
        "its labels are regions, or not 1, 2, 3, ...",
    )
    whole = (
        len(spacing) == 3
        and all(0.05 < mm < 20 for mm in spacing)
        and all(len(pool) == 3 and all(1 <= n <= 4 for n in pool) for pool in pools)
        and 1 <= len(pools) == len(kernels) - 1 <= 8
        and all(
            0 < n <= 1024 and n % math.prod(steps) == 0
            for n, steps in zip(patch, zip(*pools, strict=True), strict=True)
        )
        and [forward[axis] for axis in backward] == sorted(forward) == [0, 1, 2]
        and 2 <= convolutions <= 8  # with fewer, v1 builds other stages than stated
        and 1 <= int(v1["base_num_features"]) <= 1024
    )
    if not whole:
        raise ValueError("patch, spacing, pooling or axes do not fit together")
    stages = len(kernels)
    lowres = len(v1["plans_per_stage"]) > 1 and stage == 0
    configuration = {
        "data_identifier": str(v1["data_identifier"]),
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": int(settings["batch_size"]),
        "patch_size": patch,
        "median_image_size_in_voxels": [
            float(n) for n in settings["median_patient_size_in_voxels"]
        ],
        "spacing": spacing,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [bool(v1["use_mask_for_norm"][0])],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": _resampling(3),
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": _resampling(1, is_seg=True),
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": _export(v1.get("segmentation_export_params") or {}),
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [
                    min(int(v1["base_num_features"]) * 2**i, MOST_FEATURES) for i in range(stages)
                ],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": kernels,
                "strides": [[1, 1, 1], *pools],
                "n_conv_per_stage": [convolutions] * stages,
                "n_conv_per_stage_decoder": [convolutions] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"negative_slope": 1e-2, "inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset000_Imported",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": configuration["median_image_size_in_voxels"],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": forward,
        "transpose_backward": backward,
        "configurations": {"3d_lowres" if lowres else "3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }


def convert_weights(
    v1: Mapping[str, Tensor], expected: Mapping[str, Tensor], convolutions: int
) -> dict[str, Tensor]:
    """Rename the tensors of a v1 network to the names of v2's PlainConvUNet.

    Parameters
    ----------
    v1 : mapping of str to Tensor
        State of a ``Generic_UNet``.
    expected : mapping of str to Tensor
        State of the v2 network; only names and shapes are used.
    convolutions : int
        Number per stage.

    Raises
    ------
    KeyError, ValueError
        A tensor is missing, or left over.
    """
    v1 = {name.removeprefix("module."): tensor for name, tensor in v1.items()}
    bottleneck = max(int(n) for n in re.findall(r"encoder\.stages\.(\d+)", "\n".join(expected)))
    converted: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, tensor in expected.items():
        own = _v1_name(name, convolutions, bottleneck)
        if own is None:  # a bias that v1 does not have
            converted[name] = torch.zeros(tensor.shape)
        else:
            converted[name] = v1[own]
            used.add(own)
    if used != v1.keys():
        raise ValueError(f"weights left over: {min(v1.keys() - used)}")
    return converted


def convert_postprocessing(v1: Mapping[str, Any]) -> list[LargestComponent]:
    """Convert the content of ``postprocessing.json``.

    Raises
    ------
    Exception
        Of any kind, if it is damaged.
    """
    spared = ast.literal_eval(str(v1.get("min_valid_object_sizes"))) or {}
    steps = []
    for classes in v1["for_which_classes"] or []:
        key = tuple(classes) if isinstance(classes, list) else classes
        together = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(value, int) and 0 < value < 256 for value in together):
            raise ValueError(f"{classes} are no labels")
        steps.append(LargestComponent(together, float(spared[key]) if spared else None))
    return steps


def refuse_unless(condition: bool, reason: str) -> None:
    """Refuse a model that would give other results than nnU-Net v1."""
    if not condition:
        raise ModelError(f"This nnU-Net v1 model cannot be reproduced exactly: {reason}.")


def _resampling(order: int, *, is_seg: bool = False) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


def _export(v1: Mapping[str, Any]) -> dict[str, Any]:
    apart = v1.get("force_separate_z")
    return {
        "is_seg": False,
        "order": int(v1.get("interpolation_order", 1)),
        "order_z": int(v1.get("interpolation_order_z", 0)),
        "force_separate_z": None if apart is None else bool(apart),
    }


def _v1_name(v2: str, convolutions: int, bottleneck: int) -> str | None:
    # PlainConvUNet lists tensors repeatedly: the encoder within the decoder, layers in a list.
    name = v2.replace("decoder.encoder.", "encoder.")
    name = name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")
    name = name.replace(".norm.", ".instnorm.")
    part, *numbers = re.findall(r"^[a-z]+\.[a-z_]+|(?<=\.)\d+(?=\.)", name)
    kind = name.rpartition(".")[2]
    level = int(numbers[0])
    if part in ("decoder.transpconvs", "decoder.seg_layers"):
        return None if kind == "bias" else f"{_V1_LISTS[part]}.{level}.weight"
    block = int(numbers[-1])
    layer = name.split(".")[-2]
    if part == "encoder.stages" and level < bottleneck:
        return f"conv_blocks_context.{level}.blocks.{block}.{layer}.{kind}"
    # v1 puts the last convolution of the bottleneck and of decoder stages into a separate group.
    group, within = (0, block) if block < convolutions - 1 else (1, 0)
    return f"{_V1_LISTS[part]}.{level}.{group}.blocks.{within}.{layer}.{kind}"
