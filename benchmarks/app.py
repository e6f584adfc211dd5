"""What the benchmarks take from the app, apart from its engines; the one place to change names."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bids_app.bids.results import read_results
from bids_app.errors import ImageError
from bids_app.io.images import Volume, read_volume
from bids_app.measures.flags import CHECKS, reapply_thresholds, self_consistency
from bids_app.measures.image import Measurements
from bids_app.measures.image import measure as measure_image
from bids_app.measures.volumes import measure_regions
from bids_app.models import store
from bids_app.models.manifest import Model, verify
from bids_app.regions import PARTS, region
from bids_app.segmentation.segmenter import load_segmenter
from bids_app.segmentation.types import InferenceOptions, Segmentation, Segmenter

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CHECKS",
    "PARTS",
    "ImageError",
    "Measurements",
    "Model",
    "Result",
    "Segmentation",
    "Segmenter",
    "Volume",
    "default_model_folder",
    "find_model",
    "load",
    "measure",
    "measure_regions",
    "read_volume",
    "reapply_thresholds",
    "region",
    "results_of",
    "self_consistency",
]


@dataclass(frozen=True)
class Result:
    """Files of one result of the participant level, as they are on the disk.

    Attributes
    ----------
    dseg : Path
        The label map.
    source : str
        Path of the image in its dataset.
    label : str
        Of the model, as in ``seg-<label>``.
    sidecar : dict
        Content of the JSON file.
    volumes : list of dict of str to str
        Rows of ``*_volumes.tsv``.
    """

    dseg: Path
    source: str
    label: str
    sidecar: dict[str, Any]
    volumes: list[dict[str, str]]

    @property
    def model(self) -> str:
        """Name and version of the model."""
        model = self.sidecar["Model"]
        return f"{model['Name']} {model['Version']}"


def results_of(output_dir: Path) -> list[Result]:
    """Read the results in an output folder."""
    found = []
    for result in read_results(output_dir):
        outputs = result.outputs
        with outputs.volumes.open(newline="") as file:
            volumes = list(csv.DictReader(file, delimiter="\t"))
        sidecar = json.loads(outputs.sidecar.read_text())
        found.append(Result(outputs.dseg, str(result.source), result.label, sidecar, volumes))
    return found


@lru_cache
def find_model(name: str) -> Model:
    """Find a model by name or folder, and check its files."""
    model = store.find(name)
    verify(model)
    return model


def default_model_folder() -> Path:
    """Return the folder of the model that the app uses by default."""
    return find_model(store.DEFAULT).folder


@lru_cache
def load(name: str) -> Segmenter:
    """Load a model by name or folder onto one thread of the CPU."""
    return load_segmenter(find_model(name), InferenceOptions(device="cpu", threads=1))


def measure(volume: Volume, segmentation: Segmentation, model: str) -> Measurements:
    """Return the volumes, quality measures and flags of a segmentation."""
    return measure_image(volume, segmentation, find_model(model).regions)
