"""The picture and the cut-out of a result, kept so that pages can be made without the image."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from bids_app.errors import ImageError
from bids_app.io.files import is_file, write_atomic
from bids_app.io.images import read_label_map, read_volume
from bids_app.regions import region
from bids_app.reports.images.cutout import cut_out
from bids_app.reports.images.pictures import mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.bids.results import Result


def restore_figures(
    result: Result, dataset: Path | None, *, assume_ras: bool = False
) -> str | None:
    """Make missing figures of a result again, if its source image is still there.

    Parameters
    ----------
    result : Result
        A complete result.
    dataset : Path, optional
        The source dataset.
    assume_ras : bool
        As for `read_volume`.

    Returns
    -------
    str or None
        Why figures are still missing; None if all are there.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    outputs = result.outputs
    if is_file(outputs.picture) and is_file(outputs.cutout):
        return None
    source = PurePosixPath(result.source)
    path = None if dataset is None else dataset / source
    if path is None or source.is_absolute() or ".." in source.parts or not is_file(path):
        folder = "BIDS_DIR" if result.source_dataset == "raw" else "--freesurfer-dir"
        return f"the source image is not in {folder}"
    try:
        volume = read_volume(path, assume_ras=assume_ras)
        if volume.sha256 != result.sidecar.input_sha256:
            return "the source image has changed since"
        stored, _ = read_label_map(outputs.dseg)
        regions = [region(row.index, row.name) for row in result.volumes if row.index is not None]
    except (ImageError, OSError) as error:
        return str(error)
    labels = volume.grid.to_ras(stored.astype(np.uint8))
    write_atomic(outputs.picture, mosaic(volume.data, labels, volume.voxel_size, regions))
    write_atomic(outputs.cutout, cut_out(volume, labels))
    return None
