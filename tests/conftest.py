"""Real heads and datasets for all tests, made once a session. Copy one before you change it."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# The makers of test data serve the demo too, so they lie outside the package and the tests.
sys.path[:0] = [str(REPOSITORY / "test_data"), str(REPOSITORY / "tests")]

import make_datasets  # noqa: E402


@pytest.fixture(scope="session")
def whole_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole head at 2 mm: RAS, int16, both forms coded."""
    path = tmp_path_factory.mktemp("head") / "head_T1w.nii.gz"
    nib.save(make_datasets.head(), path)
    return path


@pytest.fixture(scope="session")
def bad_images(whole_head: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file for each reason to refuse an image, by the name of its fault."""
    folder = tmp_path_factory.mktemp("bad")
    return make_datasets.make_bad_images(nib.load(whole_head), folder)


@pytest.fixture(scope="session")
def valid_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two participants, three images; the validator finds no error."""
    return make_datasets.make_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture(scope="session")
def coarse_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with voxels three times as large, for models that run on the whole head."""
    return make_datasets.make_valid(tmp_path_factory.mktemp("coarse"), coarser=3)


@pytest.fixture(scope="session")
def flat_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One participant without sessions, an uncompressed image."""
    return make_datasets.make_flat(tmp_path_factory.mktemp("flat"))


@pytest.fixture(scope="session")
def broken_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good image under a description that the validator refuses."""
    return make_datasets.make_broken(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="session")
def mixed_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good heads and one bad image of each kind, each a participant."""
    return make_datasets.make_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets beside the repository; without it the test is skipped."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real datasets in ../shared/data, which are not part of the project")
    return folder
