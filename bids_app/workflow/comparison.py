"""Compare the results of several models on one image and write how well they agree."""

from __future__ import annotations

import itertools
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

from bids_app.bids.columns import COMPARISON
from bids_app.bids.results import agreement, by_image
from bids_app.errors import ImageError
from bids_app.io.files import remove, write_atomic
from bids_app.io.images import read_label_map
from bids_app.io.tables import data_dictionary, dump_json, dump_rows
from bids_app.measures.agreement import compare_maps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bids_app.bids.results import ModelAgreement, Result

LOG = logging.getLogger(__name__)


def compare_models(results: Iterable[Result]) -> list[ModelAgreement]:
    """Write a table for each image that several models have segmented.

    Tables of other images are removed, since they are of maps that are gone.

    Parameters
    ----------
    results : iterable of Result
        All complete results of one or several participants.

    Returns
    -------
    list of ModelAgreement
        All rows that were written.

    Raises
    ------
    OutputError
        A table cannot be written.
    """
    written: list[ModelAgreement] = []
    for of_image in by_image(results):
        outputs = of_image[0].outputs
        try:
            rows = [r for pair in itertools.combinations(of_image, 2) for r in _compare(*pair)]
        except (ImageError, OSError, ValueError) as error:  # such as a map that was deleted
            LOG.warning("%s: its models cannot be compared (%s)", of_image[0].source, error)
            rows = []
        if rows:
            table = dump_rows([row.row() for row in rows], COMPARISON)
            write_atomic(outputs.comparison, table)
            write_atomic(outputs.comparison_sidecar, dump_json(data_dictionary(COMPARISON)))
        else:
            remove([outputs.comparison, outputs.comparison_sidecar])
        written += rows
    return written


def _compare(first: Result, second: Result) -> Iterator[ModelAgreement]:
    if first.sidecar.input_sha256 != second.sidecar.input_sha256:
        return  # maps of two versions of the image say nothing about the models
    maps = read_label_map(first.outputs.dseg)[0], read_label_map(second.outputs.dseg)[0]
    models = {
        "model": first.model[0],
        "model_version": first.model[1],
        "other_model": second.model[0],
        "other_model_version": second.model[1],
    }
    for row in compare_maps(maps, (first.volumes, second.volumes)):
        yield agreement(first, **models, **asdict(row))
