"""Plans of an nnU-Net v2 model folder: preprocessing and network (plans.json, dataset.json).

nnunetv2's own plans handlers take half a second to import (SimpleITK, blosc2, all image readers).
They are only used for plans older than nnunetv2 2.3, which do not state the architecture.

Plans contain names of classes and functions. A name is only looked up in the tables below, which
hold the names that nnunetv2's planners write; it is never imported. Any other name or argument is
refused, so that a model file cannot make the app call anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    CTNormalization,
    NoNormalization,
    RescaleTo01Normalization,
    RGBTo01Normalization,
    ZScoreNormalization,
)
from torch import nn

from bids_app.engines.nnunet.resampling import resample
from bids_app.engines.nnunet.weights import CHECKPOINT, read_checkpoint
from bids_app.errors import ModelError
from bids_app.io.tables import load_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_UNETS = "dynamic_network_architectures.architectures."
NETWORKS: Mapping[str, type[nn.Module]] = {
    f"{_UNETS}unet.PlainConvUNet": PlainConvUNet,
    f"{_UNETS}unet.ResidualEncoderUNet": ResidualEncoderUNet,
    # For plans older than 2.3, nnunetv2 adds a module name that no longer exists.
    f"{_UNETS}residual_unet.ResidualEncoderUNet": ResidualEncoderUNet,
}
_NO_LAYER: Mapping[str | None, None] = {None: None}
# Allowed layers for each argument of the network, by torch's long and short names.
LAYERS: Mapping[str, Mapping[str | None, type[nn.Module] | None]] = {
    "conv_op": {"torch.nn.modules.conv.Conv3d": nn.Conv3d, "torch.nn.Conv3d": nn.Conv3d},
    "norm_op": {
        "torch.nn.modules.instancenorm.InstanceNorm3d": nn.InstanceNorm3d,
        "torch.nn.InstanceNorm3d": nn.InstanceNorm3d,
        **_NO_LAYER,
    },
    "dropout_op": _NO_LAYER,
    "nonlin": {
        "torch.nn.modules.activation.LeakyReLU": nn.LeakyReLU,
        "torch.nn.LeakyReLU": nn.LeakyReLU,
    },
}
# Allowed arguments of layers, whose values are numbers and booleans.
LAYER_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "norm_op_kwargs": frozenset({"eps", "affine"}),
    "dropout_op_kwargs": frozenset(),
    "nonlin_kwargs": frozenset({"inplace", "negative_slope"}),
}
# Arguments of the network that are numbers or lists of numbers.
NUMBERS = frozenset({
    "n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage",
    "n_blocks_per_stage", "n_conv_per_stage_decoder", "conv_bias",
})  # fmt: skip
NORMALIZATIONS: Mapping[str, Callable[..., Normalize]] = {
    scheme.__name__: scheme
    for scheme in (
        ZScoreNormalization,
        CTNormalization,
        NoNormalization,
        RescaleTo01Normalization,
        RGBTo01Normalization,
    )
}


def _resample_with_torch(*arguments: Any, **options: Any) -> NDArray[np.float32]:
    # Imported here, because it imports SimpleITK and few models use it.
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

    resampled: NDArray[np.float32] = resample_torch_fornnunet(*arguments, **options)
    return resampled


def _no_resampling(data: NDArray[np.float32], *_: object) -> NDArray[np.float32]:
    return data


# Functions, each with the arguments that planners write.
RESAMPLINGS: Mapping[str, tuple[Callable[..., NDArray[np.float32]], frozenset[str]]] = {
    "resample_data_or_seg_to_shape": (
        resample,
        frozenset({
            "is_seg", "order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold",
        }),
    ),
    "resample_torch_fornnunet": (
        _resample_with_torch,
        frozenset({
            "is_seg", "force_separate_z", "memefficient_seg_resampling",
            "separate_z_anisotropy_threshold",
        }),
    ),
    "no_resampling_hack": (_no_resampling, frozenset()),
}  # fmt: skip


class Resample(Protocol):
    """A resampling function of nnU-Net plans."""

    def __call__(
        self,
        data: NDArray[np.float32],
        new_shape: Sequence[int],
        current_spacing: Sequence[float],
        new_spacing: Sequence[float],
    ) -> NDArray[np.float32]:
        """Resample channels, shape (C, z, y, x), to `new_shape` (3 values)."""
        ...


class Normalize(Protocol):
    """An intensity normalisation of nnU-Net plans."""

    def run(self, image: NDArray[np.float32], seg: NDArray[Any] | None) -> NDArray[np.float32]:
        """Normalise one channel, shape (z, y, x); `seg` is negative outside."""
        ...


@dataclass(frozen=True)
class Plans:
    """One configuration of a trained model.

    Attributes
    ----------
    labels : tuple of str
        Name of each output channel, background first.
    patch_size : tuple of int
        Network input in voxels, in transposed axis order.
    spacing : tuple of float
        Voxel size of the network's grid in mm, in transposed axis order.
    transpose_forward, transpose_backward : tuple of int
        From (z, y, x) to the network's axis order, and back.
    normalize : Normalize
    within_nonzero : bool
        Only non-zero voxels are normalised.
    resample_data, resample_mask, resample_probabilities : Resample
    network_class : type of nn.Module
        One of `NETWORKS`.
    arguments : mapping
        Arguments of the network's class, layers as classes.
    """

    labels: tuple[str, ...]
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    normalize: Normalize
    within_nonzero: bool
    resample_data: Resample
    resample_mask: Resample
    resample_probabilities: Resample
    network_class: type[nn.Module]
    arguments: Mapping[str, Any]

    def network(self) -> nn.Module:
        """Build the network without weights; its parameters take no memory."""
        with torch.device("meta"):
            return self.network_class(
                input_channels=1,
                num_classes=len(self.labels),
                deep_supervision=False,
                **self.arguments,
            )


def read_plans(folder: Path, configuration: str) -> Plans:
    """Read the plans of one configuration.

    Parameters
    ----------
    folder : Path
        Holds ``plans.json`` and ``dataset.json``.
    configuration : str
        Such as ``3d_fullres``; checkpoints state theirs.

    Raises
    ------
    ModelError
        A file is missing or damaged, contains a name that is not in this module's tables, or the
        engine does not support the model: region labels, several input channels, two dimensions,
        second stage of nnU-Net's own cascade.
    """
    try:
        plans = load_json(folder / "plans.json")
        dataset = load_json(folder / "dataset.json")
        return _plans(plans, dataset, configuration)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{folder}: plans.json or dataset.json is missing or damaged ({error!r}). "
            "Install the model again."
        ) from error


def check_plans(folder: Path) -> None:
    """Check that the engine can build the networks of a model folder.

    Parameters
    ----------
    folder : Path
        Holds ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_final.pth``.

    Raises
    ------
    ModelError
        As `read_plans`, or a checkpoint cannot be read.
    """
    checkpoints = sorted(folder.glob(f"fold_*/{CHECKPOINT}"))
    for configuration in {read_checkpoint(path).configuration for path in checkpoints}:
        read_plans(folder, configuration)


def _plans(plans: dict[str, Any], dataset: dict[str, Any], configuration: str) -> Plans:
    settings = _inherit(plans["configurations"], configuration)
    if "architecture" not in settings:
        from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

        settings = ConfigurationManager(settings).configuration
    labels = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    _refuse_unless(
        all(isinstance(value, int) for value in labels.values()), "it is trained on region labels"
    )
    _refuse_unless(
        sorted(labels.values()) == list(range(len(labels))), "its labels are not 0, 1, 2, ..."
    )
    channels = dataset.get("channel_names") or dataset["modality"]
    _refuse_unless(len(channels) == 1, f"it needs {len(channels)} images per head")
    _refuse_unless(len(settings["patch_size"]) == 3, "its network is two-dimensional")
    _refuse_unless(
        settings.get("previous_stage") is None, "it is the second stage of an nnU-Net cascade"
    )
    scheme = _look_up(NORMALIZATIONS, settings["normalization_schemes"][0], "normalization")
    within_nonzero = bool(settings["use_mask_for_norm"][0])
    intensities = dict(plans.get("foreground_intensity_properties_per_channel", {}).get("0", {}))
    network_class, arguments = _architecture(settings["architecture"])
    return Plans(
        labels=tuple(sorted(labels, key=lambda name: int(labels[name]))),
        patch_size=tuple(settings["patch_size"]),
        spacing=tuple(settings["spacing"]),
        transpose_forward=tuple(plans["transpose_forward"]),
        transpose_backward=tuple(plans["transpose_backward"]),
        normalize=scheme(use_mask_for_norm=within_nonzero, intensityproperties=intensities),
        within_nonzero=within_nonzero,
        resample_data=_resampling(settings, "data"),
        resample_mask=_resampling(settings, "seg"),
        resample_probabilities=_resampling(settings, "probabilities"),
        network_class=network_class,
        arguments=arguments,
    )


def _inherit(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    chain = [name]
    while (parent := configurations[chain[-1]].get("inherits_from")) is not None:
        if parent in chain:
            raise ValueError(f"configuration {parent} inherits from itself")
        chain.append(parent)
    settings: dict[str, Any] = {}
    for ancestor in reversed(chain):
        settings |= configurations[ancestor]
    return settings


def _architecture(architecture: Mapping[str, Any]) -> tuple[type[nn.Module], dict[str, Any]]:
    """Look up the network and its layers; every other argument must be plain numbers."""
    network_class = _look_up(NETWORKS, architecture["network_class_name"], "network")
    stated = architecture["arch_kwargs"]
    _check_arguments("network", stated, {*LAYERS, *LAYER_ARGUMENTS, *NUMBERS})
    # nnunetv2 would import every name in this list.
    _check_arguments("layer", architecture["_kw_requires_import"], LAYERS)
    arguments: dict[str, Any] = {}
    for name, value in stated.items():
        if name in LAYERS:
            arguments[name] = _look_up(LAYERS[name], value, name)
        elif name in LAYER_ARGUMENTS:
            _check_arguments(name, value or {}, LAYER_ARGUMENTS[name])
            arguments[name] = value
        else:
            arguments[name] = value
        if name not in LAYERS and not _is_plain(value):
            raise ValueError(f"{name} is not made of numbers")
    return network_class, arguments


def _resampling(settings: dict[str, Any], kind: str) -> Resample:
    name = settings[f"resampling_fn_{kind}"]
    arguments = settings[f"resampling_fn_{kind}_kwargs"]
    function, known = _look_up(RESAMPLINGS, name, "resampling")
    _check_arguments(name, arguments, known)
    if not _is_plain(arguments):
        raise ValueError(f"the arguments of {name} are not numbers")
    return partial(function, **arguments)


def _look_up(table: Mapping[Any, T], name: object, kind: str) -> T:
    if not (isinstance(name, str) or name is None) or name not in table:
        raise ModelError(
            f"The model's plans contain the {kind} {name}, which nnU-Net's planners do not write. "
            "The model is not loaded."
        )
    return table[name]


def _check_arguments(where: str, stated: Iterable[str], known: Collection[str]) -> None:
    for name in stated:
        if name not in known:
            raise ModelError(
                f"The model's plans contain the argument {name} of {where}, which nnU-Net's "
                "planners do not write. The model is not loaded."
            )


def _is_plain(value: object) -> bool:
    """Whether a value is null, a number, a boolean, or a list or mapping of these."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, int | float)


def _refuse_unless(condition: bool, reason: str) -> None:
    if not condition:
        raise ModelError(f"This nnU-Net model is not supported: {reason}.")
