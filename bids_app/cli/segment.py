"""``brainstem-segment``: one image, with the options of MARS-brainstem's own command."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.bids.freesurfer import find_image as find_subject_image
from bids_app.cli.options import add_model_options, add_version, guarded, positive
from bids_app.cpus import available_cpus
from bids_app.errors import NoScanError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.workflow.api import Result

ENDINGS = (".nii.gz", ".nii")  # of label maps
READ = (*ENDINGS, ".mgz", ".mgh")


def main(argv: Sequence[str] | None = None) -> int:
    """Segment one image.

    Parameters
    ----------
    argv : sequence of str, optional
        Command line without the program's name; that of the process by default.

    Returns
    -------
    int
        Exit code; see `bids_app.errors`.
    """
    return guarded(lambda: _run(make_parser().parse_args(argv)))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="brainstem-segment",
        description="Segments midbrain, pons and medulla oblongata on one T1-weighted image. "
        "For research only; not a medical device.",
        epilog="exit codes: 0 done; 1 the image cannot be used; 2 wrong command line, or the label "
        "map exists already; 3 no such image; 5 the model is missing or damaged; 6 the label map "
        "cannot be written",
        allow_abbrev=False,
    )
    parser.add_argument(
        "image",
        type=Path,
        metavar="IMAGE",
        help="NIfTI image or .mgz image of FreeSurfer, whose ending may be omitted; or the folder "
        "of a subject of FreeSurfer or FastSurfer, whose mri/orig.mgz (else T1.mgz, norm.mgz) is "
        "segmented",
    )
    add_version(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "-s",
        "--suffix",
        default="_brainstem",
        help="added to the image's name to name the label map (default: %(default)s)",
    )
    output.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="path of the label map, .nii.gz or .nii (default: beside the image, named by -s)",
    )
    output.add_argument(
        "-d",
        "--directory",
        type=Path,
        metavar="FOLDER",
        help="folder for the label map; only the file name of -o counts then (default: the image's "
        "folder)",
    )
    output.add_argument(
        "-x", "--overwrite", action="store_true", help="replace a label map that exists already"
    )
    output.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    network = parser.add_argument_group("segmentation")
    network.add_argument(
        "--model",
        default="open",
        metavar="NAME|FOLDER",
        help="name or folder of the model (default: open)",
    )
    add_model_options(network)
    network.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        default=available_cpus(),
        help="CPU threads (default: the CPUs of this machine that the process may use)",
    )
    parser.set_defaults(device="auto", folds=[])
    return parser


def find_image(path: Path) -> Path:
    """Find an image that may be given without its ending.

    Raises
    ------
    NoScanError
        There is no such image.
    UsageError
        It is a folder.
    """
    for candidate in (path, *(path.with_name(path.name + ending) for ending in READ)):
        if candidate.is_file() or candidate.is_symlink():
            return candidate
    if path.is_dir():
        if image := find_subject_image(path):
            return image
        raise UsageError(
            f"{path} is a folder, and this command takes one image. For a BIDS dataset: "
            f"bids_app {shlex.quote(str(path))} OUTPUT_DIR participant"
        )
    raise NoScanError(f"{path}: no such image.")


def output_path(
    image: Path, suffix: str, output: Path | None = None, directory: Path | None = None
) -> Path:
    """Name the label map of an image.

    Parameters
    ----------
    image : Path
        The image, with its ending.
    suffix : str
        Added to the image's name.
    output : Path, optional
        Whole path instead, with or without .nii.gz; its base name alone if `directory` is given.
    directory : Path, optional
        Folder of the label map.

    Raises
    ------
    UsageError
        `output` is a folder, or ends otherwise than a NIfTI image.
    """
    if output is None:
        named = image.with_name(_stem(image.name) + suffix + ".nii.gz")
    elif output.is_dir():
        raise UsageError(f"-o {output} is a folder. Give the label map's path, or use -d.")
    elif output.name.endswith(ENDINGS):
        named = output
    elif output.suffix:
        raise UsageError(f"-o {output}: the label map's name must end with .nii.gz or .nii.")
    else:
        named = output.with_name(output.name + ".nii.gz")
    return named if directory is None else directory / named.name


def _stem(name: str) -> str:
    for ending in READ:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def _run(arguments: argparse.Namespace) -> int:
    image = find_image(arguments.image)
    labels_path = output_path(image, arguments.suffix, arguments.output, arguments.directory)
    probabilities_path = labels_path.with_name(_stem(labels_path.name) + "_probseg.nii.gz")
    written = [labels_path, *([probabilities_path] if arguments.write_probabilities else [])]
    for path in written:
        if path.exists() and path.samefile(image):
            raise UsageError(f"{path} is the image itself. Give another suffix or output.")
        if path.exists() and not arguments.overwrite:
            raise UsageError(f"{path} exists already. Replace it with -x.")

    # Not at the top: it brings numpy, and mistakes in the command line are found without it.
    from bids_app.workflow.api import Segmenter

    segmenter = Segmenter(
        arguments.model,
        device=arguments.device,
        models_dir=arguments.models_dir,
        folds=arguments.folds,
        tta=not arguments.no_tta,
        float32=arguments.float32,
        region=arguments.region,
        threads=arguments.threads,
    )
    progress = None if arguments.quiet else partial(print, file=sys.stderr, flush=True)
    result = segmenter(image, assume_ras=arguments.assume_ras, progress=progress)
    result.save(labels_path)
    if arguments.write_probabilities:
        result.save(probabilities_path, probabilities=True)
    if not arguments.quiet:
        for warning in (*segmenter.warnings, *result.warnings):
            print(f"warning: {warning}", file=sys.stderr)
        print(_summary(result, written))
    return 0


def _summary(result: Result, written: Sequence[Path]) -> str:
    model = result.model
    lines = [f"Model: {model.name}, version {model.version}, licence {model.licence}"]
    lines.append(f"Please cite: {model.reference}")
    lines += [
        f"{name:<10} {row['voxels']:>8} voxels {row['volume_mm3'] / 1000:>8.2f} ml"
        for name, row in result.volumes.to_dict("index").items()
    ]
    if result.flags:
        lines.append(f"flags: {', '.join(result.flags)}")
    return "\n".join([*lines, *(f"wrote {path}" for path in written)])
