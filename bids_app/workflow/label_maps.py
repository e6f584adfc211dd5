"""Measure label maps made by any tool, without BIDS."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from bids_app.errors import ImageError
from bids_app.io.files import walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pandas as pd

    from bids_app.regions import Region

# As `brainstem-segment` and `bids_app` name their maps; other tools' *_dseg have other labels.
DEFAULT_PATTERNS = ("*_brainstem.nii*", "*_seg-*_dseg.nii*")
NOT_BY_DEFAULT = "*_seg-*parts_dseg.nii*"  # whose labels are not those of regions
ANY_DEPTH = -1


def find_label_maps(
    directory: Path, patterns: Sequence[str] = DEFAULT_PATTERNS, depth: int = ANY_DEPTH
) -> list[Path]:
    """Find label maps by their file names, in sorted order.

    Parameters
    ----------
    directory : Path
        Where to look. Hidden files and folders, and folders behind links, are skipped.
    patterns : sequence of str
        Shell patterns; the file name matches one of them and ends with ``.nii`` or ``.nii.gz``.
        The default ones pass maps of parts over.
    depth : int
        Folders between `directory` and a map: 0 looks only in `directory` itself, -1 at any depth.
    """
    found = []
    for here, subfolders, names in walk(directory):
        level = len(here.relative_to(directory).parts)
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and level != depth]
        if depth in (ANY_DEPTH, level):
            found += [
                here / name
                for name in names
                if any(fnmatchcase(name, pattern) for pattern in patterns)
                and not (patterns is DEFAULT_PATTERNS and fnmatchcase(name, NOT_BY_DEFAULT))
                and name.endswith((".nii", ".nii.gz"))
                and not name.startswith(".")
            ]
    return sorted(found)


def volumes_table(
    maps: Iterable[tuple[str, Path]], regions: Sequence[Region], *, connectivity: int = 1
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Measure label maps.

    Parameters
    ----------
    maps : iterable of (str, Path)
        Label maps, each with its name in the table.
    regions : sequence of Region
        Regions to measure.
    connectivity : int
        Voxels of one cluster share a face (1), an edge (2) or a corner (3).

    Returns
    -------
    table : pandas.DataFrame
        A row per map: ``path``, then ``<name>_voxels``, ``<name>_mm3`` and ``<name>_clusters`` of
        each region and, where there are several, of their union, ``brainstem``.
    left_out : dict of str to str
        Name and reason of each file that cannot be read or is no label map.
    """
    import pandas as pd

    from bids_app.io.images import read_label_map
    from bids_app.measures.volumes import measure_regions

    rows, left_out = [], {}
    for name, path in maps:
        try:
            labels, affine = read_label_map(path)
        except ImageError as error:
            left_out[name] = str(error)
            continue
        measures = measure_regions(labels, affine, regions, connectivity=connectivity)
        row: dict[str, str | int | float] = {"path": name}
        for measure in measures if len(regions) > 1 else measures[:1]:
            row[f"{measure.name}_voxels"] = measure.voxels
            row[f"{measure.name}_mm3"] = round(measure.volume_mm3, 3)
            row[f"{measure.name}_clusters"] = measure.clusters
        rows.append(row)
    return pd.DataFrame(rows), left_out
