"""Import of MD-GRU models from TensorFlow checkpoints, such as the published one.

Nothing is written unless all of the checkpoint is whole, and its network the one that is run here.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import torch

from bids_app.engines.mdgru.engine import WEIGHTS
from bids_app.engines.mdgru.layout import LAYERS, PUBLISHED, select_weights
from bids_app.engines.mdgru.options import Inference
from bids_app.engines.nnunet.weights import save
from bids_app.errors import ModelError
from bids_app.models.importers.mdgru.checkpoint import read_checkpoint
from bids_app.models.importers.mdgru.graph import check_graph
from bids_app.models.manifest import Model, describe_file, list_files
from bids_app.models.place import put_in_place
from bids_app.regions import PARTS, region

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED_NAME = "mars-mdgru"
_FILE = re.compile(r"(.+)\.(?:index|meta|meta\.gz|data-\d{5}-of-\d{5})")
_GRAPHS = (".meta", ".meta.gz")


def is_checkpoint(source: Path) -> bool:
    """Tell whether a path may name a TensorFlow checkpoint.

    That is a folder that holds one, a file of one, or what the names of its files begin with.
    """
    return bool(_indices(source))


def import_checkpoint(
    source: Path, target: Path, *, name: str, label: str, licence: str, citation: str, doi: str = ""
) -> Model:
    """Install an MD-GRU model.

    Under the name of the published model only a network of its layout is installed. Windows are
    those that the network was trained with, where the graph is there (``.meta``), which is checked
    then; else those of the published model, which ``[inference]`` in the manifest can change.

    Parameters
    ----------
    source : Path
        See `is_checkpoint`.
    target : Path
        Model folder to make.
    name, label, licence, citation, doi : str
        For the manifest.

    Returns
    -------
    Model
        The installed model, verified. Importing the same files again changes nothing.

    Raises
    ------
    ModelError
        The checkpoint is damaged, or its network another; or another model is there.
    """
    indices = _indices(source)
    if len(indices) != 1:
        raise ModelError(
            f"{source}: {len(indices)} checkpoints in it; name one, such as {indices[0]}."
        )
    index = indices[0]
    tensors = read_checkpoint(index)
    try:
        weights = select_weights(tensors, PUBLISHED if name == PUBLISHED_NAME else None)
    except ModelError as error:
        hint = (
            " Another network than the published one installs under a name of its own, with "
            f"`brainstem-models import NAME {shlex.quote(str(index))} --models-dir "
            f"{shlex.quote(str(target.parent))}`."
        )
        raise ModelError(f"{index}: {error}{hint if name == PUBLISHED_NAME else ''}") from None
    classes = len(weights[f"{LAYERS[-1]}/b"])
    if classes != len(PARTS) + 1:
        raise ModelError(f"{index}: {classes} classes; background and {', '.join(PARTS)} are run.")
    graphs = [p for ending in _GRAPHS if (p := index.with_suffix(ending)).exists()]
    window = check_graph(graphs[0]) if graphs else Inference.window
    # Stated nowhere: a fifth of the window, as with the published model; 1 would have no taper.
    padding = [min(20, size // 5) if size >= 10 else 0 for size in window]
    inference = {"window": list(window), "padding": padding, "labels": "argmax"}

    def make(made: Path) -> Model:
        made.mkdir(parents=True)
        save({key: torch.tensor(weights[key]) for key in sorted(weights)}, made / WEIGHTS)
        shards = index.parent.glob(f"{index.stem}.data-*-of-*")
        return Model(
            folder=made,
            name=name,
            label=label,
            version="1",
            engine="mdgru",
            averaging="softmax",
            mode="v2",
            licence=licence,
            citation=citation,
            doi=doi,
            regions=tuple(region(value, text) for value, text in enumerate(PARTS, start=1)),
            files=list_files(made),
            sources=tuple(describe_file(p, p.name) for p in sorted([index, *shards, *graphs])),
            inference=inference,
        )

    return put_in_place(target, make)


def _indices(source: Path) -> list[Path]:
    if source.is_dir():
        files = [*source.glob("*.index"), *source.glob("*.data-*-of-*")]
        stems = {match[1] for path in files if (match := _FILE.fullmatch(path.name))}
        return sorted(source / f"{stem}.index" for stem in stems)
    match = _FILE.fullmatch(source.name)
    index = source.with_name(f"{match[1] if match else source.name}.index")
    return [index] if match or index.is_file() else []
