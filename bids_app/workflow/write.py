"""Measure one image and write its files; the sidecar comes last and marks the image as complete."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from bids_app.bids.columns import PART_VOLUMES, VOLUMES
from bids_app.bids.outputs import ENTITIES
from bids_app.bids.results import FileRecord, Result, Sidecar, model_entry, source_uri, timestamp
from bids_app.io.files import remove, write_atomic
from bids_app.io.images import label_image, nifti_bytes, probability_image
from bids_app.io.tables import data_dictionary, dump_json, dump_rows, read_json
from bids_app.measures.flags import read_thresholds
from bids_app.measures.image import measure
from bids_app.measures.parts import measure_parts
from bids_app.models import store
from bids_app.regions import first_words, in_words
from bids_app.reports.images.cutout import cut_out
from bids_app.reports.images.pictures import mosaic
from bids_app.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.bids.outputs import Outputs
    from bids_app.bids.scans import Scan
    from bids_app.io.images import Volume
    from bids_app.measures.image import Measurements
    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import Segmentation
    from bids_app.settings import Settings

# Where each engine's volumes are measured.
_VOLUMES_IN = {"cascade": "in the canonical frame"}
_IMAGE_GRID = "on the image's grid"


@dataclass(frozen=True)
class Context:
    """What is the same for all images of a run.

    Attributes
    ----------
    model : Model
        The model in use.
    settings : dict
        Settings that change the result, as in the sidecar.
    probabilities : bool
        Whether probability maps are written.
    thresholds : dict of str to float
        Thresholds of flags that replace the defaults.
    """

    model: Model
    settings: dict[str, Any]
    probabilities: bool
    thresholds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, settings: Settings) -> Context:
        """Describe a run; a setting without effect on the model counts as its default."""
        unused = model.unused_options
        return cls(
            model,
            {
                "Folds": "all" if "folds" in unused else list(settings.folds) or "all",
                "Mirroring": "no_tta" not in unused and not settings.no_tta,
                "Region": "region" not in unused and settings.region,
                "Volumes": f"sums of probabilities {_VOLUMES_IN.get(model.engine, _IMAGE_GRID)}",
            },
            settings.write_probabilities,
            read_thresholds(settings.flag_threshold),
        )

    @cached_property
    def models(self) -> dict[str, Any]:
        """The model as sidecars describe it and, with ``--region``, its localizer."""
        entries: dict[str, Any] = {"Model": model_entry(self.model)}
        if self.settings.get("Region"):
            localizer = store.find(store.DEFAULT)
            entries["Localizer"] = {**model_entry(localizer), "Label": localizer.label}
        return entries

    def sidecar(self, device: str) -> Sidecar:
        """Give what the sidecars of all images of the run have in common."""
        return Sidecar.model_validate(
            {
                **self.models,
                "Settings": self.settings,
                "SoftwareVersions": software_versions(device),
                "FlagThresholds": self.thresholds,
            }
        )


@dataclass
class _Files:
    """Writes files and records them for the sidecar.

    Figures are not recorded: ``--reports-only`` makes missing ones.

    Attributes
    ----------
    record : dict of str to dict
        By file name; `bids_app.bids.results.FileRecord` reads it.
    """

    record: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        write_atomic(path, data)
        self.record[path.name] = FileRecord.of(path, data).model_dump(by_alias=True)


def write_image(
    outputs: Outputs,
    scan: Scan,
    volume: Volume,
    segmentation: Segmentation,
    context: Context,
    seconds: float,
) -> Result:
    """Measure one image and write all its files.

    The sidecar of an earlier result is removed first and the new one written last, so that an
    image is never marked complete while its files do not belong together.

    Parameters
    ----------
    outputs : Outputs
        Paths of the files.
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

    Returns
    -------
    Result
        What was written, with the bytes of its figures.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    regions = context.model.regions
    found = measure(volume, segmentation, regions, context.thresholds)
    remove([outputs.sidecar])
    labels = label_image(segmentation.labels, volume.grid)
    files = _Files()
    files.write(outputs.dseg, nifti_bytes(labels, compress=True))
    if context.probabilities:
        _write_probabilities(files, outputs, scan, volume, segmentation, context)
    else:  # maps of an earlier run would not belong to these labels
        remove([outputs.probseg_sidecar, outputs.probseg])
    files.write(outputs.volumes, dump_rows([row.row() for row in found.volumes], VOLUMES))
    files.write(outputs.volumes_sidecar, dump_json(data_dictionary(VOLUMES)))
    if context.model.parts:
        _write_parts(files, outputs, scan, volume, segmentation, context)
    picture = mosaic(volume.data, segmentation.labels, volume.voxel_size, regions)
    write_atomic(outputs.picture, picture)
    cutout = cut_out(volume, segmentation.labels)
    write_atomic(outputs.cutout, cutout)
    sidecar = _sidecar(scan, volume, segmentation, found, context, seconds)
    sidecar |= {"Verified": timestamp(), "Files": files.record}
    write_atomic(outputs.sidecar, dump_json(sidecar))
    entities = dict(scan.entities)
    return Result(
        outputs=outputs,
        participant=scan.participant,
        session=scan.session or "",
        entities={key: entities[key] for key in ENTITIES if key in entities},
        label=context.model.label,
        sidecar=Sidecar.model_validate(sidecar),
        volumes=found.volumes,
        held_picture=picture,
        held_cutout=cutout,
    )


def confirm(outputs: Outputs) -> None:
    """Record in the sidecar of a complete image that it is complete now, after a later failure.

    Raises
    ------
    OutputError
        The sidecar cannot be written.
    """
    sidecar = read_json(outputs.sidecar) | {"Verified": timestamp()}
    write_atomic(outputs.sidecar, dump_json(sidecar))


def _sidecar(
    scan: Scan,
    volume: Volume,
    segmentation: Segmentation,
    found: Measurements,
    context: Context,
    seconds: float,
) -> dict[str, Any]:
    """Describe a label map; `bids_app.bids.results.Sidecar` reads it back."""
    regions = [region.name for region in context.model.regions]
    device, second = segmentation.device, segmentation.frame_pass
    return {
        "Description": f"{first_words(regions)}, segmented by a neural network",
        **_origin(scan),
        "Manual": False,
        **context.models,
        "InputSHA256": volume.sha256,
        "Settings": context.settings,
        **({} if second is None else {"CanonicalFrame": second.describe()}),
        "Device": device,
        "SoftwareVersions": software_versions(device),
        "Quality": {
            "voxel_size_mm": [round(edge, 4) for edge in volume.voxel_size],
            **found.quality,
        },
        "Flags": list(found.flags),
        "FlagThresholds": context.thresholds,
        "Warnings": list(volume.warnings),
        "Seconds": round(seconds, 2),
    }


@cache
def software_versions(device: str) -> str:
    """List the versions of the software that a result depends on, in one line (BIDS wants text)."""
    runtime = ("openvino",) if device == "openvino" else ()
    versions = [f"bids_app {__version__}", f"python {platform.python_version()}"]
    for package in ("torch", *runtime, "nnunetv2", "numpy", "scipy", "nibabel"):
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return ", ".join(versions)


def _write_probabilities(
    files: _Files,
    outputs: Outputs,
    scan: Scan,
    volume: Volume,
    segmentation: Segmentation,
    context: Context,
) -> None:
    image = probability_image(segmentation.whole_probabilities(), volume.grid)
    files.write(outputs.probseg, nifti_bytes(image, compress=True))
    sidecar = {
        "Description": "Probabilities of the regions, one volume per label, in the order of "
        "LabelMap",
        **_origin(scan),
        "LabelMap": [region.abbreviation for region in context.model.regions],
        "Model": model_entry(context.model),
    }
    files.write(outputs.probseg_sidecar, dump_json(sidecar))


def _write_parts(
    files: _Files,
    outputs: Outputs,
    scan: Scan,
    volume: Volume,
    segmentation: Segmentation,
    context: Context,
) -> None:
    model = context.model
    found = measure_parts(volume, segmentation, model.regions, model.parts)
    image = label_image(found.labels, volume.grid)
    files.write(outputs.parts_dseg, nifti_bytes(image, compress=True))
    rows = [{name: row.row()[name] for name in PART_VOLUMES} for row in found.volumes]
    files.write(outputs.parts_volumes, dump_rows(rows, PART_VOLUMES))
    files.write(outputs.parts_volumes_sidecar, dump_json(data_dictionary(PART_VOLUMES)))
    sidecar = {
        "Description": "Parts of the brainstem, and cerebellar peduncles beside it: "
        f"{in_words(model.parts)}; segmented by a neural network",
        **_origin(scan),
        "Manual": False,
        "Model": model_entry(model),
    }
    files.write(outputs.parts_sidecar, dump_json(sidecar))


def _origin(scan: Scan) -> dict[str, Any]:
    uri = source_uri(scan)
    return {"Sources": [uri], "SpatialReference": uri}
