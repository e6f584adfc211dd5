"""Measure one segmented image: volumes, shape, quality and flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_app.bids.results import RegionVolume
from bids_app.measures.flags import find_flags
from bids_app.measures.quality import measure_quality
from bids_app.measures.shape import measure_shape
from bids_app.measures.volumes import measure_regions
from bids_app.regions import of_brainstem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bids_app.io.images import Volume
    from bids_app.measures.shape import RegionShape, Shape
    from bids_app.measures.volumes import RegionMeasure
    from bids_app.regions import Region
    from bids_app.segmentation.types import Segmentation


@dataclass(frozen=True)
class Measurements:
    """All that is measured on one segmented image.

    Attributes
    ----------
    volumes : tuple of RegionVolume
        Rows of the table of volumes: one per region, then the whole brainstem.
    shape : Shape
        Surfaces, areas and diameters, with the midsagittal plane.
    quality : dict of str to float
        From `bids_app.measures.quality.measure_quality`.
    flags : tuple of str
        Keys of `bids_app.measures.flags.FLAGS`.
    """

    volumes: tuple[RegionVolume, ...]
    shape: Shape
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
    labels, whole = segmentation.labels, of_brainstem(regions)
    measures = measure_regions(
        labels, volume.affine, regions, whole=whole, probabilities=segmentation.probabilities
    )
    shape = measure_shape(labels, volume.affine, regions, whole)
    quality = measure_quality(volume, segmentation, regions, measures, shape)
    flags = find_flags(segmentation, measures, quality, thresholds)
    spread = segmentation.spread or [None] * len(measures)
    volumes = tuple(
        _row(of_region, of_shape, share)
        for of_region, of_shape, share in zip(measures, shape.regions, spread, strict=True)
    )
    return Measurements(volumes, shape, quality, flags)


def _row(region: RegionMeasure, shape: RegionShape, spread: float | None) -> RegionVolume:
    """Make a row of the table of volumes; `spread` is relative to the volume."""
    x, y, z = region.centroid or (None, None, None)
    return RegionVolume.rounded(
        index=region.index,
        name=region.name,
        abbreviation=region.abbreviation,
        voxels=region.voxels,
        volume_mm3=region.volume_mm3,
        soft_volume_mm3=region.soft_volume_mm3,
        clusters=region.clusters,
        centroid_x_mm=x,
        centroid_y_mm=y,
        centroid_z_mm=z,
        surface_mm2=shape.surface_mm2,
        midsagittal_mm2=shape.midsagittal_mm2,
        ap_diameter_mm=shape.ap_diameter_mm,
        volume_20mm_mm3=shape.to_20mm_mm3,
        volume_sd_mm3=None if spread is None else spread * region.volume_mm3,
    )
