"""Non-linear registration of two images on one small grid, in torch.

A greedy registration with a fluid and a slight elastic regulariser, driven by the local
correlation of intensities (Avants et al. 2008, doi 10.1016/j.media.2007.06.004, whose gradient
of the local correlation is used), after an affine step. On a box around the posterior fossa it
takes about 15 s on one core, where SyN needs minutes, and every step of it is deterministic.

Arrays of one image are (x, y, z) on voxels of equal edge; displacement fields are
(3, x, y, z) in voxels, and say where in the moving image each voxel of the fixed image lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Variance below which a neighbourhood counts as flat (intensities are scaled to about 0..1), so
# that the noise inside of the brainstem does not pull at the field.
FLAT = 2e-3
# What 1 stands for in the affine's parameters, so that all are of one size: a share of the
# distance to the centre, and voxels.
AFFINE_TURN, AFFINE_SHIFT = 0.2, 8.0
AFFINE_EDGE, AFFINE_STEPS = 3, 50


@dataclass(frozen=True)
class Setting:
    """How one registration is run.

    Attributes
    ----------
    radius : int
        Half edge of the neighbourhood of the local correlation, in voxels of the level.
    smoothness : float
        Standard deviation of the Gaussian over each step, in voxels of the level.
    levels : tuple of (int, int)
        Voxel edge as a multiple of the finest, and steps, coarse to fine.
    """

    radius: int
    smoothness: float
    levels: tuple[tuple[int, int], ...]


# Three that differ in what they trade: near edges for smoothness, and the finest level.
SETTINGS = {
    "even": Setting(radius=3, smoothness=2.5, levels=((4, 50), (2, 30), (1, 8))),
    "near": Setting(radius=2, smoothness=2.0, levels=((4, 50), (2, 40))),
    "broad": Setting(radius=4, smoothness=3.0, levels=((4, 50), (2, 40))),
}


def register(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    moving_weight: NDArray[np.float32],
    fixed_weight: NDArray[np.float32],
    setting: Setting,
    start: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Find where in the moving image each voxel of the fixed one lies.

    Parameters
    ----------
    fixed, moving : ndarray of float32, shape (x, y, z)
        Images on one grid, scaled to about 0..1.
    moving_weight, fixed_weight : ndarray of float32, shape (x, y, z)
        Between 0 and 1: where each image says something.
    setting : Setting
        How to run.
    start : ndarray of float32, shape (3, x, y, z)
        Displacement to start from, such as that of `affine_field`.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        Displacement in voxels: ``fixed[v]`` matches ``moving[v + field[:, v]]``.
    """
    images = [_tensor(fixed), _tensor(moving)]
    weights = [_tensor(fixed_weight), _tensor(moving_weight)]
    field = torch.from_numpy(start)[None]
    for edge, steps in setting.levels:
        field = _level(field, images, weights, setting, edge, steps)
    return np.asarray(field[0].numpy())


def invert(field: NDArray[np.float32], steps: int = 12) -> NDArray[np.float32]:
    """Turn a displacement field around, by fixed-point iteration.

    Parameters
    ----------
    field : ndarray of float32, shape (3, x, y, z)
        Displacement in voxels.
    steps : int
        Iterations; a dozen suffice for fields as smooth as `register` makes them.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
    """
    forward = torch.from_numpy(field)[None]
    positions = _positions(field.shape[1:])
    back = torch.zeros_like(forward)
    for _ in range(steps):
        back = -_sample(forward, positions + back)
    return back[0].numpy()


def draw(stack: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw arrays at any places, by linear interpolation; beyond the edge, the edge's values.

    Parameters
    ----------
    stack : ndarray of float32, shape (channels, x, y, z)
        What to draw.
    places : ndarray of float32, shape (3, i, j, k)
        Voxel coordinates in `stack`.

    Returns
    -------
    ndarray of float32, shape (channels, i, j, k)
    """
    drawn = _sample(torch.from_numpy(stack)[None], torch.from_numpy(places)[None])
    return np.asarray(drawn[0].numpy())


def voxel_grid(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the voxel coordinates of a grid, shape (3, x, y, z)."""
    return np.asarray(_positions(shape)[0].numpy())


def affine_field(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    moving_weight: NDArray[np.float32],
    fixed_weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Align two images by an affine map about the centre; parameters as in `register`."""
    target_full, target_weight_full, source, source_weight = map(
        _tensor, (fixed, fixed_weight, moving, moving_weight)
    )
    shape = fixed.shape
    centre = ((torch.tensor(shape) - 1) / 2).view(1, 3, 1, 1, 1)
    places = _positions([-(-n // AFFINE_EDGE) for n in shape]) * AFFINE_EDGE
    target = _sample(_smooth(target_full, AFFINE_EDGE / 2), places)
    target_weight = _sample(target_weight_full, places)
    source = torch.cat([_smooth(source, AFFINE_EDGE / 2), _smooth(source_weight, 1.0)], 1)
    matrix = torch.zeros(3, 4, requires_grad=True)

    def displacement(positions: Tensor) -> Tensor:
        turned = torch.einsum("ij,bjxyz->bixyz", matrix[:, :3], positions - centre)
        return turned * AFFINE_TURN + matrix[:, 3].view(1, 3, 1, 1, 1) * AFFINE_SHIFT

    optimiser = torch.optim.Adam([matrix], lr=0.02)
    for _ in range(AFFINE_STEPS):
        optimiser.zero_grad()
        drawn = _sample(source, places + displacement(places))
        with torch.no_grad():
            weight = drawn[:, 1:] * target_weight
            slope = _correlation_slope(target, drawn[:, :1], weight, radius=3)
        loss = -(slope * drawn[:, :1]).sum() / weight.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        return np.asarray(displacement(_positions(shape))[0].numpy())


@torch.no_grad()
def _level(
    field: Tensor,
    images: list[Tensor],
    weights: list[Tensor],
    setting: Setting,
    edge: int,
    steps: int,
) -> Tensor:
    """Improve a full-resolution field with steps at one voxel edge."""
    shape = tuple(images[0].shape[2:])
    own = _positions([-(-n // edge) for n in shape])
    places = own * edge
    blur = 0.5 * edge if edge > 1 else 0.0
    target = _sample(_smooth(images[0], blur), places)
    target_weight = _sample(weights[0], places)
    source = _smooth(images[1], blur)
    slopes = [(torch.roll(source, -1, d) - torch.roll(source, 1, d)) / 2 for d in (2, 3, 4)]
    stack = torch.cat([source, *slopes, weights[1]], 1)
    coarse = _sample(field, places)
    for step in range(steps):
        drawn = _sample(stack, places + coarse)
        weight = drawn[:, 4:] * target_weight
        slope = _correlation_slope(target, drawn[:, :1], weight, setting.radius)
        push = _smooth(slope * drawn[:, 1:4], setting.smoothness)
        longest = push.norm(dim=1).max().clamp_min(1e-8)
        push *= 0.35 * edge * (1 - 0.6 * step / steps) / longest
        coarse = _smooth(_sample(coarse, own + push / edge) + push, 0.4)
    return coarse if edge == 1 else _sample(coarse, _positions(shape) / edge)


def _correlation_slope(fixed: Tensor, drawn: Tensor, weight: Tensor, radius: int) -> Tensor:
    """Gradient of the weighted local squared correlation with respect to `drawn`."""
    moments = torch.cat([weight * part for part in (
        torch.ones_like(fixed), fixed, drawn, fixed * fixed, drawn * drawn, fixed * drawn,
    )], 1)  # fmt: skip
    sums = _box_mean(moments, radius)
    count = sums[:, :1].clamp_min(1e-3)
    mean_f, mean_d, square_f, square_d, product = (sums[:, k : k + 1] / count for k in range(1, 6))
    var_f = (square_f - mean_f**2).clamp_min(0) + FLAT
    var_d = (square_d - mean_d**2).clamp_min(0) + FLAT
    shared = product - mean_f * mean_d
    return (
        2 * shared / (var_f * var_d) * (fixed - mean_f - shared / var_d * (drawn - mean_d)) * weight
    )


def _box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over cubes of 2 radius + 1 voxels, by running sums; edges are repeated."""
    for axis in (2, 3, 4):
        pad = [0] * 6
        pad[2 * (4 - axis) : 2 * (4 - axis) + 2] = [radius + 1, radius]
        sums = functional.pad(x, pad, mode="replicate").cumsum(axis)
        size, width = x.shape[axis], 2 * radius + 1
        x = (sums.narrow(axis, width, size) - sums.narrow(axis, 0, size)) / width
    return x


def _smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of shape (1, channels, x, y, z), sigma in voxels; edges are repeated."""
    if sigma <= 0:
        return x
    reach = max(1, int(np.ceil(2.5 * sigma)))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    for axis in (2, 3, 4):
        shape = [1] * 5
        shape[axis] = 2 * reach + 1
        pad = [0] * 6
        pad[2 * (4 - axis) : 2 * (4 - axis) + 2] = [reach, reach]
        weights = kernel.view(shape).repeat(channels, 1, 1, 1, 1)
        x = functional.conv3d(functional.pad(x, pad, mode="replicate"), weights, groups=channels)
    return x


def _positions(shape: tuple[int, ...] | list[int]) -> Tensor:
    """Voxel coordinates, shape (1, 3, x, y, z)."""
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def _sample(stack: Tensor, positions: Tensor) -> Tensor:
    """Linear interpolation of (1, channels, x, y, z) at voxel coordinates; edges are repeated."""
    sizes = stack.shape[2:]
    scaled = [2 * positions[:, d] / (sizes[d] - 1) - 1 for d in (2, 1, 0)]
    return functional.grid_sample(
        stack, torch.stack(scaled, -1), align_corners=True, padding_mode="border", mode="bilinear"
    )


def _tensor(image: NDArray[np.float32]) -> Tensor:
    """Shape (1, 1, x, y, z)."""
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
