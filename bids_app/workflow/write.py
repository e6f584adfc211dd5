"""What is written for one image: maps, tables, picture, and last of all the sidecar."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from bids_app import __version__
from bids_app.bids.columns import VOLUMES
from bids_app.bids.results import model_entry, source_uri
from bids_app.io.files import remove, write_atomic
from bids_app.io.images import label_image, nifti_bytes, probability_image
from bids_app.io.tables import data_dictionary, dump_json, dump_rows
from bids_app.measures.quality import measure
from bids_app.models import store
from bids_app.regions import first_words
from bids_app.reports.images.figures import write_figures

if TYPE_CHECKING:
    from bids_app.bids.outputs import Outputs
    from bids_app.bids.results import RegionVolume
    from bids_app.bids.scans import Scan
    from bids_app.io.images import Volume
    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import Segmentation


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
    thresholds : dict of str to float
        Of flags, where they are not those of `bids_app.measures.flags.CHECKS`.
    """

    model: Model
    settings: dict[str, Any]
    probabilities: bool
    thresholds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def models(self) -> dict[str, Any]:
        """The model as sidecars describe it, and with ``--region`` the one that locates, too."""
        told: dict[str, Any] = {"Model": model_entry(self.model)}
        if self.settings.get("Region"):
            locator = store.find(store.DEFAULT)
            told["Locator"] = {**model_entry(locator), "Label": locator.label}
        return told


@dataclass(frozen=True)
class Record:
    """What one image gave, for the summary of the run."""

    volumes: tuple[RegionVolume, ...]
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
    found = measure(volume, segmentation, context.model.regions, context.thresholds)
    remove([outputs.sidecar])
    labels = label_image(segmentation.labels, volume.grid)
    write_atomic(outputs.dseg, nifti_bytes(labels, compress=True))
    if context.probabilities:
        _write_probabilities(outputs, scan, volume, segmentation, context)
    else:  # maps of an earlier run would not belong to these labels
        remove([outputs.probseg_sidecar, outputs.probseg])
    write_atomic(outputs.volumes, dump_rows([row.row() for row in found.volumes], VOLUMES))
    write_atomic(outputs.volumes_sidecar, dump_json(data_dictionary(VOLUMES)))
    write_figures(outputs, volume, segmentation.labels, context.model.regions)
    regions = [region.name for region in context.model.regions]
    sidecar = {
        "Description": f"{first_words(regions)}, segmented by a neural network",
        **_origin(scan),
        "Manual": False,
        **context.models,
        "InputSHA256": volume.sha256,
        "Settings": context.settings,
        "Device": segmentation.device,
        "SoftwareVersions": software_versions(segmentation.device),
        "Quality": {
            "voxel_size_mm": [round(edge, 4) for edge in volume.voxel_size],
            **found.quality,
        },
        "Flags": list(found.flags),
        "FlagThresholds": context.thresholds,
        "Warnings": list(volume.warnings),
        "Seconds": round(seconds, 2),
    }
    write_atomic(outputs.sidecar, dump_json(sidecar))
    return Record(found.volumes, found.flags, volume.warnings, seconds)


@cache
def software_versions(device: str) -> str:
    """Versions of the software that a result hangs on, in one line (BIDS wants text)."""
    runtime = ("openvino",) if device == "openvino" else ()
    versions = [f"bids_app {__version__}", f"python {platform.python_version()}"]
    for package in ("torch", *runtime, "nnunetv2", "numpy", "scipy", "nibabel"):
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
