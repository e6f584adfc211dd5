"""What the repository promises whoever installs it."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import tomllib
import zipfile
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


def test_constraints_pin_every_requirement_within_its_bounds(requirements, pins):
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


def test_wheel_holds_the_package_and_the_open_model_but_no_training_or_test_data(tmp_path):
    try:
        setuptools = Version(distribution("setuptools").version)
    except PackageNotFoundError:
        setuptools = Version("0")
    if setuptools < Version("77"):
        pytest.skip("building without a network needs setuptools 77 in this environment")
    # setuptools leaves build/ and *.egg-info where it builds, and puts what build/ held before
    # into the next wheel: so never in the repository.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").write_text("The README of the repository\n")
    for folder in ("bids_app", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    command = "-m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir"
    subprocess.run([sys.executable, *command.split(), tmp_path, source], check=True)

    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name == f"brainstem_bids_app-{bids_app.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        [metadata] = [n for n in names if n.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0 AND CC-BY-4.0\n" in text
    assert text.count("License-File: ") == 2

    in_tree = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("**/*.py", "models/registry.toml", "models/open/**/*", "reports/**/*.html")
        for path in (ROOT / "bids_app").glob(pattern)
        if path.is_file()
    }
    assert in_tree <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "bids_app",
        "brainstem_bids_app",
    }
    images = {name for name in names if name.endswith((".nii", ".nii.gz", ".npz"))}
    assert not images
