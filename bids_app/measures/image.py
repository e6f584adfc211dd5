"""Measure one segmented image: volumes, shape, quality and flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_app.bids.results import RegionVolume
from bids_app.geometry.frame import make_frame, to_frame
from bids_app.geometry.pose import find_pose
from bids_app.measures.flags import find_flags
from bids_app.measures.probabilities import near_largest, sum_volumes
from bids_app.measures.quality import measure_quality
from bids_app.measures.shape import RegionShape, measure_shape
from bids_app.measures.volumes import measure_regions
from bids_app.regions import of_brainstem
from bids_app.segmentation.canonical import brainstem_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bids_app.io.images import Volume
    from bids_app.measures.volumes import RegionMeasure
    from bids_app.regions import Region
    from bids_app.segmentation.types import Segmentation

NO_SHAPE = RegionShape()


@dataclass(frozen=True)
class Measurements:
    """All that is measured on one segmented image.

    Attributes
    ----------
    volumes : tuple of RegionVolume
        Rows of the table of volumes: one per region, then the whole brainstem.
    quality : dict of str to float
        From `bids_app.measures.quality.measure_quality`.
    flags : tuple of str
        Keys of `bids_app.measures.flags.FLAGS`.
    """

    volumes: tuple[RegionVolume, ...]
    quality: dict[str, float]
    flags: tuple[str, ...]


def measure(
    volume: Volume,
    segmentation: Segmentation,
    regions: Sequence[Region],
    thresholds: Mapping[str, float] | None = None,
) -> Measurements:
    """Measure a segmented image.

    Parameters
    ----------
    volume : Volume
        The image.
    segmentation : Segmentation
        Its label map and probabilities.
    regions : sequence of Region
        Of the model.
    thresholds : mapping of str to float, optional
        Of flags, where they are not those of `bids_app.measures.flags.CHECKS`.
    """
    whole = of_brainstem(regions)
    measures = measure_regions(segmentation.labels, volume.affine, regions, whole=whole)
    volumes, maps = _measured_maps(volume, segmentation, regions)
    volumes = (*volumes, sum(volumes[regions.index(part)] for part in whole))
    shapes: Sequence[RegionShape] = [NO_SHAPE] * len(measures)
    if maps is not None:
        shapes = measure_shape(maps, regions, whole)
    quality = measure_quality(volume, segmentation, regions, measures, maps)
    flags = find_flags(segmentation, measures, quality, thresholds)
    spread = segmentation.spread or [None] * len(measures)
    rows = tuple(
        make_row(*values) for values in zip(measures, volumes, shapes, spread, strict=True)
    )
    return Measurements(rows, quality, flags)


def _measured_maps(
    volume: Volume, segmentation: Segmentation, regions: Sequence[Region]
) -> tuple[tuple[float, ...], NDArray[np.float32] | None]:
    """Volumes of K regions in mm3, and probabilities for their shape in the canonical frame.

    A model that segments in that frame is measured there. Others are measured on the image's grid,
    and their probabilities are then sampled in the frame that they give. There are none where no
    brainstem is seen.
    """
    if (second := segmentation.frame_pass) is not None:
        kept = near_largest(second.probabilities, second.frame.affine)
        return sum_volumes(kept, second.frame.affine), kept
    affine = segmentation.box_affine(volume.affine)
    labels = segmentation.labels[segmentation.box]
    masks = np.stack([labels == region.index for region in regions])
    kept = near_largest(segmentation.probabilities, affine, masks)
    pose = find_pose(brainstem_parts(kept, regions), affine)
    in_frame = None if pose is None else to_frame(kept, affine, make_frame(pose))
    return sum_volumes(kept, affine), in_frame


def make_row(
    region: RegionMeasure,
    volume_mm3: float,
    shape: RegionShape = NO_SHAPE,
    spread: float | None = None,
) -> RegionVolume:
    """Make a row of the table of volumes; `spread` is relative to the volume."""
    x, y, z = region.centroid or (None, None, None)
    return RegionVolume.rounded(
        index=region.index,
        name=region.name,
        abbreviation=region.abbreviation,
        voxels=region.voxels,
        volume_mm3=volume_mm3,
        label_volume_mm3=region.volume_mm3,
        clusters=region.clusters,
        centroid_x_mm=x,
        centroid_y_mm=y,
        centroid_z_mm=z,
        surface_mm2=shape.surface_mm2,
        midsagittal_mm2=shape.midsagittal_mm2,
        ap_diameter_mm=shape.ap_diameter_mm,
        volume_20mm_mm3=shape.to_20mm_mm3,
        volume_sd_mm3=None if spread is None else spread * volume_mm3,
    )
