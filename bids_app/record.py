"""What is written for one image: maps, tables, picture, and last of all the sidecar."""

from __future__ import annotations

import math
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from bids_app import __version__
from bids_app.derivatives import dump_json, model_entry, number, source_uri, table
from bids_app.files import remove, write_atomic
from bids_app.images import label_image, nifti_bytes, probability_image
from bids_app.measures import measure_regions
from bids_app.quality import flags
from bids_app.reports.pictures import mosaic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.derivatives import Outputs
    from bids_app.images import Volume
    from bids_app.measures import RegionMeasure
    from bids_app.models.store import Model
    from bids_app.scans import Scan
    from bids_app.segment import Segmentation

VOLUME_COLUMNS = {
    "index": {"Description": "Value in the label map; n/a for the whole brainstem"},
    "name": {"Description": "Name of the region"},
    "abbreviation": {"Description": "Short name of the region"},
    "voxels": {"Description": "Voxels with this label"},
    "volume_mm3": {
        "Description": "Voxels times the volume of a voxel, which is the affine's determinant",
        "Units": "mm^3",
    },
    "soft_volume_mm3": {
        "Description": "Sum of the region's probabilities times the volume of a voxel",
        "Units": "mm^3",
    },
    "clusters": {"Description": "Connected pieces; voxels that share a face are connected"},
    "centroid_x_mm": {"Description": "Centre of mass, to the right (RAS)", "Units": "mm"},
    "centroid_y_mm": {"Description": "Centre of mass, to the front (RAS)", "Units": "mm"},
    "centroid_z_mm": {"Description": "Centre of mass, upwards (RAS)", "Units": "mm"},
}


@dataclass(frozen=True)
class Context:
    """What is the same for all images of a run.

    Attributes
    ----------
    model : Model
        The model in use.
    settings : dict
        Those settings that change the result.
    probabilities : bool
        Whether probability maps are written.
    """

    model: Model
    settings: dict[str, Any]
    probabilities: bool


@dataclass(frozen=True)
class Record:
    """What one image gave, for the summary of the run."""

    measures: tuple[RegionMeasure, ...]
    flags: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


def write_image(
    outputs: Outputs,
    scan: Scan,
    volume: Volume,
    segmentation: Segmentation,
    context: Context,
    seconds: float,
) -> Record:
    """Measure one image and write all its files.

    The sidecar of an earlier result is removed first and the new one written last, so that an
    image is never marked complete while its files are of two minds.

    Parameters
    ----------
    outputs : Outputs
        Where the files stand.
    scan : Scan
        The source image.
    volume : Volume
        Its voxels.
    segmentation : Segmentation
        Its label map and probabilities.
    context : Context
        Model and settings.
    seconds : float
        Time that reading and segmenting took.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    measures = measure_regions(
        segmentation.labels,
        volume.affine,
        context.model.regions,
        probabilities=segmentation.probabilities,
    )
    found = flags(segmentation, measures)
    remove([outputs.sidecar])
    labels = label_image(segmentation.labels, volume.grid)
    write_atomic(outputs.dseg, nifti_bytes(labels, compress=True))
    if context.probabilities:
        _write_probabilities(outputs, scan, volume, segmentation, context)
    else:  # maps of an earlier run would not belong to these labels
        remove([outputs.probseg_sidecar, outputs.probseg])
    write_atomic(outputs.volumes, table(list(VOLUME_COLUMNS), [_row(m) for m in measures]))
    write_atomic(outputs.volumes_sidecar, dump_json(VOLUME_COLUMNS))
    picture = mosaic(volume.data, segmentation.labels, volume.voxel_size, context.model.regions)
    write_atomic(outputs.picture, picture)
    agreement = segmentation.agreement or ()
    quality = {
        "voxel_size_mm": [round(edge, 4) for edge in volume.voxel_size],
        "etiv_mm3": _rounded(segmentation.intracranial_mm3, 1),
        "locator_confidence": _rounded(segmentation.confidence, 4),
        **{
            f"{region.name}_agreement": _rounded(share, 4)
            for region, share in zip(context.model.regions, agreement, strict=False)
        },
    }
    sidecar = {
        "Description": "Midbrain, pons and medulla oblongata, segmented by a neural network",
        **_origin(scan),
        "Manual": False,
        "Model": model_entry(context.model),
        "InputSHA256": volume.sha256,
        "Settings": context.settings,
        "Device": segmentation.device,
        "SoftwareVersions": software_versions(),
        "Quality": {key: value for key, value in quality.items() if value is not None},
        "Flags": list(found),
        "Warnings": list(volume.warnings),
        "Seconds": round(seconds, 2),
    }
    write_atomic(outputs.sidecar, dump_json(sidecar))
    return Record(measures, found, volume.warnings, seconds)


@cache
def software_versions() -> str:
    """Versions of the software that a result hangs on, in one line (BIDS wants text)."""
    versions = [f"bids_app {__version__}", f"python {platform.python_version()}"]
    for package in ("torch", "nnunetv2", "numpy", "scipy", "nibabel"):
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return ", ".join(versions)


def _write_probabilities(
    outputs: Outputs, scan: Scan, volume: Volume, segmentation: Segmentation, context: Context
) -> None:
    image = probability_image(segmentation.whole_probabilities(), volume.grid)
    write_atomic(outputs.probseg, nifti_bytes(image, compress=True))
    sidecar = {
        "Description": "Probabilities of the regions, one volume a label, in the order of LabelMap",
        **_origin(scan),
        "LabelMap": [region.abbreviation for region in context.model.regions],
        "Model": model_entry(context.model),
    }
    write_atomic(outputs.probseg_sidecar, dump_json(sidecar))


def _origin(scan: Scan) -> dict[str, Any]:
    uri = source_uri(scan)
    return {"Sources": [uri], "SpatialReference": uri}


def _row(measure: RegionMeasure) -> Sequence[str]:
    centroid = measure.centroid or (None, None, None)
    return [
        "n/a" if measure.index is None else str(measure.index),
        measure.name,
        measure.abbreviation,
        str(measure.voxels),
        number(measure.volume_mm3),
        number(measure.soft_volume_mm3),
        str(measure.clusters),
        *(number(value) for value in centroid),
    ]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or math.isnan(value) else round(value, digits)
