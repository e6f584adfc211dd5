"""boutiques.json is what the parser makes of it, and explains every exit code."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from bids_app import errors

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def boutiques():
    spec = spec_from_file_location("made_boutiques", ROOT / "containers" / "boutiques.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_descriptor_is_that_of_the_parser(boutiques):
    kept = json.loads((ROOT / "boutiques.json").read_text())
    assert kept == boutiques.descriptor(), "run: python containers/boutiques.py > boutiques.json"


def test_every_exit_code_is_explained(boutiques):
    kinds = [errors.BrainstemError, *errors.BrainstemError.__subclasses__()]
    assert {kind.exit_code for kind in kinds} | {130, 143} == set(boutiques.CODES)


def test_every_input_has_a_place_in_the_command(boutiques):
    made = boutiques.descriptor()
    assert made["command-line"].split()[1:] == [one["value-key"] for one in made["inputs"]]
    assert all(one["optional"] for one in made["inputs"] if "command-line-flag" in one)
