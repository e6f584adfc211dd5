"""The second pass: segmentation in the canonical frame of the brainstem that the first pass found.

The volumes and the shape of regions come from this pass alone, the label map from the mean of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from bids_app.geometry.frame import make_frame, sample, to_grid
from bids_app.geometry.pose import find_pose
from bids_app.regions import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bids_app.geometry.frame import Frame
    from bids_app.geometry.pose import Pose
    from bids_app.regions import Region

    Floats = NDArray[np.float64]
    Maps = NDArray[np.float32]

REPEAT_DEGREES = 1.0  # a larger turn between the poses of both passes calls for a third pass

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FramePass(Generic[T]):
    """What a network gives in the canonical frame.

    Attributes
    ----------
    frame : Frame
    probabilities : ndarray of float32, shape (K, EDGE, EDGE, EDGE)
        Of the model's K regions, in their order; axes right, front, up.
    outside_fraction : float
        Share of the frame outside the image's field of view.
    turn_degrees : float or None
        Angle between the frame and the pose of the brainstem in it; None if there is none in it.
    repeated : bool
        The frame was placed once more, by the pose in a first frame.
    note : str or None
        What was missing for a full pose (`bids_app.geometry.pose.Pose.note`).
    extra : T
        What else the network gave.
    """

    frame: Frame
    probabilities: Maps
    outside_fraction: float
    turn_degrees: float | None
    repeated: bool
    note: str | None
    extra: T


def segment_in_frame(
    image: Maps,
    affine: Floats,
    first: Maps,
    first_affine: Floats,
    regions: Sequence[Region],
    predict: Callable[[Maps], tuple[Maps, T]],
) -> FramePass[T] | None:
    """Segment an image in the canonical frame that its first segmentation gives.

    Parameters
    ----------
    image : ndarray of float32, shape (X, Y, Z)
        In any voxel order.
    affine : ndarray, shape (4, 4)
        Voxel indices of `image` to RAS+ millimetres.
    first : ndarray of float32, shape (K, x, y, z)
        Probabilities of the first pass.
    first_affine : ndarray, shape (4, 4)
        Voxel indices of `first` to RAS+ millimetres.
    regions : sequence of Region
        Of the model, K; the pose rests on those named midbrain, pons and medulla.
    predict : callable
        Takes the normalized image in the frame, shape (EDGE, EDGE, EDGE), gives the probabilities
        of the K regions there, shape (K, EDGE, EDGE, EDGE), and anything else.

    Returns
    -------
    FramePass or None
        None where the first pass shows no brainstem.
    """
    pose = find_pose(brainstem_parts(first, regions), first_affine)
    if pose is None:
        return None
    found, seen = _pass(image, affine, pose, regions, predict, repeated=False)
    if seen is not None and seen.note is None and pose.angle_to(seen) > REPEAT_DEGREES:
        found, _ = _pass(image, affine, seen, regions, predict, repeated=True)
    return found


def mean_of_passes(first: Maps, first_affine: Floats, second: FramePass[T]) -> NDArray[np.float32]:
    """Average the probabilities of both passes on the grid of the first.

    Parameters
    ----------
    first : ndarray of float32, shape (K, x, y, z)
        Probabilities of the first pass.
    first_affine : ndarray, shape (4, 4)
        Voxel indices of `first` to RAS+ millimetres.
    second : FramePass

    Returns
    -------
    ndarray of float32, shape (K, x, y, z)
    """
    maps, box = to_grid(second.probabilities, second.frame, first_affine, first.shape[1:])
    mean: NDArray[np.float32] = first * np.float32(0.5)
    mean[(slice(None), *box)] += maps / 2
    return mean


def brainstem_parts(maps: Maps, regions: Sequence[Region]) -> Maps:
    """Choose midbrain, pons and medulla among the maps of regions; 0 for one that is not there.

    Parameters
    ----------
    maps : ndarray of float32, shape (K, X, Y, Z)
    regions : sequence of Region
        K in the order of `maps`.

    Returns
    -------
    ndarray of float32, shape (3, X, Y, Z)
    """
    by_name = {region.name: part for region, part in zip(regions, maps, strict=True)}
    nothing = np.zeros(maps.shape[1:], np.float32)
    return np.stack([by_name.get(name, nothing) for name in PARTS])


def _pass(
    image: Maps,
    affine: Floats,
    pose: Pose,
    regions: Sequence[Region],
    predict: Callable[[Maps], tuple[Maps, T]],
    *,
    repeated: bool,
) -> tuple[FramePass[T], Pose | None]:
    """Segment in the frame of a pose; also give the pose of what is found there."""
    frame = make_frame(pose)
    sampled = sample(image, affine, frame)
    maps, extra = predict(sampled.normalized())
    seen = find_pose(brainstem_parts(maps, regions), frame.affine)
    turn = None if seen is None else pose.angle_to(seen)
    fraction = sampled.outside_fraction
    return FramePass(frame, maps, fraction, turn, repeated, pose.note, extra), seen
