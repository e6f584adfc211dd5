"""The command line of the BIDS App.

Options are named as fMRIPrep and MRIQC name them. Nothing heavy is imported before a level runs,
so that ``--help`` and mistakes in the command line answer at once.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app import __version__
from bids_app.cli.options import add_model_options, guarded, positive
from bids_app.errors import DatasetError, UsageError
from bids_app.settings import LEVELS, OF_ONE_LEVEL, Settings, available_cpus

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIELDS = {field.name for field in fields(Settings)}
_DESCRIPTION = """
Segments midbrain, pons and medulla oblongata on the T1-weighted images of a BIDS dataset
(participant level) and gathers their volumes in one table (group level).
For research only; not a medical device.
"""
_EXIT_CODES = """
exit codes: 0 all done; 1 some images failed; 2 wrong command line; 3 no T1w image (or no result)
matches; 4 the input is no valid BIDS dataset; 5 the model is missing or damaged; 6 the output
folder cannot be written or belongs to another dataset; 130 Ctrl-C; 143 SIGTERM
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App.

    Parameters
    ----------
    argv : sequence of str, optional
        Command line without the program's name; that of the process by default.

    Returns
    -------
    int
        Exit code; see `bids_app.errors`.
    """
    return guarded(lambda: _run(parse(argv)))


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Read the command line and the configuration file that it names.

    Raises
    ------
    UsageError
        The configuration file cannot be read, or options contradict each other.
    SystemExit
        The command line is wrong (exit code 2), or asked for help or the version.
    """
    typed = vars(make_parser().parse_args(argv))
    _warn_of_level(typed)
    return settle(typed)


def _warn_of_level(typed: dict[str, Any]) -> None:
    """Name typed options of the other level; a configuration file may serve both levels."""
    level = typed["level"]
    if names := [name for name in typed if OF_ONE_LEVEL.get(name, level) != level]:
        options = ", ".join("--" + name.replace("_", "-") for name in names)
        (other,) = set(LEVELS) - {level}
        print(
            f"warning: {options}: for the {other} level, no effect at the {level} level.",
            file=sys.stderr,
        )


def settle(typed: dict[str, Any], *, cpus: int | None = None) -> Settings:
    """Make settings of what was typed, by name of the field, and of the file that it names.

    Parameters
    ----------
    typed : dict
        Values by field of `Settings`, and ``config_file``.
    cpus : int, optional
        ``nprocs`` where nothing names it; the CPUs that are there by default.

    Raises
    ------
    UsageError
        As for `parse`.
    """
    parser = make_parser()
    values: dict[str, Any] = {}
    if (file := typed.pop("config_file", None)) is not None:
        words = _as_arguments(parser, _read_toml(file), f"--config-file {file}")
        values = vars(parser.parse_args([*words, "--", ".", ".", "group"]))
    values |= typed
    values["nprocs"] = values.get("nprocs", cpus or available_cpus())
    values["omp_nthreads"] = values.get("omp_nthreads", values["nprocs"])
    if values["omp_nthreads"] > values["nprocs"]:
        raise UsageError(
            f"--omp-nthreads {values['omp_nthreads']} is more than --nprocs {values['nprocs']}."
        )
    if "folds" in values:  # a set: 1 0 0 is 0 1
        values["folds"] = sorted(set(values["folds"]))
    for key, value in values.items():
        values[key] = tuple(value) if isinstance(value, list) else value
    return Settings(**values)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser; an option that is not typed leaves no trace, its default is `Settings`'."""
    parser = argparse.ArgumentParser(
        prog="bids_app",
        # Folders first: an option that takes several values would take them for its own.
        usage="%(prog)s BIDS_DIR OUTPUT_DIR {participant,group} [options]",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    add_folders(parser)
    parser.add_argument(
        "level",
        choices=LEVELS,
        help="participant: validate the dataset and segment its images; group: gather the results "
        "in OUTPUT_DIR in one table (validates nothing)",
    )
    add_options(parser)
    return parser


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the two folders, which come first."""
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="the BIDS dataset to read")
    parser.add_argument(
        "output_dir",
        type=Path,
        metavar="OUTPUT_DIR",
        help="folder for the results, a BIDS derivative dataset; made where it is missing",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options of the BIDS App."""
    parser.add_argument("--version", action="version", version=f"brainstem BIDS App {__version__}")
    _add_selection(parser.add_argument_group("which images"))
    network = parser.add_argument_group("segmentation (participant level, but for --model)")
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


def as_words(settings: Settings) -> list[str]:
    """Words that one would type for settings, after the level; without most of the defaults."""
    unlike = {"nprocs", "omp_nthreads"} | {  # the CPUs that are there differ from place to place
        field.name
        for field in fields(Settings)
        if field.default is not MISSING and getattr(settings, field.name) != field.default
    }
    content = tomllib.loads(settings.toml())
    typed = {key: value for key, value in content.items() if key.replace("-", "_") in unlike}
    return _as_arguments(make_parser(), typed, "settings")


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--participant-label",
        "--participant_label",
        action="extend",
        nargs="+",
        metavar="LABEL",
        help="participants, with or without sub- (default: all)",
    )
    group.add_argument(
        "--session-label",
        "--session_label",
        action="extend",
        nargs="+",
        metavar="LABEL",
        help="sessions, with or without ses- (default: all)",
    )
    group.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="participant level: JSON file that tells which images to take, such as "
        '{"t1w": {"acquisition": "mprage"}}',
    )
    group.add_argument(
        "--include-ce",
        action="store_true",
        help="participant level: take images with contrast agent (ce- in the file name) too",
    )
    group.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        action="store_true",
        help="participant level: do not run the BIDS validator, so that a dataset with errors is "
        "taken as it is (the group level never runs it)",
    )
    group.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="FOLDER",
        help="participant level: keep the index of the dataset (of pybids) here, for later runs",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--covariates",
        action="extend",
        nargs="+",
        metavar="COLUMN",
        help="group level: columns of participants.tsv to join to the table, such as age sex",
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
        "brainstem module, below OUTPUT_DIR/freesurfer; with --reports-only without a model",
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
        "--nprocs",
        type=positive,
        metavar="N",
        help="CPU threads in all (default: the CPUs that the run may use)",
    )
    group.add_argument(
        "--omp-nthreads",
        type=positive,
        metavar="N",
        help="CPU threads of the network, at most --nprocs (default: --nprocs)",
    )
    group.add_argument(
        "--force", action="store_true", help="participant level: segment complete images again"
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
        help="participant level: make the reports again from the results in OUTPUT_DIR, with the "
        "flags and changes of the group level, and segment nothing",
    )
    group.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="TOML file with any of these options, by name; the command line wins",
    )
    group.add_argument(
        "-v", "--verbose", action="count", help="print details; they are in the run's log anyway"
    )


def _run(settings: Settings) -> int:
    if not settings.bids_dir.is_dir():
        raise DatasetError(f"BIDS_DIR {settings.bids_dir} is not a folder.")
    if not (settings.bids_dir / "dataset_description.json").is_file():
        raise DatasetError(
            f"BIDS_DIR {settings.bids_dir} has no dataset_description.json, so it is no BIDS "
            "dataset. Name the dataset's top folder."
        )
    if settings.level == "group":
        from bids_app.workflow import group

        return group.run(settings)
    from bids_app.workflow import participant

    return participant.run(settings)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config-file {file}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config-file {file}: not TOML ({error}).") from None


def _as_arguments(
    parser: argparse.ArgumentParser, content: dict[str, Any], origin: str
) -> list[str]:
    """Turn the content of a configuration file into the words that one would type for it."""
    words = []
    for key, value in content.items():
        option = "--" + key.replace("_", "-")
        action = parser._option_string_actions.get(option)
        if action is None or action.dest not in _FIELDS:
            raise UsageError(f"{origin}: there is no option {option}.")
        words += _words(option, action, value, origin)
    return words


def _words(option: str, action: argparse.Action, value: Any, origin: str) -> list[str]:
    if isinstance(action, argparse._CountAction) and isinstance(value, int):
        return [option] * value
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{origin}: {option} takes true or false.")
        return [option] * value
    values = value if isinstance(value, list) else [value]
    if any(isinstance(v, bool | dict | list) for v in values):
        raise UsageError(f"{origin}: {option} takes text or a number.")
    if action.nargs == "+":
        return [option, *map(str, values)] if values else []
    if len(values) > 1 and not isinstance(action, argparse._AppendAction):
        raise UsageError(f"{origin}: {option} takes one value.")
    return [f"{option}={v}" for v in values]
