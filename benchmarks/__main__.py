"""Run a benchmark: ``python -m benchmarks {speed,accuracy,quality,change,group,gpu} ...``.

Run from the root of the repository. ``--help`` works at each level.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

from benchmarks.common import out_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Command: (module, summary). A module has `add_options(parser)` and `main(options)`.
SPEED = {
    "end-to-end": ("speed.end_to_end", "the participant level as a user starts it"),
    "stages": ("speed.stages", "the participant level by stage, beside other programs"),
    "scale": ("speed.scale", "time and memory by number and size of images"),
    "speedups": ("speed.speedups", "what each optimization saves"),
    "engine": ("speed.engine", "the steps of the nnU-Net engine"),
    "nnunet-v1": ("speed.nnunet_v1", "an nnU-Net v1 model, here and in nnunet 1.7.1"),
    "mdgru": ("speed.mdgru", "one window of MD-GRU"),
    "mdgru-head": ("speed.mdgru_head", "whole heads by MD-GRU"),
    "finding": ("speed.finding", "finding the images of a large dataset"),
}
ACCURACY = {
    "evaluate": ("accuracy.evaluate", "agreement with labels, robustness, known atrophy, flags"),
    "register": ("accuracy.registration", "the labels and masks by plain registration"),
    "plausibility": ("accuracy.plausibility", "results against what is anatomically plausible"),
}
COMMANDS: dict[str, Mapping[str, tuple[str, str]] | tuple[str, str]] = {
    "speed": SPEED,
    "accuracy": ACCURACY,
    "quality": ("quality.evaluate", "how well quality measures find bad results"),
    "change": ("change.study", "estimators of change between scans"),
    "group": ("group", "the group level on many images"),
    "gpu": ("gpu", "all engines on a CUDA GPU"),
}
SUMMARIES = {"speed": "time and memory", "accuracy": "label maps and volumes"}


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark that the command line names.

    Parameters
    ----------
    words : sequence of str, optional
        The command line; by default that of the process.

    Returns
    -------
    int
        Exit status.
    """
    words = sys.argv[1:] if words is None else list(words)
    program = "python -m benchmarks"
    name, words = choose(program, {n: summary(n) for n in COMMANDS}, words)
    program, entry = f"{program} {name}", COMMANDS[name]
    if not isinstance(entry, tuple):
        name, words = choose(program, {n: text for n, (_, text) in entry.items()}, words)
        program, entry = f"{program} {name}", entry[name]
    # Imported only now, so that `--help` is quick and each benchmark loads what it needs.
    module = importlib.import_module(f"benchmarks.{entry[0]}")
    parser = argparse.ArgumentParser(
        program,
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[out_option()],
    )
    module.add_options(parser)
    return module.main(parser.parse_args(words)) or 0


def choose(program: str, summaries: Mapping[str, str], words: list[str]) -> tuple[str, list[str]]:
    """Parse one level of commands; return the command and the words that are left."""
    width = max(map(len, summaries)) + 2
    parser = argparse.ArgumentParser(
        program,
        description="\n".join(f"{name:<{width}}{text}" for name, text in summaries.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=list(summaries))
    return str(parser.parse_args(words[:1]).command), words[1:]


def summary(name: str) -> str:
    """Describe a command of the first level."""
    entry = COMMANDS[name]
    return entry[1] if isinstance(entry, tuple) else f"{SUMMARIES[name]}: {', '.join(entry)}"


if __name__ == "__main__":
    sys.exit(main())
