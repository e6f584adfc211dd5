"""The images still to do, divided into tasks, and the command that a task runs.

These images are those that ``bids_app ... participant --dry-run`` lists.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from bids_app.cli.options import as_words
from bids_app.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.settings import Settings

_STATE = re.compile(r"^(to do|complete) +(sub-[^/]+)/")


def for_elsewhere(settings: Settings, image: str, gres: str | None) -> Settings:
    """Copy settings so that they mean the same on another machine and in another folder."""
    models = settings.models_dir or os.environ.get("BRAINSTEM_MODELS_DIR")
    if image != "none":
        models = settings.models_dir  # the variable means nothing in the image
    device = settings.device
    if device == "auto" and "gpu" not in (gres or ""):
        device = "cpu"
    return replace(
        settings,
        bids_dir=settings.bids_dir.absolute(),
        output_dir=settings.output_dir.absolute(),
        models_dir=Path(models).absolute() if models else None,
        model=tuple(str(Path(m).absolute()) if Path(m).is_dir() else m for m in settings.model),
        device=device,
    )


def starter(image: str, settings: Settings, *, there: bool = False) -> list[str]:
    """Write the command that starts the app, up to BIDS_DIR.

    Parameters
    ----------
    image : str
        Apptainer image, or ``none`` for this installation.
    settings : Settings
        With all paths absolute.
    there : bool
        Bind only folders that exist already.
    """
    if image == "none":
        return here()
    path = Path(image).absolute()
    if not path.exists():
        raise UsageError(f"--image {image}: no such file.")
    read = [
        settings.bids_dir,
        settings.models_dir,
        settings.freesurfer_dir,
        settings.bids_filter_file,
        settings.norms,
    ]
    read += [Path(model) for model in settings.model if Path(model).is_absolute()]
    written = [settings.output_dir, settings.work_dir, settings.bids_database_dir]
    binds = [(p.absolute(), mode) for ps, mode in ((read, ":ro"), (written, "")) for p in ps if p]
    engines = ("apptainer", "singularity")
    engine = next((name for name in engines if shutil.which(name)), "apptainer")
    words = [engine, "run", "--containall", "--cleanenv"]
    if settings.device != "cpu":
        words.append("--nv")
    # A folder inside another one must be bound after it.
    for place, mode in sorted(binds, key=lambda bind: len(bind[0].parts)):
        if set(str(place)) & set(":,"):
            raise UsageError(f"{place}: Apptainer accepts no path with a colon or comma.")
        if place.exists() or not there:
            words.append(f"--bind={place}:{place}{mode}")
    return [*words, str(path)]


def here() -> list[str]:
    """Write the command that starts this installation of the app."""
    return [sys.executable, "-m", "bids_app"]


def can_start(start: Sequence[str]) -> bool:
    """Whether the command of the tasks can run here; inside the image there is no Apptainer."""
    return shutil.which(start[0]) is not None


def folders(settings: Settings) -> list[str]:
    """Write BIDS_DIR and OUTPUT_DIR as words of a command."""
    return [str(settings.bids_dir), str(settings.output_dir)]


def find_states(start: Sequence[str], settings: Settings) -> tuple[int, list[str], int]:
    """Ask the app which images are complete.

    Returns
    -------
    int
        Its exit code; if it is not 0, its messages are on the screen.
    list of str
        The participant of each image to do, as ``sub-01``.
    int
        Number of complete images.
    """
    words = [*start, *folders(settings), "participant", *as_words(replace(settings, dry_run=True))]
    left, complete = [], 0
    with subprocess.Popen(  # noqa: S603
        words, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as listing:
        for line in listing.stdout or ():
            if not (state := _STATE.match(line)):
                print(line, end="", flush=True)
            elif state[1] == "complete":
                complete += 1
            else:
                left.append(state[2])
    return listing.returncode, left, complete


def pack(left: Sequence[str], least: int) -> list[list[str]]:
    """Group participants into tasks of at least `least` images each; the last may have fewer."""
    tasks: list[list[str]] = []
    number = least
    for participant, images in groupby(left):
        if number >= least:
            tasks.append([])
            number = 0
        tasks[-1].append(participant)
        number += len(list(images))
    return tasks
