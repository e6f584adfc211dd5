"""From registrations to the soft labels of one head, by the definition in ``docs/labels.md``.

Every registration carries the atlas to the head's own voxel grid; the shares are averaged, the
medulla is cut off by one plane, and voxels that nobody should learn from are marked. On a label
map the outer border is the map's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from training.atlas import map_brainstem
from training.heads import BOX_AFFINE, BOX_SHAPE
from training.registration import draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.atlas import Atlas

CEREBELLAR_WHITE_CODES = (7, 46)
BORDER_MM = 1.0  # of real heads, on both sides of the outer border
PLANE_MM = 3.0
SAME_IN = 2 / 3  # of the registrations
CORD_KNOWN_MM = 7.0  # the template's cord ends here; what follows below is not told from it
CORD_REACH_MM = 18.0  # around the axis, where that cord may lie
MARGIN_MM = 12.0
# A map's brainstem counts as ended where it fills less of the carried one; above that height it
# is completed a little, since it tapers off.
FILLED = 0.65
TAPER_MM = 3.0


@dataclass(frozen=True)
class Plane:
    """The lower limit of the medulla.

    Attributes
    ----------
    point, normal : ndarray of float64, shape (3,)
        In RAS mm of the head; the normal points up along the axis of the medulla.
    """

    point: NDArray[np.float64]
    normal: NDArray[np.float64]

    def height(self, mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed distance above the plane, of points of shape (..., 3)."""
        return np.asarray((mm - self.point) @ self.normal)

    def from_axis(self, mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance from the axis, of points of shape (..., 3)."""
        away = mm - self.point
        return np.asarray(np.linalg.norm(away - self.height(mm)[..., None] * self.normal, axis=-1))


@dataclass(frozen=True)
class SoftLabels:
    """Labels of one head on a crop of its voxel grid.

    Attributes
    ----------
    shares : ndarray of float32, shape (7, i, j, k)
        Of the regions in `training.atlas.NAMES`; what is missing to 1 is background.
    tectum : ndarray of float32, shape (i, j, k)
        Share of the tectum, which is part of that of the midbrain.
    ignore : ndarray of bool, shape (i, j, k)
        Voxels that are to be left out of the loss.
    affine : ndarray of float64, shape (4, 4)
        From voxels of the crop to RAS mm.
    plane : Plane
        The lower limit of the medulla.
    runs : ndarray of uint8, shape (runs, i, j, k)
        Label map (0 to 7) of each registration alone.
    """

    shares: NDArray[np.float32]
    tectum: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    affine: NDArray[np.float64]
    plane: Plane
    runs: NDArray[np.uint8]

    @property
    def hard(self) -> NDArray[np.uint8]:
        """Label map: the region of the largest share where the background has less than half."""
        return harden(self.shares)


def harden(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the region (1 to 7) of the largest share, 0 where all together are below half."""
    return np.where(shares.sum(0) >= 0.5, shares.argmax(0) + 1, 0).astype(np.uint8)


def carry_labels(
    atlas: Atlas,
    fields: list[NDArray[np.float32]],
    to_template: NDArray[np.float64],
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    codes: NDArray[np.integer] | None = None,
    seen: NDArray[np.bool_] | None = None,
) -> SoftLabels:
    """Carry the atlas to a head.

    Parameters
    ----------
    atlas : Atlas
        What to carry.
    fields : list of ndarray of float32, shape (3, *BOX_SHAPE)
        Registrations of the head in the box to the template.
    to_template : ndarray of float64, shape (4, 4)
        From RAS mm of the head to those of the template.
    shape, affine : tuple of int, ndarray of float64, shape (4, 4)
        The head's voxel grid.
    codes : ndarray of int, shape `shape`, optional
        FreeSurfer codes, for a label map.
    seen : ndarray of bool, shape `shape`, optional
        Voxels that show anything; the others, outside of a skull strip, get no label.

    Returns
    -------
    SoftLabels
    """
    voxel_to_box = np.linalg.inv(BOX_AFFINE) @ to_template @ affine
    window = _window(np.asarray(np.linalg.inv(voxel_to_box), float), shape)
    places = np.moveaxis(apply_affine(voxel_to_box, _indices(window)), -1, 0).astype(np.float32)
    mm = apply_affine(affine, _indices(window))
    plane = _plane(atlas, fields, np.linalg.inv(BOX_AFFINE) @ to_template)
    height, radius = plane.height(mm), plane.from_axis(mm)
    own = None if codes is None else codes[window]

    stack = np.concatenate([atlas.parts, atlas.midbrain[None], atlas.whole[None], atlas.peduncles])
    carried = [_draw(stack, field, places) for field in fields]
    tectum = np.mean([_draw(atlas.tectum[None], field, places)[0] for field in fields], axis=0)
    if seen is not None:
        carried = [one * seen[window] for one in carried]
    shares = _assemble(np.mean(carried, axis=0), height, own)
    runs = np.stack([harden(_assemble(one, height, own)) for one in carried])

    hard = harden(shares)
    brainstem = np.isin(hard, (1, 2, 3, 7))
    ignore = brainstem & (np.abs(height) < PLANE_MM)
    ignore |= (runs == hard).mean(0) < SAME_IN
    ignore |= (height < -CORD_KNOWN_MM) & (radius < CORD_REACH_MM)
    if own is None:
        ignore |= _band(brainstem, np.linalg.norm(affine[:3, :3], axis=0))

    crop, origin = _crop(hard > 0, window, affine)
    return SoftLabels(
        shares=shares[(slice(None), *crop)],
        tectum=(shares[0] * tectum)[crop],
        ignore=ignore[crop],
        affine=origin,
        plane=plane,
        runs=runs[(slice(None), *crop)],
    )


def carry_tectum(
    atlas: Atlas,
    fields: list[NDArray[np.float32]],
    to_template: NDArray[np.float64],
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return which part of the midbrain of each voxel is tectum, on any grid of the head.

    Parameters are those of `carry_labels`; the shape of what is returned is `shape`.
    """
    window = tuple(slice(0, n) for n in shape)
    to_box = np.linalg.inv(BOX_AFFINE) @ to_template @ affine
    places = np.moveaxis(apply_affine(to_box, _indices(window)), -1, 0).astype(np.float32)
    drawn = [_draw(atlas.tectum[None], field, places)[0] for field in fields]
    return np.asarray(np.mean(drawn, axis=0))


def _assemble(
    carried: NDArray[np.float32],
    height: NDArray[np.float64],
    codes: NDArray[np.integer] | None,
) -> NDArray[np.float32]:
    """Turn carried atlas arrays into shares of the seven regions."""
    parts, midbrain, whole, peduncles = carried[:3], carried[3], carried[4], carried[5:]
    if codes is not None:
        own = map_brainstem(codes, midbrain)
        completed = height < _lower_end(own, whole, height) + TAPER_MM
        whole = np.maximum(own, whole * completed).astype(np.float32)
        peduncles = peduncles * np.isin(codes, CEREBELLAR_WHITE_CODES)
    above = np.clip(height + 0.5, 0, 1).astype(np.float32)
    parts = parts / np.maximum(parts.sum(0), 1e-6) * whole * above
    outside = np.minimum(1, (1 - whole) / np.maximum(peduncles.sum(0), 1e-6))
    return np.concatenate([parts, peduncles * outside, (whole * (1 - above))[None]])


def _lower_end(
    own: NDArray[np.bool_], whole: NDArray[np.float32], height: NDArray[np.float64]
) -> float:
    """Return the height down to which a map's brainstem fills nearly all of the carried one.

    Maps stop at any height, often in a thin tail; below, the carried medulla and cord complete
    them.
    """
    step = np.floor(height).astype(int)
    filled = np.bincount((step - step.min())[own], minlength=int(np.ptp(step)) + 1)
    carried = np.bincount((step - step.min())[whole > 0.5], minlength=len(filled))
    start = int(np.argmax(filled))
    short = np.flatnonzero(filled[: start + 1] < FILLED * carried[: start + 1])
    return float(step.min() + (short[-1] + 1 if len(short) else 0))


def _plane(atlas: Atlas, fields: list[NDArray[np.float32]], to_box: NDArray[np.float64]) -> Plane:
    """Carry the axis of the medulla and its lower end to the head; average over registrations."""
    points = np.vstack([atlas.cut, atlas.axis])
    found = [_back(points, field) for field in fields]
    mm = apply_affine(np.linalg.inv(to_box), np.mean(found, axis=0))
    _, _, directions = np.linalg.svd(mm[1:] - mm[1:].mean(0))
    normal = directions[0] * np.sign((mm[1] - mm[-1]) @ directions[0])
    return Plane(point=mm[0], normal=normal)


def _back(points: NDArray[np.float64], field: NDArray[np.float32]) -> NDArray[np.float64]:
    """Carry points of the template, shape (n, 3), to the head; `invert` at them alone."""
    there = points
    for _ in range(12):
        shift = draw(field, there.T[:, :, None, None].astype(np.float32))
        there = points - shift[:, :, 0, 0].T
    return there


def _draw(
    stack: NDArray[np.float32], field: NDArray[np.float32], places: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Draw atlas arrays at voxels of the head, of box coordinates (3, i, j, k)."""
    return draw(stack, places + draw(field, places))


def _band(brainstem: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Voxels within `BORDER_MM` of the outer border."""
    inside = ndimage.distance_transform_edt(brainstem, sampling=spacing)
    outside = ndimage.distance_transform_edt(~brainstem, sampling=spacing)
    half = spacing.mean() / 2  # distances run between voxel centres, the border lies halfway
    return np.asarray(np.maximum(inside, outside) - half < BORDER_MM)


def _window(box_to_voxel: NDArray[np.float64], shape: tuple[int, int, int]) -> tuple[slice, ...]:
    """Return the part of a voxel grid that the box covers."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in BOX_SHAPE]), -1).reshape(-1, 3)
    voxels = apply_affine(box_to_voxel, corners)
    first = np.clip(np.floor(voxels.min(0)).astype(int), 0, None)
    last = np.minimum(np.ceil(voxels.max(0)).astype(int) + 1, shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))


def _indices(window: tuple[slice, ...]) -> NDArray[np.float64]:
    """Voxel indices of a window, shape (i, j, k, 3)."""
    return np.stack(
        np.meshgrid(*[np.arange(s.start, s.stop, dtype=float) for s in window], indexing="ij"), -1
    )


def _crop(
    labelled: NDArray[np.bool_], window: tuple[slice, ...], affine: NDArray[np.float64]
) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
    """Cut a window to what is labelled and a margin; the slices, and the crop's affine."""
    margin = np.ceil(MARGIN_MM / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    found = np.argwhere(labelled)
    first = np.maximum(found.min(0) - margin, 0)
    last = np.minimum(found.max(0) + margin + 1, labelled.shape)
    origin = affine.copy()
    origin[:3, 3] = apply_affine(affine, first + [s.start for s in window])
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True)), origin
