"""Write small nnU-Net v1 models in their format on disk, with a restatement of the v1 network.

The network follows the description of nnunet 1.7.1's ``Generic_UNet`` as ``nnUNetTrainerV2`` builds
it; module names are those of its checkpoints.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Triple = tuple[int, int, int]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: Triple) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, stride, padding=1)
        self.instnorm = nn.InstanceNorm3d(outputs, eps=1e-5, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.instnorm(self.conv(x)), 1e-2)


class _Stack(nn.Module):
    def __init__(self, inputs: int, outputs: int, number: int, stride: Triple) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                _Block(outputs if i else inputs, outputs, (1, 1, 1) if i else stride)
                for i in range(number)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class V1Network(nn.Module):
    """The network of nnU-Net v1: (1, 1, z, y, x) to logits (1, classes, z, y, x)."""

    def __init__(
        self, base: int, pools: Sequence[Triple], classes: int, convolutions: int = 2
    ) -> None:
        super().__init__()
        features = [min(base * 2**i, 320) for i in range(len(pools) + 1)]
        strides: list[Triple] = [(1, 1, 1), *pools]
        levels = range(len(pools))
        ones = (1, 1, 1)
        self.conv_blocks_context = nn.ModuleList(
            _Stack(features[i - 1] if i else 1, features[i], convolutions, strides[i])
            for i in levels
        )
        self.conv_blocks_context.append(
            nn.Sequential(
                _Stack(features[-2], features[-1], convolutions - 1, strides[-1]),
                _Stack(features[-1], features[-1], 1, ones),
            )
        )
        self.conv_blocks_localization = nn.ModuleList()
        self.tu = nn.ModuleList()
        self.seg_outputs = nn.ModuleList()
        for level in reversed(levels):
            below, here, pool = features[level + 1], features[level], pools[level]
            self.tu.append(nn.ConvTranspose3d(below, here, pool, pool, bias=False))
            self.conv_blocks_localization.append(
                nn.Sequential(
                    _Stack(2 * here, here, convolutions - 1, ones), _Stack(here, here, 1, ones)
                )
            )
            self.seg_outputs.append(nn.Conv3d(here, classes, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Run the network; of its deep supervision, the finest output alone."""
        skips = []
        for stage in self.conv_blocks_context:
            x = stage(x)
            skips.append(x)
        for i, (up, stage) in enumerate(zip(self.tu, self.conv_blocks_localization, strict=True)):
            x = stage(torch.cat((up(x), skips[-2 - i]), dim=1))
        out: Tensor = self.seg_outputs[-1](x)
        return out


def write_v1_model(
    folder: Path,
    *,
    seed: int = 0,
    folds: int = 1,
    base: int = 2,
    pools: Sequence[Triple] = ((2, 2, 2),),
    patch_size: Sequence[int] = (8, 8, 8),
    stages: int = 1,
    convolutions: int = 2,
    plans: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    trainer: str = "nnUNetTrainerV2",
) -> Path:
    """Write an nnU-Net v1 model of random weights.

    Parameters
    ----------
    folder : Path
        Gets ``plans.pkl``, ``postprocessing.json`` and ``fold_*``.
    seed, folds : int
    base : int
        Features of the first stage.
    pools : sequence of three ints each
        Pooling after each stage.
    patch_size : sequence of int
    stages : int
        2 for plans with a low resolution; the last one is trained.
    convolutions : int
        Of each stage.
    plans, settings : mapping, optional
        To be put in place of the usual entries of the plans, and of those of the trained stage.
    trainer : str

    Returns
    -------
    Path
        `folder`.
    """
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [len(pools)] * 3,
        "patch_size": np.array(patch_size),
        "median_patient_size_in_voxels": np.array([189, 233, 197]),
        "current_spacing": np.array([1.0, 1.0, 1.0]),
        "original_spacing": np.array([1.0, 1.0, 1.0]),
        "do_dummy_2D_data_aug": False,
        "pool_op_kernel_sizes": [list(pool) for pool in pools],
        "conv_kernel_sizes": [[3, 3, 3]] * (len(pools) + 1),
    }
    content: dict[str, Any] = {
        "num_stages": stages,
        "num_modalities": 1,
        "modalities": {0: "T1w"},
        "normalization_schemes": OrderedDict([(0, "nonCT")]),
        "dataset_properties": {"size_reductions": OrderedDict([("a", np.float64(0.9))])},
        "use_mask_for_norm": OrderedDict([(0, False)]),
        "all_classes": [1, 2, 3],
        "num_classes": 3,
        "base_num_features": base,
        "conv_per_stage": convolutions,
        "transpose_forward": [np.int64(0), 1, 2],
        "transpose_backward": [np.int64(0), 1, 2],
        "data_identifier": "nnUNetData_plans_v2.1_24GB",
        "preprocessor_name": "GenericPreprocessor",
        "plans_per_stage": {i: stage | {"batch_size": 2 + i} for i in range(stages)},
    } | dict(plans or {})
    content["plans_per_stage"][stages - 1] |= dict(settings or {})
    folder.mkdir(parents=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(content))
    (folder / "postprocessing.json").write_text(
        '{"for_which_classes": [1, 2, 3], "min_valid_object_sizes": "None"}'
    )
    for fold in range(folds):
        torch.manual_seed(100 * seed + fold)
        place = folder / f"fold_{fold}" / "model_final_checkpoint.model"
        place.parent.mkdir()
        network = V1Network(base, pools, 4, convolutions)
        checkpoint = {"epoch": 1, "state_dict": network.state_dict(), "plot_stuff": ([], [1.5])}
        torch.save(checkpoint, place)
        init = ("plans.pkl", fold, "", "", False, stages - 1, True, False, True)
        facts = {"name": trainer, "init": init, "class": "", "plans": content}
        place.with_name(place.name + ".pkl").write_bytes(pickle.dumps(facts))
    return folder
