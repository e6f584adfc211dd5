"""What an nnU-Net v2 model folder says of its images and its network (plans.json, dataset.json).

nnunetv2 has managers for both, which import SimpleITK, blosc2 and every image reader; at half a
second a start they are asked only for plans older than nnunetv2 2.3, which spell out no
architecture. The functions that the plans name (resampling, normalisation, network) are nnunetv2's
own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from nnunetv2.preprocessing.normalization import default_normalization_schemes
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from bids_app.engines.nnunet.resampling import resample
from bids_app.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

# A plans file names the classes to build; only these packages may be asked for.
NETWORKS = "dynamic_network_architectures.architectures."
LAYERS = ("torch.nn.", "dynamic_network_architectures.building_blocks.")


class Resample(Protocol):
    """Resampling as nnU-Net plans name it."""

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
    """Intensity normalisation as nnU-Net plans name it."""

    def run(self, image: NDArray[np.float32], seg: NDArray[Any] | None) -> NDArray[np.float32]:
        """Normalise one channel, shape (z, y, x); where `seg` is negative lies the outside."""
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
        Intensities are normalised within the non-zero voxels alone.
    resample_data, resample_mask, resample_probabilities : Resample
    architecture : mapping
        Class and arguments of the network.
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
    architecture: Mapping[str, Any]

    def network(self) -> nn.Module:
        """Build the network without weights: its parameters hold no memory.

        Raises
        ------
        ModelError
            The plans name a class that is no network or layer.
        """
        name = self.architecture["network_class_name"]
        arguments = self.architecture["arch_kwargs"]
        by_name = self.architecture["_kw_requires_import"]
        layers = [arguments[key] for key in by_name if arguments[key] is not None]
        strange = [n for n in (name,) if not n.startswith(NETWORKS)]
        strange += [n for n in layers if not n.startswith(LAYERS)]
        if strange:
            raise ModelError(f"The model's plans ask for {strange[0]}, which is no network layer.")
        with torch.device("meta"):
            network: nn.Module = get_network_from_plans(
                name,
                arguments,
                by_name,
                input_channels=1,
                output_channels=len(self.labels),
                allow_init=False,
                deep_supervision=False,
            )
        return network


def read_plans(folder: Path, configuration: str) -> Plans:
    """Read the plans of one configuration.

    Parameters
    ----------
    folder : Path
        Holds ``plans.json`` and ``dataset.json``.
    configuration : str
        Such as ``3d_fullres``; checkpoints name theirs.

    Raises
    ------
    ModelError
        A file is missing or damaged, or the model is of a kind that this engine does not run:
        region labels, several input channels, two dimensions, a second stage of nnU-Net's own
        cascade.
    """
    try:
        plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
        dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        return _plans(plans, dataset, configuration)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{folder}: plans.json or dataset.json is missing or damaged ({error!r}). "
            "Install the model again."
        ) from error


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
    _refuse_unless(len(channels) == 1, f"it needs {len(channels)} images of each head")
    _refuse_unless(len(settings["patch_size"]) == 3, "its network is two-dimensional")
    _refuse_unless(
        settings.get("previous_stage") is None, "it is the second stage of an nnU-Net cascade"
    )
    scheme = getattr(default_normalization_schemes, settings["normalization_schemes"][0])
    within_nonzero = settings["use_mask_for_norm"][0]
    intensities = plans.get("foreground_intensity_properties_per_channel", {}).get("0", {})
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
        architecture=settings["architecture"],
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


def _resampling(settings: dict[str, Any], kind: str) -> Resample:
    function = recursive_find_resampling_fn_by_name(settings[f"resampling_fn_{kind}"])
    if function is resample_data_or_seg_to_shape:
        function = resample
    return partial(function, **settings[f"resampling_fn_{kind}_kwargs"])


def _refuse_unless(condition: bool, reason: str) -> None:
    if not condition:
        raise ModelError(f"This nnU-Net model cannot be run here: {reason}.")
