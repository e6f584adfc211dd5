"""How far models agree on an image: Dice and differences of volume, a region.

Where maps of two models are there for one image, they are compared pair by pair. The table of an
image is made again whenever one of its maps is, the group's from those.
"""

from __future__ import annotations

import itertools
import logging
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from bids_app.bids.columns import COMPARISON, GROUP_COMPARISON
from bids_app.bids.results import read_results
from bids_app.io.files import remove, write_atomic
from bids_app.io.tables import NOT_AVAILABLE, data_dictionary, dump_json, number, read_table, table
from bids_app.regions import of_brainstem, region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_app.bids.results import Result

LOG = logging.getLogger(__name__)
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, ImageFileError)


def write_comparisons(output_dir: Path, participant: str) -> None:
    """Write a table for each image of a participant that several models have done.

    Raises
    ------
    OutputError
        A table cannot be written.
    """
    for results in _by_image(output_dir, participant):
        paths = results[0].outputs.comparison, results[0].outputs.comparison_sidecar
        try:
            rows = [row for pair in itertools.combinations(results, 2) for row in _compare(*pair)]
        except _UNREADABLE as error:  # such as a map that was deleted
            LOG.warning("%s: its models cannot be compared (%s)", results[0].source, error)
            rows = []
        if rows:
            write_atomic(paths[0], table(list(COMPARISON), rows))
            write_atomic(paths[1], dump_json(data_dictionary(COMPARISON)))
        else:
            remove(paths)


def write_group_comparison(place: Path, output_dir: Path, participants: Sequence[str]) -> int:
    """Gather the tables of all images in one, if there are any.

    Parameters
    ----------
    place : Path
        Of the table.
    output_dir : Path
        The derivative dataset.
    participants : sequence of str
        Whose images to gather.

    Returns
    -------
    int
        Number of images in it.

    Raises
    ------
    OutputError
        The table cannot be written.
    """
    rows, images = [], 0
    for participant in participants:
        if not any((output_dir / participant).glob("**/anat/*_comparison.tsv")):
            continue  # saves reading the sidecars of thousands
        for first, *_ in _by_image(output_dir, participant):
            if first.outputs.comparison.is_file():
                where = {"participant_id": participant, "source": first.source, **first.entities}
                where["session_id"] = first.session or NOT_AVAILABLE
                images += 1
                rows += [where | row for row in read_table(first.outputs.comparison)]
    if rows:
        content = [[row.get(column, NOT_AVAILABLE) for column in GROUP_COMPARISON] for row in rows]
        write_atomic(place, table(list(GROUP_COMPARISON), content))
        write_atomic(place.with_suffix(".json"), dump_json(data_dictionary(GROUP_COMPARISON)))
    else:
        remove([place, place.with_suffix(".json")])
    return images


def _by_image(output_dir: Path, participant: str) -> Iterator[list[Result]]:
    """Group the results of a participant by their image, sorted by label."""
    images: dict[Path, list[Result]] = {}
    for result in read_results(output_dir, participant):
        images.setdefault(result.outputs.comparison, []).append(result)
    for results in images.values():
        yield sorted(results, key=lambda result: result.label)


def _compare(first: Result, second: Result) -> Iterator[list[str]]:
    """Give a row for each region that both models have, the whole brainstem last."""
    if first.sidecar.input_sha256 != second.sidecar.input_sha256:
        return  # maps of two versions of the image say nothing of the models
    maps = [np.asarray(nib.load(result.outputs.dseg).dataobj) for result in (first, second)]
    regions = [
        {row["name"]: row for row in read_table(result.outputs.volumes)}
        for result in (first, second)
    ]
    for name in regions[0]:
        if name in regions[1]:
            rows = regions[0][name], regions[1][name]
            masks = [
                _mask(map_, row, of_model)
                for map_, row, of_model in zip(maps, rows, regions, strict=True)
            ]
            volumes = [float(row["volume_mm3"]) for row in rows]
            difference, mean = volumes[0] - volumes[1], sum(volumes) / 2
            yield [
                *first.model,
                *second.model,
                name,
                number(_dice(*masks), 4),
                number(difference),
                number(100 * difference / mean if mean else None, 2),
            ]


def _mask(
    labels: NDArray[Any], row: dict[str, str], rows: Mapping[str, dict[str, str]]
) -> NDArray[np.bool_]:
    """Give the voxels of the region that a row, of all rows by name, is of."""
    wanted = [row] if row["index"] != NOT_AVAILABLE else rows.values()
    regions = [region(int(r["index"]), r["name"]) for r in wanted if r["index"] != NOT_AVAILABLE]
    return np.isin(labels, [part.index for part in of_brainstem(regions)])


def _dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    voxels = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / voxels if voxels else None
