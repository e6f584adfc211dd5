"""``brainstem-segment``: images without BIDS, with the options of MARS-brainstem's own command."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.bids.freesurfer import TEMPLATES
from bids_app.bids.freesurfer import find_image as find_subject_image
from bids_app.cli.options import add_model_options, add_version, guarded, positive
from bids_app.cpus import available_cpus
from bids_app.errors import ImageError, NoScanError, UsageError
from bids_app.io.files import list_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.workflow.api import Result, Segmenter

ENDINGS = (".nii.gz", ".nii")  # of label maps
READ = (*ENDINGS, ".mgz", ".mgh")


def main(argv: Sequence[str] | None = None) -> int:
    """Segment images.

    Parameters
    ----------
    argv : sequence of str, optional
        Command line without the program's name; that of the process by default.

    Returns
    -------
    int
        Exit code; see `bids_app.errors`.
    """
    return guarded(lambda: _run(make_parser().parse_intermixed_args(argv)))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="brainstem-segment",
        # Images first: an option that takes several values would take them for its own.
        usage="%(prog)s IMAGE... [options]",
        description="Segments midbrain, pons and medulla oblongata on MRI of the head, without "
        "BIDS. For research only; not a medical device.",
        epilog="exit codes: 0 done; 1 an image cannot be used; 2 wrong command line, or the label "
        "map exists already; 3 no such image; 5 the model is missing or damaged; 6 the label map "
        "cannot be written",
        allow_abbrev=False,
    )
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="NIfTI image or .mgz image of FreeSurfer, whose ending may be omitted; a folder of "
        "images; or the folder of a subject of FreeSurfer or FastSurfer, whose mri/orig.mgz (else "
        "T1.mgz, norm.mgz) is segmented. The model is loaded once for all",
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
        help="path of the label map of one image, .nii.gz or .nii (default: beside the image, "
        "named by -s)",
    )
    output.add_argument(
        "-d",
        "--directory",
        type=Path,
        metavar="FOLDER",
        help="folder for the label maps; only the file name of -o counts then (default: that of "
        "each image)",
    )
    output.add_argument(
        "-x", "--overwrite", action="store_true", help="replace a label map that exists already"
    )
    output.add_argument(
        "--write-tables",
        action="store_true",
        help="also write the volumes as <label map>_volumes.tsv, and volumes, quality and flags as "
        "<label map>.json",
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


def find_images(path: Path, suffix: str) -> list[Path]:
    """Find the images that a word of the command line stands for.

    Parameters
    ----------
    path : Path
        An image that may be given without its ending, or a folder: of a subject of FreeSurfer, or
        of images and such subjects.
    suffix : str
        What the names of label maps end with, which are no images to segment.

    Raises
    ------
    NoScanError
        There is no such image, or none in the folder.
    UsageError
        The folder is a BIDS dataset.
    """
    for candidate in (path, *(path.with_name(path.name + ending) for ending in READ)):
        if candidate.is_file() or (candidate.is_symlink() and not candidate.is_dir()):
            return [candidate]
    if not path.is_dir():
        raise NoScanError(f"{path}: no such image.")
    if image := find_subject_image(path):
        return [image]
    if (path / "dataset_description.json").exists():
        raise UsageError(
            f"{path} is a BIDS dataset. Segment it with: "
            f"bids_app {shlex.quote(str(path))} OUTPUT_DIR participant"
        )
    made = tuple(f"{suffix}{end}{ending}" for end in ("", "_probseg") for ending in ENDINGS)
    found = []
    for entry in (path / e.name for e in list_folder(path)):
        if entry.name.startswith(".") or TEMPLATES.fullmatch(entry.name):
            continue
        if entry.is_dir():
            found += [image] if (image := find_subject_image(entry)) else []
        elif entry.name.endswith(READ) and not entry.name.endswith(made):
            found.append(entry)
    if not found:
        raise NoScanError(f"{path}: the folder has no image that ends with {', '.join(READ)}.")
    return found


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


def table_paths(labels: Path) -> tuple[Path, Path]:
    """Name the tables of a label map: volumes as TSV, and all measures as JSON."""
    stem = _stem(labels.name)
    return labels.with_name(f"{stem}_volumes.tsv"), labels.with_name(f"{stem}.json")


def _stem(name: str) -> str:
    for ending in READ:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


@dataclass(frozen=True)
class _Job:
    """An image and the path of its label map."""

    image: Path
    labels: Path

    @property
    def probabilities(self) -> Path:
        """Path of the probability maps."""
        return self.labels.with_name(_stem(self.labels.name) + "_probseg.nii.gz")

    def written(self, arguments: argparse.Namespace) -> list[Path]:
        """Name all files that will be written."""
        paths = [self.labels]
        paths += [self.probabilities] if arguments.write_probabilities else []
        return [*paths, *(table_paths(self.labels) if arguments.write_tables else ())]


def _run(arguments: argparse.Namespace) -> int:
    jobs, kept = _jobs(arguments)
    for path in kept:
        print(f"{path} exists already and is left alone; -x replaces it", file=sys.stderr)
    if not jobs:
        return 0

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
    if not arguments.quiet:
        _warn(segmenter.warnings)
    failed = 0
    for number, job in enumerate(jobs, start=1):
        place = f"[{number}/{len(jobs)}] {job.image}" if len(jobs) > 1 else ""
        try:
            result = _segment(job, segmenter, arguments)
        except ImageError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        if not arguments.quiet:
            _warn(result.warnings)
            print("\n".join([*([place] if place else []), *_summary(result)]))
            print("\n".join(f"wrote {path}" for path in job.written(arguments)), flush=True)
    if not arguments.quiet and failed < len(jobs):
        model = segmenter.model
        print(f"Model: {model.name}, version {model.version}, licence {model.licence}")
        print(f"Please cite: {model.reference}")
    if failed and len(jobs) > 1:
        print(f"{failed} of {len(jobs)} images failed", file=sys.stderr)
    return 1 if failed else 0


def _jobs(arguments: argparse.Namespace) -> tuple[list[_Job], list[Path]]:
    """Find the images and name their label maps; give also the label maps that are kept."""
    found = [
        (word, image) for word in arguments.images for image in find_images(word, arguments.suffix)
    ]
    several = len(found) > 1
    if several and arguments.output is not None:
        raise UsageError(
            f"-o names one label map, but there are {len(found)} images. Use -d or -s."
        )
    jobs: dict[Path, _Job] = {}
    kept = []
    for word, image in found:
        labels = output_path(image, arguments.suffix, arguments.output, arguments.directory)
        if arguments.directory and not arguments.output and word.is_dir() and image.parent != word:
            subject = image.parent.parent.name  # all images of FreeSurfer have the same names
            labels = labels.with_name(f"{subject}_{labels.name}")
        job = _Job(image, labels)
        for path in job.written(arguments):
            if path.exists() and path.samefile(image):
                raise UsageError(f"{path} is the image itself. Give another suffix or output.")
        first = jobs.setdefault(labels.absolute(), job)
        if first.image.absolute() != image.absolute():
            raise UsageError(
                f"{first.image} and {image} would both be written to {labels}. Segment them one by "
                "one, with -o or another -d."
            )
        there = [path for path in job.written(arguments) if path.exists()]
        if there and not arguments.overwrite:
            if not several:
                raise UsageError(f"{there[0]} exists already. Replace it with -x.")
            kept.append(there[0])
            del jobs[labels.absolute()]
    return list(jobs.values()), kept


def _segment(job: _Job, segmenter: Segmenter, arguments: argparse.Namespace) -> Result:
    progress = None if arguments.quiet else partial(print, file=sys.stderr, flush=True)
    result = segmenter(job.image, assume_ras=arguments.assume_ras, progress=progress)
    result.save(job.labels)
    if arguments.write_probabilities:
        result.save(job.probabilities, probabilities=True)
    if arguments.write_tables:
        result.save_tables(job.labels)
    return result


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _summary(result: Result) -> list[str]:
    from bids_app.measures.flags import FLAGS

    lines = [
        f"{name:<10} {row['voxels']:>8} voxels {row['volume_mm3'] / 1000:>8.2f} ml"
        for name, row in result.volumes.to_dict("index").items()
    ]
    return [*lines, *(f"flag {flag}: {FLAGS.get(flag, '')}" for flag in result.flags)]
