"""A frame halfway between several scans of one head.

Each scan comes sampled in its own canonical frame. Rigid movements bring them to a common place
that favours none: all scans are compared with their mean, and the mean of the movements is zero.
Exchanging two scans exchanges their movements and nothing else (inverse consistency). As in robust
registration (Reuter et al. 2010, doi 10.1016/j.neuroimage.2010.07.020), Tukey's biweight leaves out
voxels that changed, so that atrophy does not move the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Images = NDArray[np.float32]

AROUND_MM = 4.0  # voxels so far from the brainstem take part
# From coarse to fine: standard deviation of a blur in voxels, and every how many-th voxel counts.
_LEVELS = ((2.0, 8), (1.0, 4), (0.5, 2))
_STEPS = 12  # at most, per blur
_LEAST_MOVE = 1e-3  # voxels, at which a step ends
_LEAST_POINTS = 500
_MOST_GAIN = 1.0  # log of a bias, far from the brainstem
_BIWEIGHT = 4.685
_TO_SIGMA = 1.4826
_INNER = 0.5  # probability of the brainstem where intensities are matched


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where scans lie in their middle.

    Attributes
    ----------
    movements : ndarray, shape (N, 4, 4)
        Rigid; voxel indices of the middle to those of each scan.
    centre : ndarray, shape (3,)
        Of the brainstem, voxel indices of the middle.
    gains : ndarray, shape (N, 10)
        Coefficients of `gain_field`, which matches the intensities of each scan to their mean.
    fit : ndarray, shape (N,)
        Correlation of each scan with the mean of the others around the brainstem.
    """

    movements: Floats
    centre: Floats
    gains: Floats
    fit: Floats


def align(images: Images, inside: NDArray[np.bool_], brainstem: Images) -> Alignment | None:
    """Find the middle of several scans of one head.

    Parameters
    ----------
    images : ndarray of float32, shape (N, X, Y, Z)
        Scans, each in its own canonical frame; at least two.
    inside : ndarray of bool, shape (N, X, Y, Z)
        Voxels within the field of view of each scan.
    brainstem : ndarray of float32, shape (N, X, Y, Z)
        Probability of the brainstem in each scan.

    Returns
    -------
    Alignment or None
        None if there is too little of a brainstem that all scans show.
    """
    stem = brainstem.mean(axis=0) >= _INNER
    if not stem.any():
        return None
    scales = np.array([np.median(image[stem]) for image in images], dtype=np.float64)
    around = ndimage.distance_transform_edt(~stem) <= AROUND_MM
    places = np.argwhere(around & inside.all(axis=0))
    inner = stem[tuple(places.T)]
    if len(places) < _LEAST_POINTS or not inner.any() or not (scales > 0).all():
        return None
    centre = places[inner].mean(axis=0)
    turns, shifts = np.zeros((len(images), 3)), np.zeros((len(images), 3))
    for blur, every in _LEVELS:
        levels = [
            _Level(image / np.float32(scale), seen, blur)
            for image, scale, seen in zip(images, scales, inside, strict=True)
        ]
        chosen, terms = places[::every].astype(np.float64), _terms(places[::every], centre)
        for _ in range(_STEPS):
            moved = [
                apply_affine(_movement(turn, shift, centre), chosen)
                for turn, shift in zip(turns, shifts, strict=True)
            ]
            pairs = list(zip(levels, moved, strict=True))
            seen = np.all([level.inside(there) for level, there in pairs], axis=0)
            drawn = np.stack([level.values(there) for level, there in pairs])
            gains = _fit_gains(drawn, terms, inner[::every] & seen)
            drawn = drawn * np.exp(gains @ terms.T)
            slopes = np.mean([level.slopes(there) for level, there in pairs], axis=0)
            step = _steps(drawn, slopes, chosen - centre, seen)
            turns, shifts = turns + step[:, :3], shifts + step[:, 3:]
            turns, shifts = turns - turns.mean(axis=0), shifts - shifts.mean(axis=0)
            # 30 voxels is about the brainstem's half length.
            if np.abs(step[:, 3:]).max() + 30 * np.abs(step[:, :3]).max() < _LEAST_MOVE:
                break
    movements = np.stack([_movement(t, s, centre) for t, s in zip(turns, shifts, strict=True)])
    gains[:, 0] += np.log(scales).mean() - np.log(scales)
    return Alignment(movements, centre, gains, _fits(drawn[:, seen]))


def gain_field(alignment: Alignment, number: int, shape: tuple[int, ...]) -> Images:
    """Give the factor that matches a scan's intensities to the mean, around the brainstem.

    Parameters
    ----------
    alignment : Alignment
    number : int
        Of the scan.
    shape : tuple of three int
        Of the middle.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        A smooth field; meaningful within `AROUND_MM` of the brainstem.
    """
    places = np.indices(shape).reshape(3, -1).T.astype(np.float64)
    factor, *others = alignment.gains[number]
    logs = _terms(places, alignment.centre)[:, 1:] @ np.array(others)
    field = np.exp(factor + np.clip(logs, -_MOST_GAIN, _MOST_GAIN))
    return field.reshape(shape).astype(np.float32)  # type: ignore[no-any-return]


class _Level:
    """A blurred scan, from which values and slopes are read at any place."""

    def __init__(self, image: Images, seen: NDArray[np.bool_], blur: float) -> None:
        smooth = ndimage.gaussian_filter(image, blur)
        self._spline = ndimage.spline_filter(smooth, order=3, output=np.float32, mode="mirror")
        self._slopes = np.gradient(smooth)
        self._seen = seen

    def values(self, places: Floats) -> Floats:
        return self._read(self._spline, places, 3)

    def slopes(self, places: Floats) -> Floats:
        return np.stack([self._read(slope, places, 1) for slope in self._slopes])

    def inside(self, places: Floats) -> NDArray[np.bool_]:
        return self._read(self._seen.astype(np.float32), places, 0) > 0

    @staticmethod
    def _read(data: Images, places: Floats, order: int) -> Floats:
        read: Any = ndimage.map_coordinates
        values: Floats = read(
            data, places.T, order=order, mode="nearest", prefilter=False, output=np.float64
        )
        return values


def _movement(turn: Floats, shift: Floats, centre: Floats) -> Floats:
    """Turn about a centre, then shift."""
    movement = np.eye(4)
    movement[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    movement[:3, 3] = centre + shift - movement[:3, :3] @ centre
    return movement


def _terms(places: NDArray[Any], centre: Floats) -> Floats:
    """Polynomials of second degree at places, about a centre, in units of 30 voxels."""
    x, y, z = ((places - centre) / 30).T
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, x * z], axis=1)


def _fit_gains(drawn: Floats, terms: Floats, where: NDArray[np.bool_]) -> Floats:
    """Fit log gains of each scan, whose mean over scans is 0."""
    where = where & (drawn > 0.1 * np.median(drawn[:, where], axis=1, keepdims=True)).all(axis=0)
    if where.sum() < _LEAST_POINTS:
        return np.zeros((len(drawn), terms.shape[1]))
    logs = np.log(drawn[:, where])
    differences = logs.mean(axis=0) - logs
    gains = np.zeros((len(drawn), terms.shape[1]))
    weights = np.ones(differences.shape)
    for _ in range(3):
        for k, (difference, weight) in enumerate(zip(differences, weights, strict=True)):
            weighted = terms[where] * weight[:, None]
            gains[k] = np.linalg.lstsq(weighted.T @ terms[where], weighted.T @ difference)[0]
        weights = _biweights(differences - gains @ terms[where].T)
    centred: Floats = gains - gains.mean(axis=0)
    return centred


def _biweights(residuals: Floats) -> Floats:
    """Tukey's weights of residuals, shape (N, M), by one scale for all."""
    scale = _BIWEIGHT * _TO_SIGMA * max(float(np.median(np.abs(residuals))), 1e-12)
    weights: Floats = np.clip(1 - (residuals / scale) ** 2, 0, None) ** 2
    return weights


def _steps(drawn: Floats, slopes: Floats, arms: Floats, seen: NDArray[np.bool_]) -> Floats:
    """Gauss-Newton steps (turn, shift) of each scan towards the mean, shape (N, 6)."""
    residuals = drawn.mean(axis=0) - drawn
    weights = _biweights(residuals) * seen
    pushes = np.concatenate([np.cross(arms, slopes.T), slopes.T], axis=1)
    steps = np.zeros((len(drawn), 6))
    for k, (residual, weight) in enumerate(zip(residuals, weights, strict=True)):
        weighted = pushes * weight[:, None]
        steps[k] = np.linalg.lstsq(weighted.T @ pushes, weighted.T @ residual)[0]
    return steps


def _fits(drawn: Floats) -> Floats:
    """Correlate each scan with the mean of the others."""
    total = drawn.sum(axis=0)
    return np.array([np.corrcoef(one, total - one)[0, 1] for one in drawn])
