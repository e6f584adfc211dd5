"""The command ``bids_app``, also named ``brainstem``.

Nothing heavy is imported before a level runs, so that ``--help`` and mistakes in the command line
answer at once.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from bids_app.cli.options import add_folders, add_level, add_options, guarded, make_settings
from bids_app.settings import LEVELS, ONE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.settings import Settings

_DESCRIPTION = """
Segments midbrain, pons and medulla oblongata on the T1-weighted (or other) images of a BIDS dataset
(participant level) and collects their volumes in one table (group level).
For research only; not a medical device.
"""
_EXIT_CODES = """
exit codes: 0 all done; 1 some images failed; 2 wrong command line; 3 no image (or no result)
matches; 4 the input is not a valid BIDS dataset; 5 the model is missing or damaged; 6 the output
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
    return make_settings(typed)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
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
    add_level(parser)
    add_options(parser)
    return parser


def _warn_of_level(typed: dict[str, Any]) -> None:
    """Warn of typed options of the other level; a configuration file may serve both levels."""
    level = typed["level"]
    if names := [name for name in typed if ONE_LEVEL.get(name, level) != level]:
        options = ", ".join("--" + name.replace("_", "-") for name in names)
        (other,) = set(LEVELS) - {level}
        print(
            f"warning: {options}: for the {other} level, no effect at the {level} level.",
            file=sys.stderr,
        )


def _run(settings: Settings) -> int:
    from bids_app.bids.dataset import check_source

    check_source(settings.bids_dir)
    if settings.level == "group":
        from bids_app.workflow import group

        return group.run(settings)
    from bids_app.workflow import participant

    return participant.run(settings)
