"""What the repository promises whoever installs it."""

from __future__ import annotations

import configparser
import re
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import bids_app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


@pytest.fixture(scope="module")
def requirements(setup_cfg: configparser.ConfigParser) -> list[Requirement]:
    extras = setup_cfg["options.extras_require"].values()
    texts = [setup_cfg["options"]["install_requires"], *extras]
    return [Requirement(line) for text in texts for line in text.split("\n") if line]


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_citation_names_the_version_and_licence_of_the_package(citation, setup_cfg):
    assert citation["version"] == bids_app.__version__
    code, _, _weights = setup_cfg["metadata"]["license_expression"].partition(" AND ")
    assert citation["license"] == code


def test_every_reference_of_the_citation_has_a_doi_and_authors(citation):
    assert {"10.1002/hbm.70141", "10.1038/s41592-020-01008-z", "10.1007/978-3-319-75238-9_3"} <= {
        reference["doi"] for reference in citation["references"]
    }
    assert all(reference["authors"] for reference in citation["references"])


def test_console_scripts_resolve(setup_cfg):
    scripts = setup_cfg["options.entry_points"]["console_scripts"].strip().splitlines()
    assert scripts
    for script in scripts:
        module, function = script.split("=")[1].strip().split(":")
        assert callable(getattr(import_module(module), function)), script


def test_brainstem_is_another_name_of_the_command_bids_app(setup_cfg):
    scripts = setup_cfg["options.entry_points"]["console_scripts"].strip().splitlines()
    named = dict(re.split(r"\s*=\s*", script) for script in scripts)
    assert named["brainstem"] == named["bids_app"]


def test_the_version_stands_in_one_place(setup_cfg):
    assert setup_cfg["metadata"]["version"] == "attr: bids_app.version.__version__"


def test_constraints_pin_every_requirement_within_its_bounds(requirements, pins):
    assert len(requirements) > 10
    for requirement in requirements:
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_constraints_pin_what_the_requirements_require(requirements, pins):
    wanted, seen = list(requirements), set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        try:
            metadata = distribution(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed here
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue  # CUDA's libraries are pinned by the build of torch that brings them
        seen.add(name)
        assert name in pins, f"{name} is not pinned"
        for text in metadata.requires or []:
            child = Requirement(text)
            extras = {"", *requirement.extras}
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                wanted.append(child)
    assert {"torch", "torchvision", "nnunetv2"} <= seen


def test_pyproject_checks_the_oldest_python_that_setup_cfg_allows(setup_cfg):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert setup_cfg["options"]["python_requires"].startswith(
        f">={pyproject['tool']['mypy']['python_version']},"
    )


def test_pages_of_the_site_link_to_each_other_alone_and_are_in_its_menu():
    pages = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
    for name, text in pages.items():
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
            assert not link.startswith(".."), f"{name} links out of docs/: {link}"
            assert (ROOT / "docs" / link).exists(), f"{name}: {link}"
    menu = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    assert set(re.findall(r"\S+\.md", menu)) == set(pages)
