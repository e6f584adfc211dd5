"""Import of MD-GRU models from TensorFlow checkpoints, such as the published one.

Nothing is written unless the whole checkpoint is intact and the engine can run its network.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bids_app.engines.mdgru.engine import WEIGHTS
from bids_app.engines.mdgru.layout import LAYERS, PUBLISHED, select_weights
from bids_app.engines.mdgru.options import Inference
from bids_app.engines.torch_files import save
from bids_app.errors import ModelError
from bids_app.models.importers.mdgru.checkpoint import read_checkpoint
from bids_app.models.importers.mdgru.graph import check_graph
from bids_app.models.manifest import describe_file, list_files
from bids_app.regions import PARTS, region

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.models.manifest import Model

PUBLISHED_NAME = "mars-mdgru"
_FILE = re.compile(r"(.+)\.(?:index|meta|meta\.gz|data-\d{5}-of-\d{5})")
_GRAPHS = (".meta", ".meta.gz")


def is_checkpoint(source: Path) -> bool:
    """Whether a path may be a TensorFlow checkpoint: a folder, a file of one, or its prefix."""
    return bool(_indices(source))


def import_checkpoint(source: Path, folder: Path, template: Model) -> Model:
    """Convert an MD-GRU checkpoint to a model folder without a manifest, and describe it.

    The name of the published model is reserved for its architecture. The window size is taken from
    the graph (``.meta``), which is also checked; without a graph, it is the published model's. The
    user can change ``[inference]`` in the manifest.

    Parameters
    ----------
    source : Path
        See `is_checkpoint`.
    folder : Path
        Created here.
    template : Model
        Name, label, licence and citation, and the folder that the model will have.

    Raises
    ------
    ModelError
        The checkpoint is damaged, or holds another kind of network.
    """
    indices = _indices(source)
    if len(indices) != 1:
        raise ModelError(
            f"{source}: {len(indices)} checkpoints in it; choose one, such as {indices[0]}."
        )
    index = indices[0]
    tensors = read_checkpoint(index)
    try:
        weights = select_weights(tensors, PUBLISHED if template.name == PUBLISHED_NAME else None)
    except ModelError as error:
        hint = (
            " Install another network than the published one under its own name, with "
            f"`brainstem-models import NAME {shlex.quote(str(index))} --models-dir "
            f"{shlex.quote(str(template.folder.parent))}`."
        ) * (template.name == PUBLISHED_NAME)
        raise ModelError(f"{index}: {error}{hint}") from None
    classes = len(weights[f"{LAYERS[-1]}/b"])
    if classes != len(PARTS) + 1:
        raise ModelError(
            f"{index}: has {classes} classes; background, {', '.join(PARTS)} are needed."
        )
    graphs = [p for ending in _GRAPHS if (p := index.with_suffix(ending)).exists()]
    window = check_graph(graphs[0]) if graphs else Inference.window
    # Not part of the graph: a fifth of the window, as in the published model; 1 has no taper.
    padding = [min(20, size // 5) if size >= 10 else 0 for size in window]

    folder.mkdir(parents=True)
    save({key: torch.tensor(weights[key]) for key in sorted(weights)}, folder / WEIGHTS)
    shards = index.parent.glob(f"{index.stem}.data-*-of-*")
    return replace(
        template,
        averaging="softmax",
        regions=tuple(region(value, text) for value, text in enumerate(PARTS, start=1)),
        files=list_files(folder),
        sources=tuple(describe_file(p, p.name) for p in sorted([index, *shards, *graphs])),
        inference={"window": list(window), "padding": padding, "labels": "argmax"},
    )


def _indices(source: Path) -> list[Path]:
    if source.is_dir():
        files = [*source.glob("*.index"), *source.glob("*.data-*-of-*")]
        stems = {match[1] for path in files if (match := _FILE.fullmatch(path.name))}
        return sorted(source / f"{stem}.index" for stem in stems)
    match = _FILE.fullmatch(source.name)
    index = source.with_name(f"{match[1] if match else source.name}.index")
    return [index] if match or index.is_file() else []
