"""The command ``brainstem-volumes``: measure label maps that any tool has made.

The options are those of the extraction script of MARS-brainstem (``-f -d -o -l -n -c -x -t -q``).
Nothing heavy is imported before there is a map to measure, so that ``--help`` and mistakes in the
command line answer at once.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from bids_app.cli.options import guarded
from bids_app.errors import NoScanError, UsageError, printable
from bids_app.io.files import write_atomic
from bids_app.io.tables import as_text
from bids_app.regions import region
from bids_app.workflow.label_maps import (
    ANY_DEPTH,
    DEFAULT_PATTERNS,
    find_label_maps,
    volumes_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.regions import Region

DEFAULT_NAMES = {1: "midbrain", 2: "pons", 3: "medulla"}

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_TIME_FORMATS = {"date": "%Y-%m-%d", "time": "%H%M%S", "datetime": "%Y-%m-%d_%H%M%S"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``brainstem-volumes`` and give its exit code."""
    return guarded(lambda: _run(_parser().parse_intermixed_args(argv)))


def _run(options: argparse.Namespace) -> int:
    regions = _regions(options.labels, options.names)
    output = _output(options.output, options.append_time, overwrite=options.overwrite)
    patterns = [options.filename] if options.filename else DEFAULT_PATTERNS
    maps = [found for path in options.paths for found in _find(path, patterns, options)]
    if not maps:
        raise NoScanError(
            f"{' '.join(map(str, options.paths))}: no file is named {' or '.join(patterns)} and "
            f"ends with .nii or .nii.gz"
            f"{'' if options.depth == ANY_DEPTH else f', {options.depth} folders deep'}. "
            "Give another pattern with -f, such as -f '*_dseg.nii.gz'."
        )
    shown = tqdm(maps, unit="map", leave=False, disable=True if options.quiet else None)
    table, left_out = volumes_table(shown, regions, connectivity=options.connectivity)
    for relative, reason in left_out.items():
        print(f"{printable(relative)}: left out: {reason}", file=sys.stderr)
    if len(table) == 0:
        return 1
    table = table.rename(columns=as_text).assign(
        path=[as_text(printable(p)) for p in table["path"]]
    )
    text = table.to_csv(sep=_SEPARATORS[output.suffix] if output else "\t", index=False)
    if output is None:
        print(text, end="")
    else:
        write_atomic(output, text.encode(errors="backslashreplace"))
        if not options.quiet:
            print(f"{len(table)} of {len(maps)} label maps measured: {output}")
    return 1 if left_out else 0


def _find(
    path: Path, patterns: Sequence[str], options: argparse.Namespace
) -> list[tuple[str, Path]]:
    """Find the label maps that a word of the command line stands for, with names for the table."""
    if path.is_dir():
        several = len(options.paths) > 1
        return [
            ((path / found if several else found).as_posix(), path / found)
            for found in (
                map_.relative_to(path) for map_ in find_label_maps(path, patterns, options.depth)
            )
        ]
    if not path.exists() and not path.is_symlink():
        raise UsageError(f"{path}: no such file or folder.")
    return [(path.as_posix(), path)]


def _regions(labels: list[int] | None, names: list[str] | None) -> list[Region]:
    """Pair labels with names."""
    labels = labels or list(DEFAULT_NAMES)
    names = names or [DEFAULT_NAMES.get(label, f"label{label}") for label in labels]
    if len(set(labels)) < len(labels) or min(labels) < 1:
        raise UsageError("-l: labels must be different whole numbers above 0.")
    if len(names) != len(labels) or len(set(names)) < len(names):
        raise UsageError(f"-n: {len(labels)} labels need as many different names.")
    if len(names) > 1 and "brainstem" in names:
        raise UsageError("-n: the name brainstem is reserved for all regions together.")
    return [replace(region(i, name), name=name) for i, name in zip(labels, names, strict=True)]


def _output(path: Path | None, append_time: str | None, *, overwrite: bool) -> Path | None:
    """Path of the table, or None for standard output."""
    if path is None:
        if append_time:
            raise UsageError("-t adds the date to the name of the table; give the name with -o.")
        return None
    if path.suffix not in _SEPARATORS:
        raise UsageError(f"{path}: the table's name must end with .csv or .tsv.")
    if append_time:
        now = datetime.now().strftime(_TIME_FORMATS[append_time])
        path = path.with_stem(f"{path.stem}_{now}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists already; -x replaces it.")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brainstem-volumes",
        description="Measures label maps made by any tool: voxels, volume in mm3 and clusters "
        "(connected pieces) of each region and of all together, a row for each map. Maps that "
        "cannot be read or do not hold whole numbers are listed and left out.",
        epilog="exit codes: 0 all measured; 1 some maps left out; 2 wrong command line, or the "
        "table exists already; 3 no label map found; 6 the table cannot be written",
    )
    add = parser.add_argument
    add(
        "paths",
        metavar="PATH",
        type=Path,
        nargs="+",
        help="label maps, and folders that hold label maps",
    )
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
        help="look only N folders below a folder; 0: in the folder itself (default: at any depth)",
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
    add("-x", dest="overwrite", action="store_true", help="replace a table that exists already")
    add(
        "-t",
        dest="append_time",
        choices=tuple(_TIME_FORMATS),
        help="add the current date, time or both to the table's name",
    )
    add("-q", dest="quiet", action="store_true", help="print nothing but errors and the table")
    return parser
