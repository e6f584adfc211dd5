"""The second pass: segmentation in the canonical frame of the brainstem that the first pass found.

The volumes and the shape of regions come from this pass alone, the label map from the mean of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.geometry.frame import make_frame, sample, to_grid
from bids_app.geometry.pose import find_pose
from bids_app.regions import PARTS
from bids_app.segmentation.labels import most_probable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bids_app.geometry.frame import Frame
    from bids_app.geometry.pose import Pose
    from bids_app.regions import Region

    Floats = NDArray[np.float64]
    Maps = NDArray[np.float32]

REPEAT_DEGREES = 1.0  # a larger turn between the poses of both passes calls for a third pass


@dataclass(frozen=True, eq=False)
class FramePass:
    """What a network gives in the canonical frame.

    Attributes
    ----------
    frame : Frame
    probabilities : ndarray of float32, shape (K, EDGE, EDGE, EDGE)
        Of the model's K regions, in their order; axes right, front, up.
    inside : ndarray of bool, shape (EDGE, EDGE, EDGE)
        Voxels of the frame within the image's field of view.
    turn_degrees : float or None
        Angle between the frame and the pose of the brainstem in it; None if there is none in it.
    repeated : bool
        The frame was placed once more, by the pose in a first frame.
    note : str or None
        What was missing for a full pose (`bids_app.geometry.pose.Pose.note`).
    parts : ndarray of float32, shape (P, EDGE, EDGE, EDGE), or None
        Of the model's parts, in the order of `bids_app.models.manifest.Model.parts`.
    """

    frame: Frame
    probabilities: Maps
    inside: NDArray[np.bool_]
    turn_degrees: float | None
    repeated: bool
    note: str | None
    parts: Maps | None = None

    def describe(self) -> dict[str, Any]:
        """Describe the frame for the sidecar of a label map."""
        turn = self.turn_degrees
        return {
            "Affine": np.round(self.frame.affine, 4).tolist(),
            "OutsideFraction": round(1 - float(self.inside.mean()), 4),
            "TurnDegrees": None if turn is None else round(turn, 2),
            "Repeated": self.repeated,
            **({} if self.note is None else {"Note": self.note}),
        }


def segment_in_frame(
    image: Maps,
    affine: Floats,
    first: Maps,
    first_affine: Floats,
    regions: Sequence[Region],
    predict: Callable[[Maps], Maps],
) -> FramePass | None:
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
        Takes the normalized image in the frame, shape (EDGE, EDGE, EDGE), and gives the
        probabilities of the K regions there, shape (K, EDGE, EDGE, EDGE).

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


def mean_of_passes(
    first: Maps, first_affine: Floats, second: FramePass
) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Average the probabilities of both passes on the grid of the first, and compare them.

    Parameters
    ----------
    first : ndarray of float32, shape (K, x, y, z)
        Probabilities of the first pass.
    first_affine : ndarray, shape (4, 4)
        Voxel indices of `first` to RAS+ millimetres.
    second : FramePass

    Returns
    -------
    mean : ndarray of float32, shape (K, x, y, z)
    dice : tuple of K float
        Dice between the voxels of each region in the first and in the second pass; nan for a region
        that neither has.
    """
    maps, box = to_grid(second.probabilities, second.frame, first_affine, first.shape[1:])
    again = np.zeros_like(first)
    again[(slice(None), *box)] = maps
    mean: Maps = (first + again) / np.float32(2)
    return mean, _dice(most_probable(first), most_probable(again), len(first))


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


def _dice(first: NDArray[np.uint8], second: NDArray[np.uint8], number: int) -> tuple[float, ...]:
    """Dice of each of so many labels between two maps; nan for one that neither has."""
    both = np.bincount(first[first == second], minlength=number + 1)
    total = np.bincount(first.ravel(), minlength=number + 1)
    total += np.bincount(second.ravel(), minlength=number + 1)
    return tuple(np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)[1:].tolist())


def _pass(
    image: Maps,
    affine: Floats,
    pose: Pose,
    regions: Sequence[Region],
    predict: Callable[[Maps], Maps],
    *,
    repeated: bool,
) -> tuple[FramePass, Pose | None]:
    """Segment in the frame of a pose; also give the pose of what is found there."""
    frame = make_frame(pose)
    sampled = sample(image, affine, frame)
    maps = predict(sampled.normalized())
    seen = find_pose(brainstem_parts(maps, regions), frame.affine)
    turn = None if seen is None else pose.angle_to(seen)
    return FramePass(frame, maps, sampled.inside, turn, repeated, pose.note), seen
