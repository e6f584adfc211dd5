"""The command ``brainstem-volumes``: measure label maps that any tool has made.

The options are those of the extraction script of MARS-brainstem (``-f -d -o -l -n -c -x -t -q``).
The table has one row a map, measured as at the group level. Heavy packages are imported only once
there is a map to measure, so that ``--help`` and mistakes in the command line answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from bids_app.cli.options import guarded
from bids_app.errors import ImageError, NoScanError, UsageError
from bids_app.io.files import write_atomic
from bids_app.regions import region

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from bids_app.regions import Region

# As `brainstem-segment` and as `bids_app` names its maps; other tools' *_dseg have other labels.
DEFAULT_PATTERNS = ("*_brainstem.nii*", "*_seg-*_dseg.nii*")
DEFAULT_NAMES = {1: "midbrain", 2: "pons", 3: "medulla"}
ANY_DEPTH = -1

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_TIME_FORMATS = {"date": "%Y-%m-%d", "time": "%H%M%S", "datetime": "%Y-%m-%d_%H%M%S"}


def find_label_maps(
    directory: Path, patterns: Sequence[str] = DEFAULT_PATTERNS, depth: int = ANY_DEPTH
) -> list[Path]:
    """Find label maps by their file names, in sorted order.

    Parameters
    ----------
    directory : Path
        Where to look. Hidden files and folders, and folders behind links, are passed over.
    patterns : sequence of str
        Shell patterns, of which the file name fits one; it must end with ``.nii`` or ``.nii.gz``
        besides.
    depth : int
        Folders between `directory` and a map: 0 looks in `directory` itself alone, -1 at any depth.
    """
    found = []
    for folder, subfolders, names in os.walk(directory):
        here = Path(folder)
        level = len(here.relative_to(directory).parts)
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and level != depth]
        if depth in (ANY_DEPTH, level):
            found += [
                here / name
                for name in names
                if any(fnmatchcase(name, pattern) for pattern in patterns)
                and name.endswith((".nii", ".nii.gz"))
                and not name.startswith(".")
            ]
    return sorted(found)


def volumes_table(
    directory: Path, paths: Iterable[Path], regions: Sequence[Region], *, connectivity: int = 1
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Measure label maps.

    Parameters
    ----------
    directory : Path
        The table's paths are relative to this folder.
    paths : iterable of Path
        Label maps below it.
    regions : sequence of Region
        Regions to measure.
    connectivity : int
        Voxels of one cluster share a face (1), an edge (2) or a corner (3).

    Returns
    -------
    table : pandas.DataFrame
        A row a map: ``path``, then ``<name>_voxels``, ``<name>_mm3`` and ``<name>_clusters`` of
        each region and, where there are several, of their union, ``brainstem``.
    left_out : dict of str to str
        Relative path and reason of each file that cannot be read or is no label map.
    """
    import pandas as pd

    from bids_app.io.images import read_label_map
    from bids_app.measures.volumes import measure_regions

    rows, left_out = [], {}
    for path in paths:
        relative = path.relative_to(directory).as_posix()
        try:
            labels, affine = read_label_map(path)
        except ImageError as error:
            left_out[relative] = str(error)
            continue
        measures = measure_regions(labels, affine, regions, connectivity=connectivity)
        row: dict[str, str | int | float] = {"path": relative}
        for measure in measures if len(regions) > 1 else measures[:1]:
            row[f"{measure.name}_voxels"] = measure.voxels
            row[f"{measure.name}_mm3"] = round(measure.volume_mm3, 3)
            row[f"{measure.name}_clusters"] = measure.clusters
        rows.append(row)
    return pd.DataFrame(rows), left_out


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``brainstem-volumes`` and give its exit code."""
    options = _parser().parse_args(argv)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    if not directory.is_dir():
        if directory.exists():
            raise UsageError(f"{directory} is a file. Name the folder that holds the label maps.")
        raise UsageError(f"{directory}: no such folder.")
    regions = _regions(options.labels, options.names)
    output = _output(options.output, options.append_time, overwrite=options.overwrite)
    patterns = [options.filename] if options.filename else DEFAULT_PATTERNS
    paths = find_label_maps(directory, patterns, options.depth)
    if not paths:
        raise NoScanError(
            f"{directory}: no file is named {' or '.join(patterns)} and ends with .nii or .nii.gz"
            f"{'' if options.depth == ANY_DEPTH else f', {options.depth} folders deep'}. "
            "Give another pattern with -f, such as -f '*_dseg.nii.gz'."
        )
    shown = tqdm(paths, unit="map", leave=False, disable=True if options.quiet else None)
    table, left_out = volumes_table(directory, shown, regions, connectivity=options.connectivity)
    for relative, reason in left_out.items():
        print(f"{relative}: left out: {reason}", file=sys.stderr)
    if len(table) == 0:
        return 1
    text = table.to_csv(sep=_SEPARATORS[output.suffix] if output else "\t", index=False)
    if output is None:
        print(text, end="")
    else:
        write_atomic(output, text.encode())
        if not options.quiet:
            print(f"{len(table)} of {len(paths)} label maps measured: {output}")
    return 1 if left_out else 0


def _regions(labels: list[int] | None, names: list[str] | None) -> list[Region]:
    """Pair labels with names."""
    labels = labels or list(DEFAULT_NAMES)
    names = names or [DEFAULT_NAMES.get(label, f"label{label}") for label in labels]
    if len(set(labels)) < len(labels) or min(labels) < 1:
        raise UsageError("-l: labels must be different whole numbers above 0.")
    if len(names) != len(labels) or len(set(names)) < len(names):
        raise UsageError(f"-n: {len(labels)} labels need as many different names.")
    if len(names) > 1 and "brainstem" in names:
        raise UsageError("-n: the name brainstem stands for all regions together.")
    return [replace(region(i, name), name=name) for i, name in zip(labels, names, strict=True)]


def _output(path: Path | None, append_time: str | None, *, overwrite: bool) -> Path | None:
    """Path of the table, or None for standard output."""
    if path is None:
        if append_time:
            raise UsageError("-t dates the name of the table; name it with -o.")
        return None
    if path.suffix not in _SEPARATORS:
        raise UsageError(f"{path}: the table's name must end with .csv or .tsv.")
    if append_time:
        now = datetime.now().strftime(_TIME_FORMATS[append_time])
        path = path.with_stem(f"{path.stem}_{now}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: is there already; -x overwrites it.")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brainstem-volumes",
        description="Measures label maps made by any tool: voxels, volume in mm3 and clusters "
        "(connected pieces) of each region and of all together, a row for each map. Maps that "
        "cannot be read or do not hold whole numbers are named and left out.",
        epilog="exit codes: 0 all measured; 1 some maps left out; 2 wrong command line, or the "
        "table is there already; 3 no label map found; 6 the table cannot be written",
    )
    add = parser.add_argument
    add("directory", metavar="DIRECTORY", type=Path, help="folder that holds the label maps")
    add(
        "-f",
        dest="filename",
        metavar="PATTERN",
        help="file names of the maps, with * and ?, in quotes (default: "
        f"{' and '.join(DEFAULT_PATTERNS)}, the maps of brainstem-segment and bids_app)",
    )
    add(
        "-d",
        dest="depth",
        type=int,
        default=ANY_DEPTH,
        metavar="N",
        help="look only N folders below DIRECTORY; 0: in DIRECTORY itself (default: at any depth)",
    )
    add(
        "-o",
        dest="output",
        metavar="TABLE",
        type=Path,
        help="file for the table, .csv or .tsv (default: it is printed, tab-separated)",
    )
    add(
        "-l",
        dest="labels",
        metavar="LABEL",
        type=int,
        nargs="+",
        help="values that the regions have in the maps (default: 1 2 3)",
    )
    add(
        "-n",
        dest="names",
        metavar="NAME",
        nargs="+",
        help="names of the regions, in the order of -l (default: midbrain pons medulla for 1 2 3, "
        "label<LABEL> for others)",
    )
    add(
        "-c",
        dest="connectivity",
        type=int,
        choices=(1, 2, 3),
        default=1,
        help="voxels of one cluster share a face (1), an edge (2) or a corner (3); "
        "default: %(default)s",
    )
    add("-x", dest="overwrite", action="store_true", help="replace a table that is there already")
    add(
        "-t",
        dest="append_time",
        choices=tuple(_TIME_FORMATS),
        help="add the current date, time or both to the table's name",
    )
    add("-q", dest="quiet", action="store_true", help="print nothing but errors and the table")
    return parser
