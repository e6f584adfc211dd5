"""Where a patch lies in a case: poses, bends, shrunk regions, and the sampling there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from training.cases import MCP, MEDULLA, MIDBRAIN, PONS, SCP, STEM, TECTUM
from training.faults import blur, widen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.networks import Look


LARGEST_TURN = 25.0  # degrees
PEDUNCLE_SHARE = 0.2  # of the resized regions: a peduncle of one side
ONE_AXIS_SHARE = 0.6  # of the resized regions
AXES = (0.25, 0.25, 0.5)  # how often along x, y and z then


def draw_pose(rng: np.random.Generator, largest_turn: float = LARGEST_TURN) -> NDArray[np.float64]:
    """Draw a rotation (up to `largest_turn` degrees about any axis), scaling, shear and flip.

    Returns
    -------
    ndarray, shape (3, 3)
        Acts on (x, y, z).
    """
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    turn = np.deg2rad(largest_turn) * rng.uniform(0, 1)
    cross = np.array([
        [0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0],
    ])  # fmt: skip
    rotation = np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross
    stretch = np.eye(3) + rng.normal(0, 0.03, (3, 3))
    flip = np.diag([rng.choice([-1.0, 1.0]), 1, 1])
    return np.asarray(rotation @ stretch @ flip * rng.uniform(0.85, 1.15))


def sampling_grid(
    look: Look,
    source: int,
    rng: np.random.Generator | None,
    device: torch.device,
    turn: float = LARGEST_TURN,
) -> torch.Tensor:
    """Place a patch in the prepared look of a case.

    Parameters
    ----------
    look : Look
        The network that will see the patch.
    source : int
        Edge of the prepared look in voxels.
    rng : numpy.random.Generator or None
        None places the patch in the middle, upright and unchanged.
    device : torch.device
        Where the grid is made.
    turn : float
        Largest turn in degrees.

    Returns
    -------
    Tensor, shape (1, size, size, size, 3)
        Grid for `torch.nn.functional.grid_sample` with ``align_corners=True``.
    """
    half_source = (source - 1) / 2 * look.source_mm
    half_patch = (look.size - 1) / 2 * look.spacing
    theta = np.zeros((3, 4))
    pose = np.eye(3) if rng is None else draw_pose(rng, turn)
    theta[:, :3] = pose * half_patch / half_source
    if rng is not None:
        theta[:, 3] = rng.uniform(-look.jitter, look.jitter, 3) / half_source
    shape = [1, 1, look.size, look.size, look.size]
    matrix = torch.tensor(theta[None], dtype=torch.float32, device=device)
    grid = functional.affine_grid(matrix, shape, align_corners=True)
    if rng is not None and rng.random() < 0.7:
        knots = int(rng.integers(4, 9))
        reach = rng.uniform(0, look.bend) * half_patch * 2 / knots
        bend = torch.randn(1, 3, knots, knots, knots, device=device) * float(reach / half_source)
        bend = functional.interpolate(bend, shape[2:], mode="trilinear", align_corners=True)
        grid = grid + bend.permute(0, 2, 3, 4, 1)
    return grid


def resize_region(
    grid: torch.Tensor, labels: NDArray[np.uint8], rng: np.random.Generator
) -> torch.Tensor:
    """Shrink a region of the brainstem, all of it or a peduncle, by up to 45 %, or let it grow.

    Along one axis alone by up to 26 %, and it grows by up to 30 % (24 %).

    All of the region is drawn towards its centre in proportion to the distance from it, along one
    axis alone or along each by a share of its own; around it this fades smoothly, over 2 cm down to
    the least that folds nothing, so that what is next to it gives way. The network must follow the
    borders: it can expect no usual size, nothing of what lies beyond a border, and not that a
    region which is thinner is also shorter.

    Parameters
    ----------
    grid : Tensor, shape (1, z, y, x, 3)
        Where each voxel of the patch lies in the prepared look, from -1 to 1.
    labels : ndarray of uint8, shape (z, y, x)
        The prepared look's labels.
    rng : numpy.random.Generator
        Draws the region and how much.
    """
    if rng.random() < PEDUNCLE_SHARE:
        mask = labels == (SCP, MCP)[rng.integers(2)]
        middle = labels.shape[2] // 2
        mask[..., slice(middle, None) if rng.random() < 0.5 else slice(middle)] = False
    else:
        mask = np.isin(labels, ((MIDBRAIN, TECTUM), PONS, MEDULLA, STEM)[rng.integers(4)])
    if mask.sum() < 60:  # hardly in view
        return grid
    left = 1 - rng.uniform(-0.3, 0.45)
    alone = rng.random() < ONE_AXIS_SHARE
    shares = np.eye(3)[rng.choice(3, p=AXES)] if alone else rng.dirichlet([3, 3, 3])
    stretch = np.clip(left**-shares - 1, -0.35, 0.35)
    farthest = (np.ptp(np.argwhere(mask), axis=0)[::-1] / 2 * abs(stretch)).max()
    sharpest = max(0.6, 0.3 * farthest)  # sharper, and places around it would change their order
    return stretch_region(grid, mask, stretch, float(rng.uniform(sharpest, max(sharpest, 2.5))))


def stretch_region(
    grid: torch.Tensor, mask: NDArray[np.bool_], stretch: NDArray[np.float64], sigma: float
) -> torch.Tensor:
    """Shrink a region in proportion to the distance from its centre.

    Parameters
    ----------
    grid : Tensor, shape (1, z, y, x, 3)
        Where each voxel of the patch lies in the prepared look, from -1 to 1.
    mask : ndarray of bool, shape (z, y, x)
        The region, in the prepared look.
    stretch : ndarray of float64, shape (3,)
        Along x, y and z: 0.1 makes it shorter by a factor of 1 / 1.1.
    sigma : float
        How smoothly this fades around the region, in pairs of voxels.
    """
    size = mask.shape[0]
    inside = np.argwhere(mask)[:, ::-1]
    centre = torch.tensor(inside.mean(0) * 2 / (size - 1) - 1, dtype=torch.float32)
    weight = torch.from_numpy(mask).to(grid.device)[None, None].float()
    weight = functional.avg_pool3d(weight, 2)
    margin = round(1.5 * sigma)
    weight = widen(weight, margin)
    weight = blur(weight, (sigma, sigma, sigma))
    # The pooled voxels are placed by their edges: a grid that counts from edge to edge.
    near = functional.grid_sample(weight, grid * ((size - 1) / size), align_corners=False)
    pull = torch.tensor(stretch, dtype=torch.float32, device=grid.device)
    return grid + near[0, 0][None, ..., None] * (grid - centre.to(grid.device)) * pull


def deform(
    grid: torch.Tensor, target: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resize a region within a patch.

    Parameters
    ----------
    grid : Tensor, shape (1, z, y, x, 3)
        Where each voxel of the patch lies in the prepared look.
    target : Tensor of int64, shape (1, 1, z, y, x)
        The patch's labels.
    rng : numpy.random.Generator
        As for `resize_region`.

    Returns
    -------
    grid : Tensor, shape (1, z, y, x, 3)
        Where each voxel of the deformed patch lies in the prepared look.
    places : Tensor, shape (1, z, y, x, 3)
        Where it lies in the patch as it was, from -1 to 1.
    """
    still = functional.affine_grid(
        torch.eye(3, 4, device=grid.device)[None], list(target.shape), align_corners=True
    )
    places = resize_region(still, target[0, 0].cpu().numpy().astype(np.uint8), rng)
    moved = functional.grid_sample(
        grid.movedim(-1, 1), places, padding_mode="border", align_corners=True
    )
    return moved.movedim(1, -1), places


def sample(array: NDArray[np.uint8], grid: torch.Tensor, mode: str) -> torch.Tensor:
    """Sample an array of bytes at a grid; float32, shape (1, 1, z, y, x), 0 outside."""
    source = torch.from_numpy(array).to(grid.device)[None, None].float()
    return functional.grid_sample(source, grid, mode=mode, align_corners=True)
