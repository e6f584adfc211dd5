"""Write boutiques.json, the descriptor of the app for Boutiques, out of the app's own parser.

    python containers/boutiques.py > boutiques.json

Boutiques' schema 0.5: https://github.com/boutiques/boutiques. A test holds the file to the parser.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bids_app.cli.main import make_parser
from bids_app.version import __version__

# Folders and files that need not be there yet, which Boutiques' type File would demand.
_MADE = frozenset({"output_dir", "work_dir", "bids_database_dir"})
CODES = {
    1: "some images failed; the others are complete",
    2: "wrong command line",
    3: "no image, or no result, matches the request",
    4: "the input is not a valid BIDS dataset",
    5: "the model is missing or damaged",
    6: "the output folder cannot be written, or belongs to another source dataset",
    130: "ended by Ctrl-C; re-run the same command to resume",
    143: "ended by SIGTERM; re-run the same command to resume",
}
_OF_IMAGES = {
    "label_maps": ("Label maps", "dseg.nii.gz"),
    "sidecars": ("Sidecars of label maps: source, model, settings, quality, flags", "dseg.json"),
    "probability_maps": ("Probability maps", "probseg.nii.gz"),
    "volumes": ("Tables of volumes", "volumes.tsv"),
    "comparisons": ("Tables of how well models agree", "comparison.tsv"),
}
_OF_ALL = {
    "output_dataset": ("BIDS derivative dataset", ""),
    "reports": ("Reports of participants", "/sub-*.html"),
    "freesurfer": ("The same in FreeSurfer's layout", "/freesurfer"),
    "citations": ("What to cite", "/logs/CITATION.md"),
    "group_table": ("Group table: one row per image and model", "/group_volumes.tsv"),
    "group_report": ("Group report", "/group.html"),
    "group_longitudinal": ("Group table of change between sessions", "/group_longitudinal.tsv"),
    "group_comparison": ("Group table of how well models agree", "/group_comparison.tsv"),
    "selection_table": ("Group table of chosen results", "/selection_volumes.tsv"),
    "selection_report": ("Group report of chosen results", "/selection.html"),
}


def descriptor() -> dict[str, Any]:
    """Make the whole descriptor."""
    parser = make_parser()
    hidden = ("help", "version", argparse.SUPPRESS)
    actions = [a for a in parser._actions if a.dest not in hidden]
    inputs = [_input(action) for action in actions]
    return {
        "name": "brainstem BIDS App",
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": " ".join((parser.description or "").split()),
        "author": "The brainstem BIDS App developers",
        "tool-doi": "10.1002/hbm.70141",
        "command-line": " ".join(["bids_app", *(one["value-key"] for one in inputs)]),
        "container-image": {
            "type": "docker",
            "image": "brainstem",
            "entrypoint": True,
        },
        "inputs": inputs,
        "output-files": _outputs(),
        "error-codes": [{"code": code, "description": text} for code, text in CODES.items()],
        # A head takes 6 s and 0.7 GiB on two cores (benchmarks/end_to_end.txt); larger images and
        # the other models need more.
        "suggested-resources": {
            "cpu-cores": 2,
            "ram": 4,
            "disk-space": 1,
            "walltime-estimate": 60,
        },
        "tags": {"domain": ["neuroinformatics", "bids-app", "mri", "segmentation"]},
        "tests": _tests(),
    }


def _outputs() -> list[dict[str, Any]]:
    paths = dict(_OF_ALL)
    for name, (title, ending) in _OF_IMAGES.items():
        paths[name] = (title, f"/sub-*/anat/*_{ending}")
        paths[f"{name}_of_sessions"] = (f"{title}, with sessions", f"/sub-*/ses-*/anat/*_{ending}")
    return [
        {
            "id": name,
            "name": title,
            "path-template": f"[OUTPUT_DIR]{path}",
            "optional": True,
            "list": "*" in path,
        }
        for name, (title, path) in paths.items()
    ]


def _input(action: argparse.Action) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": action.help,
        "type": _type(action),
        "optional": bool(action.option_strings),
        "value-key": f"[{action.dest.upper()}]",
    }
    if action.option_strings:
        flag = next(text for text in action.option_strings if text.startswith("--"))
        described["command-line-flag"] = flag
    if described["type"] == "Number":
        described |= {"integer": True, "minimum": 1}
    if action.choices:
        described["value-choices"] = list(action.choices)
    if action.nargs == "+":
        described["list"] = True
    elif isinstance(action, argparse._AppendAction):  # each value with the option before it
        described["list"] = True
        described["list-separator"] = f" {described['command-line-flag']} "
    return described


def _type(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "Flag"
    if action.type is Path:
        return "String" if action.dest in _MADE else "File"
    return "Number" if action.metavar == "N" else "String"


def _tests() -> list[dict[str, Any]]:
    """Give tests for `bosh test`, in a clone where `make demo` was run."""
    demo = {"bids_dir": "demo_output/bids", "output_dir": "demo_output/boutiques", "nprocs": 2}
    return [
        {
            "name": "one head of make demo is segmented",
            "invocation": {**demo, "level": "participant", "participant_label": ["01"]},
            "assertions": {
                "exit-code": 0,
                # `bosh test` expands no wildcards, so label maps cannot be named.
                "output-files": [{"id": "output_dataset"}],
            },
        },
        {
            "name": "the group table is made of it",
            "invocation": {**demo, "level": "group"},
            "assertions": {"exit-code": 0, "output-files": [{"id": "group_table"}]},
        },
        _fails("a model that is not there ends with 5", 5, {**demo, "model": ["none_such"]}),
        _fails("a participant that is not there ends with 3", 3,
               {**demo, "participant_label": ["none"]}),
        _fails("a folder that is no dataset ends with 4", 4, {**demo, "bids_dir": "docs"}),
    ]  # fmt: skip


def _fails(name: str, code: int, invocation: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "invocation": {**invocation, "level": "participant"},
        "assertions": {"exit-code": code},
    }


if __name__ == "__main__":
    print(json.dumps(descriptor(), indent=4))
