"""What all commands share: how errors become exit codes, and the options that name a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.errors import BrainstemError

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = "{auto,cpu,openvino,cuda,cuda:N,mps}"


def guarded(work: Callable[[], int]) -> int:
    """Do a command's work; an error that is the user's to mend becomes one line and its code.

    Parameters
    ----------
    work : callable
        Gives the exit code.

    Returns
    -------
    int
        The exit code: that of the work, that of its error, or 130 after Ctrl-C.
    """
    try:
        return work()
    except BrainstemError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that choose a model and how its network runs."""
    parser.add_argument(
        "--models-dir",
        type=Path,
        metavar="FOLDER",
        help="folder of installed models (default: the environment variable BRAINSTEM_MODELS_DIR)",
    )
    parser.add_argument(
        "--device",
        metavar=DEVICES,
        help="where the network runs (default: auto, GPUs where there are any, else the CPU);"
        " openvino: the CPU with OpenVINO, which is faster and must be installed (docs/speed.md)",
    )
    parser.add_argument(
        "--float32",
        action="store_true",
        help="on a CUDA GPU, multiply in float32 as a CPU does, not in float16: up to twelve times "
        "slower; few voxels or none change (docs/speed.md)",
    )
    parser.add_argument(
        "--folds",
        action="extend",
        nargs="+",
        metavar="FOLD",
        help="which of the model's networks to use, such as 0 1, where it has several "
        "(default: all)",
    )
    parser.add_argument(
        "--no-tta",
        action="store_true",
        help="do not average over mirrored images: faster, a little less accurate (MD-GRU never "
        "does)",
    )
    parser.add_argument(
        "--write-probabilities",
        action="store_true",
        help="write a probability map of each region too",
    )
    parser.add_argument(
        "--assume-ras",
        action="store_true",
        help="take it that images whose header tells no orientation are stored from left to right, "
        "back to front and bottom to top; without this they are refused",
    )
    parser.add_argument(
        "--region",
        action="store_true",
        help="run a model of whole heads (the published ones) only on a box around the brainstem, "
        "which the open model finds: faster, but not the same result to the voxel",
    )


def positive(text: str) -> int:
    """Read a positive whole number, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return number
