"""The two networks, as nnU-Net v2 plans that the stock predictor rebuilds.

The locator sees a whole head at 4 mm (64 voxels, 256 mm) and draws the brainstem and the inside of
the skull. The segmenter sees 96 mm at 1 mm around the brainstem and draws its regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from training.cases import CORD, ICP, MCP, MEDULLA, MIDBRAIN, PONS, SCP, STEM, TECTUM

REGIONS = ("midbrain", "pons", "medulla")
PARTS = ("tectum", "scp", "mcp", "icp")


@dataclass(frozen=True)
class Look:
    """What one network sees, and how it is built.

    Attributes
    ----------
    name : str
        ``locator`` or ``segmenter``.
    array : str
        Which look of a case it learns from, ``far`` or ``near``.
    source_mm : float
        Voxel size of that look.
    size : int
        Edge of the patch in voxels.
    spacing : float
        Voxel size of the patch in mm.
    jitter : float
        Largest distance along an axis, in mm, from the middle of the look to that of the patch.
    bend : float
        Largest standard deviation of the knots of an elastic deformation, as a part of their
        distance.
    depth_cut : float
        Largest part of an axis that is cut off at one side when the field of view is narrowed.
    classes : tuple of str
        Names of the classes, background first.
    stem : tuple of int
        The classes that make up the brainstem.
    regions, parts : tuple of tuple of int
        Classes of each region, whose Dice counts fully, and of each part.
    features : tuple of int
        Channels of each stage.
    """

    name: str
    array: str
    source_mm: float
    size: int
    spacing: float
    jitter: float
    bend: float
    depth_cut: float
    classes: tuple[str, ...]
    stem: tuple[int, ...]
    regions: tuple[tuple[int, ...], ...]
    parts: tuple[tuple[int, ...], ...]
    features: tuple[int, ...]


LOOKS = {
    "locator": Look(
        name="locator",
        array="far",
        source_mm=2.0,
        size=64,
        spacing=4.0,
        jitter=24.0,
        bend=0.08,
        depth_cut=0.55,
        classes=("background", "brainstem", "intracranial"),
        stem=(1,),
        regions=((1,), (2,)),
        parts=(),
        features=(12, 24, 48, 96),
    ),
    "segmenter": Look(
        name="segmenter",
        array="near",
        source_mm=1.0,
        size=96,
        spacing=1.0,
        jitter=8.0,
        bend=0.2,
        depth_cut=0.3,
        classes=("background", "tegmentum", "pons", "medulla", "cord", *PARTS),
        stem=STEM,
        regions=((MIDBRAIN, TECTUM), (PONS,), (MEDULLA,)),
        parts=((MIDBRAIN,), (TECTUM,), (CORD,), (SCP,), (MCP,), (ICP,)),
        features=(16, 32, 64, 128, 160),
    ),
}


def architecture(features: tuple[int, ...]) -> dict[str, Any]:
    """Return the architecture block of an nnU-Net v2 plans file for a plain U-Net.

    The first stage, at full resolution, has one convolution instead of two: on a CPU it takes
    most of the time.
    """
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [1] + [2] * (stages - 1),
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def build_network(look: Look) -> nn.Module:
    """Build the network with the weights that nnU-Net starts from.

    It maps (batch, 1, z, y, x) to logits (batch, classes, z, y, x).
    """
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    given = architecture(look.features)["arch_kwargs"]
    network: nn.Module = PlainConvUNet(
        input_channels=1,
        num_classes=len(look.classes),
        deep_supervision=False,
        **{
            **given,
            "conv_op": nn.Conv3d,
            "norm_op": nn.InstanceNorm3d,
            "nonlin": nn.LeakyReLU,
        },
    )
    return network.apply(PlainConvUNet.initialize)
