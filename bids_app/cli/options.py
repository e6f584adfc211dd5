"""The options of the commands, and how errors become exit codes.

Options are named as fMRIPrep and MRIQC name them. An option that is not typed leaves no trace in
argparse's namespace: its default is that of `bids_app.settings.Settings`.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.bids.labels import SUFFIXES
from bids_app.cpus import available_cpus
from bids_app.errors import BrainstemError, UsageError, printable, reason, unforeseen
from bids_app.io.files import read_text, read_toml
from bids_app.io.streams import tolerant_streams
from bids_app.settings import LEVELS, POSITIONAL, Settings, read_config
from bids_app.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_MOST_VERBOSE = 3
DEVICES = "{auto,cpu,openvino,cuda,cuda:N,mps}"
NPROCS = ("--nprocs", "--nthreads", "--n-cpus", "--n_cpus")  # names that fMRIPrep gives it

# Options that users of fMRIPrep, MRIQC and sMRIPrep type by habit and that mean nothing here, by
# the number of values that follow.
_NO_EFFECT = {
    "--notrack": 0,
    "--no-datalad-get": 0,
    "--datalad-get": 0,
    "--no-sub": 0,
    "--fs-no-reconall": 0,
    "--write-graph": 0,
    "--resource-monitor": 0,
    "--output-layout": 1,
    "--fs-license-file": 1,
}


def guarded(work: Callable[[], int]) -> int:
    """Run a command; turn an error that the user can fix into one line and its exit code.

    Parameters
    ----------
    work : callable
        Returns the exit code.

    Returns
    -------
    int
        The exit code of the work, that of its error, 1 after one that the app did not foresee, or
        130 after Ctrl-C.
    """
    with tolerant_streams():
        try:
            return work()
        except BrainstemError as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            print(f"error: {unforeseen(error)} ({_place(error)})", file=sys.stderr)
            return 1


def _place(error: Exception) -> str:
    """Name the line of the app in which an error occurred."""
    app = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    *_, last = (frame for frame in frames if Path(frame.filename).is_relative_to(app))
    return f"{Path(last.filename).relative_to(app).as_posix()}, line {last.lineno}"


def make_settings(typed: dict[str, Any], *, cpus: int | None = None) -> Settings:
    """Combine what was typed with the configuration file that it names; what was typed wins.

    Parameters
    ----------
    typed : dict of str to object
        Values by field of `Settings`, and ``config_file``.
    cpus : int, optional
        Default of ``nprocs``: all CPUs that this process may use unless given.

    Raises
    ------
    UsageError
        The configuration file cannot be read, or options contradict each other.
    """
    values = dict(typed)
    if (file := values.pop("config_file", None)) is not None:
        values = _read_file(file) | values
    for name in ("participant_label", "session_label"):
        if values.get(name):
            values[name] = _read_labels(name, values[name])
    if values.get("suffix"):
        values["suffix"] = _read_suffixes(values["suffix"])
    values["nprocs"] = values.get("nprocs", cpus or available_cpus())
    values["omp_nthreads"] = values.get("omp_nthreads", values["nprocs"])
    if values["omp_nthreads"] > values["nprocs"]:
        raise UsageError(
            f"--omp-nthreads {values['omp_nthreads']} is more than --nprocs {values['nprocs']}."
        )
    # Given more often it does nothing more, and would make command lines endless.
    values["verbose"] = min(values.get("verbose", 0), _MOST_VERBOSE)
    if "folds" in values:  # a set: 1 0 0 is 0 1
        values["folds"] = sorted(set(values["folds"]))
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Settings(**values)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return read_config(read_toml(file))
    except OSError as error:
        raise UsageError(f"--config-file {file}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(f"--config-file {file}: {error}.") from None


def _read_labels(name: str, texts: Iterable[str]) -> list[str]:
    """Split labels at commas and blanks; ``@FILE`` stands for the labels in a file.

    In a table with a column ``participant_id`` or ``session_id`` first, such as participants.tsv,
    only this column counts.
    """
    labels: list[str] = []
    for text in texts:
        if text.startswith("@"):
            labels += _labels_in(name, Path(text[1:]))
        else:
            labels += text.replace(",", " ").split()
    if not labels:
        raise UsageError(f"--{name.replace('_', '-')}: no label is given.")
    return labels


def _read_suffixes(texts: Iterable[str]) -> list[str]:
    """Split suffixes at commas and blanks, and correct upper and lower case."""
    known = {suffix.lower(): suffix for suffix in SUFFIXES}
    words = [word for text in texts for word in text.replace(",", " ").split()]
    if not words or (unknown := [word for word in words if word.lower() not in known]):
        raise UsageError(
            f"--suffix {' '.join(unknown if words else texts)}: choose from {', '.join(SUFFIXES)}."
        )
    return list(dict.fromkeys(known[word.lower()] for word in words))


def _labels_in(name: str, file: Path) -> list[str]:
    try:
        text = read_text(file, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        option = name.replace("_", "-")
        raise UsageError(f"--{option} @{file}: cannot be read ({reason(error)}).") from None
    lines = [line.partition("#")[0].replace(",", " ").split() for line in text.splitlines()]
    lines = [words for words in lines if words]
    if lines and lines[0][0] in ("participant_id", "session_id"):
        lines = [words[:1] for words in lines[1:]]
    return [word for words in lines for word in words]


def as_words(settings: Settings) -> list[str]:
    """Write settings as the options that one would type after the level, defaults left out."""
    words = []
    for field in fields(Settings):
        value = getattr(settings, field.name)
        # The number of CPUs differs between machines, so it is never left to the default.
        by_default = value == field.default and field.name not in ("nprocs", "omp_nthreads")
        if field.name in POSITIONAL or by_default:
            continue
        option = "--" + field.name.replace("_", "-")
        if field.name == "model":  # given again for each value
            words += [f"{option}={name}" for name in value]
        elif isinstance(value, tuple):
            words += [option, *value]
        elif isinstance(value, bool) or field.name == "verbose":
            words += [option] * value
        else:
            words.append(f"{option}={value.absolute() if isinstance(value, Path) else value}")
    return words


# --- options of all commands ------------------------------------------------------------------


def positive(text: str) -> int:
    """Read a positive whole number, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return number


def add_version(parser: argparse._ActionsContainer) -> None:
    """Add ``--version``."""
    parser.add_argument("--version", action="version", version=f"brainstem BIDS App {__version__}")


class _NoEffect(argparse.Action):
    """Accepts an option that has no effect, and says so."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002
        values: str | Sequence[Any] | None,  # noqa: ARG002
        option_string: str | None = None,
    ) -> None:
        print(f"warning: {option_string} has no effect in {parser.prog}.", file=sys.stderr)


def _add_no_effect(parser: argparse.ArgumentParser) -> None:
    for option, number in _NO_EFFECT.items():
        parser.add_argument(
            option,
            action=_NoEffect,
            nargs=None if number else 0,
            dest=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that choose how a model runs."""
    parser.add_argument(
        "--models-dir",
        type=Path,
        metavar="FOLDER",
        help="folder of installed models (default: the environment variable BRAINSTEM_MODELS_DIR)",
    )
    parser.add_argument(
        "--device",
        metavar=DEVICES,
        help="where the network runs (default: auto, which takes GPUs if there are any, else the "
        "CPU); openvino: the CPU with OpenVINO, which is faster and must be installed "
        "(docs/speed.md)",
    )
    parser.add_argument(
        "--float32",
        action="store_true",
        help="on a CUDA GPU, compute in float32 as a CPU does, not in float16: up to twelve times "
        "slower, and few voxels or none change (docs/speed.md)",
    )
    parser.add_argument(
        "--folds",
        action="extend",
        nargs="+",
        metavar="FOLD",
        help="networks of the model to use, such as 0 1, if it has several (default: all)",
    )
    parser.add_argument(
        "--no-tta",
        action="store_true",
        help="do not average over mirrored images: faster, slightly less accurate (no effect with "
        "MD-GRU)",
    )
    parser.add_argument(
        "--write-probabilities",
        action="store_true",
        help="also write a probability map of each region",
    )
    parser.add_argument(
        "--assume-ras",
        action="store_true",
        help="accept images whose header states no orientation, and assume that they are stored "
        "from left to right, back to front and bottom to top; otherwise they are refused",
    )
    parser.add_argument(
        "--region",
        action="store_true",
        help="run a whole-head model (the published ones) only on a box around the brainstem, "
        "which the open model finds: faster, but the result is not the same to the voxel",
    )


# --- options of bids_app ----------------------------------------------------------------------


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the two folders, which come first."""
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="the BIDS dataset to read")
    parser.add_argument(
        "output_dir",
        type=Path,
        metavar="OUTPUT_DIR",
        help="folder for the results, a BIDS derivative dataset; created if it does not exist",
    )


def add_level(parser: argparse.ArgumentParser) -> None:
    """Add the level, which comes after the folders."""
    parser.add_argument(
        "level",
        choices=LEVELS,
        help="participant: validate the dataset and segment its images; group: collect the results "
        "in OUTPUT_DIR in one table (no validation)",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options of the BIDS App."""
    add_version(parser)
    _add_selection(parser.add_argument_group("which images"))
    network = parser.add_argument_group("segmentation (participant level, except for --model)")
    network.add_argument(
        "--model",
        action="append",
        metavar="NAME|FOLDER",
        help="name or folder of the model (default: open; brainstem-models lists names). At the "
        "group level it may be given several times (default: every model with results)",
    )
    add_model_options(network)
    _add_results(parser.add_argument_group("results"))
    _add_run(parser.add_argument_group("the run itself"))
    _add_no_effect(parser)


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--participant-label",
        "--participant_label",
        action="extend",
        nargs="+",
        metavar="LABEL",
        help="participants, with or without sub-, separated by blanks or commas; @FILE: those "
        "listed in a file, such as @participants.tsv (default: all)",
    )
    group.add_argument(
        "--session-label",
        "--session_label",
        action="extend",
        nargs="+",
        metavar="LABEL",
        help="sessions, with or without ses-, separated by blanks or commas; @FILE: those listed "
        "in a file (default: all)",
    )
    group.add_argument(
        "--suffix",
        action="extend",
        nargs="+",
        metavar="SUFFIX",
        help=f"images of which kinds, of {' '.join(SUFFIXES)}; each image has results of its own "
        "(default: T1w; at the group level all with results)",
    )
    group.add_argument(
        "--desc",
        action="extend",
        nargs="+",
        metavar="LABEL",
        help="participant level: derivatives with this desc- in their names, such as preproc for "
        "the images that fMRIPrep has preprocessed (default: raw images)",
    )
    group.add_argument(
        "--freesurfer-dir",
        type=Path,
        metavar="FOLDER",
        help="participant level: segment mri/orig.mgz (else T1.mgz, else norm.mgz) of the subjects "
        "in this folder of FreeSurfer or FastSurfer, which were made from BIDS_DIR, in place of "
        "images in BIDS_DIR",
    )
    group.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="participant level: JSON file that selects images, such as "
        '{"t1w": {"acquisition": "mprage"}}',
    )
    group.add_argument(
        "--include-ce",
        action="store_true",
        help="participant level: include images with contrast agent (ce- in the file name)",
    )
    group.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        action="store_true",
        help="participant level: do not run the BIDS validator, whose errors are shown as warnings "
        "(the group level never runs it)",
    )
    group.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="FOLDER",
        help="participant level: keep the index of the dataset (made by pybids) here for later "
        "runs",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--covariates",
        action="extend",
        nargs="+",
        metavar="COLUMN",
        help="group level: columns of participants.tsv to add to the table, such as age sex",
    )
    group.add_argument(
        "--norms",
        type=Path,
        metavar="FILE",
        help="group level: your own table of norms (TSV), for z scores (docs/measures.md)",
    )
    group.add_argument(
        "--flag-threshold",
        action="extend",
        nargs="+",
        metavar="NAME=VALUE",
        help="other thresholds for flags, such as low_confidence=0.8 low_resolution=3 "
        "(docs/quality.md lists names and thresholds). The group level and --reports-only apply "
        "their own thresholds; no image needs to be segmented again",
    )
    group.add_argument(
        "--freesurfer-stats",
        action="store_true",
        help="participant level: also write volumes and label maps in the layout of FreeSurfer's "
        "brainstem module, in OUTPUT_DIR/freesurfer; with --reports-only, from the results that "
        "are there",
    )


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="FOLDER",
        help="folder for temporary files (default: the system's, such as /tmp)",
    )
    group.add_argument(
        *NPROCS,
        type=positive,
        metavar="N",
        help="CPU threads in total (default: all CPUs that the run may use, by affinity, cgroup "
        "quota and SLURM_CPUS_PER_TASK)",
    )
    group.add_argument(
        "--omp-nthreads",
        type=positive,
        metavar="N",
        help="CPU threads of the network, at most --nprocs (default: --nprocs)",
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="participant level: segment images again that are complete",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="list what would be done, and do nothing"
    )
    group.add_argument(
        "--stop-on-first-crash",
        action="store_true",
        help="participant level: stop at the first image that fails",
    )
    group.add_argument(
        "--reports-only",
        action="store_true",
        help="participant level: remake the reports from the results in OUTPUT_DIR, and segment "
        "nothing",
    )
    group.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="TOML file with any of these options, by name; options typed here override it",
    )
    group.add_argument(
        "-v", "--verbose", action="count", help="print details, which the log always has"
    )
