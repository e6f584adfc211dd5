"""The wheel holds all that the app needs, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.version import Version

import bids_app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    try:
        setuptools = Version(distribution("setuptools").version)
    except PackageNotFoundError:
        setuptools = Version("0")
    if setuptools < Version("77"):
        pytest.skip("building without a network needs setuptools 77 in this environment")
    # setuptools leaves build/ and *.egg-info where it builds, and puts what build/ held before
    # into the next wheel: so never in the repository.
    made = tmp_path_factory.mktemp("wheel")
    source = made / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").write_text("The README of the repository\n")
    for folder in ("bids_app", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    command = "-m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir"
    subprocess.run([sys.executable, *command.split(), made, source], check=True)
    [wheel] = made.glob("*.whl")
    return wheel


def test_wheel_holds_the_package_and_the_open_model_but_no_training_or_test_data(wheel):
    assert wheel.name == f"brainstem_bids_app-{bids_app.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        [metadata] = [n for n in names if n.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0 AND CC-BY-4.0 AND BSD-2-Clause" in text
    assert text.count("License-File: ") == 3

    in_tree = {
        path.relative_to(ROOT).as_posix()
        for pattern in (
            "**/*.py",
            "py.typed",
            "models/registry.toml",
            "models/open/**/*",
            "reports/**/*.*s",
            "reports/**/*.gz",
            "reports/**/*.j2",
            "reports/**/*.bib",
        )
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


def test_wheel_installed_alone_segments_with_the_open_model(wheel, flat_dataset, tmp_path):
    place, output = tmp_path / "place", tmp_path / "output"
    command = "-m pip install --quiet --no-deps --no-index --target"
    subprocess.run([sys.executable, *command.split(), place, wheel], check=True)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(place)}  # not the repository, no HOME
    where = [sys.executable, "-c", "import bids_app; print(bids_app.__file__)"]
    found = subprocess.check_output(where, cwd=tmp_path, env=environment, text=True)
    assert found == f"{place / 'bids_app' / '__init__.py'}\n"
    run = [sys.executable, "-m", "bids_app", flat_dataset, output, "participant"]
    subprocess.run(run, cwd=tmp_path, env=environment, check=True)
    assert [path.name for path in output.glob("sub-01/anat/*_dseg.nii.gz")] == [
        "sub-01_seg-open1_dseg.nii.gz"
    ]
