"""What the benchmarks take from the app, but for its engines; the one place to change names."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from bids_app.bids.results import Result, read_results
from bids_app.errors import ImageError
from bids_app.io.images import Volume, read_volume
from bids_app.io.tables import read_table, table
from bids_app.measures.flags import CHECKS, flags_again, self_consistency
from bids_app.measures.quality import Findings, judge
from bids_app.measures.volumes import measure_regions
from bids_app.models import store
from bids_app.models.store import Model
from bids_app.regions import PARTS, region
from bids_app.segmentation.segmenter import Choice, Segmentation, Segmenter, load_segmenter

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CHECKS",
    "PARTS",
    "Findings",
    "ImageError",
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
    "read_results",
    "read_table",
    "read_volume",
    "reapply_thresholds",
    "region",
    "self_consistency",
    "table",
]

reapply_thresholds = flags_again


@lru_cache
def find_model(name: str) -> Model:
    """Find a model by name or folder, and check its files."""
    model = store.find(name)
    store.verify(model)
    return model


def default_model_folder() -> Path:
    """Return the folder of the model that the app uses by default."""
    return find_model(store.DEFAULT).folder


@lru_cache
def load(name: str) -> Segmenter:
    """Load a model by name or folder onto one thread of the CPU."""
    return load_segmenter(find_model(name), Choice(device="cpu", threads=1))


def measure(volume: Volume, segmentation: Segmentation, model: str) -> Findings:
    """Return the volumes, quality measures and flags of a segmentation."""
    return judge(volume, segmentation, find_model(model).regions)
