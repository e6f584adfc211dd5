"""Whatever ends a run, the next one completes it, and two at once do not cross."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest
from make_datasets import make_mixed
from make_fixture_model import write_random_model

from bids_app.models import install

MAPS = "sub-*/anat/*_dseg.nii.gz"
GOOD = ("good1", "good2", "good3", "good4")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command for four heads, but for its output folder."""
    folder = tmp_path_factory.mktemp("interruption")
    bids = make_mixed(folder / "bids")
    trained = write_random_model(
        folder / "trained", folds=1, spacing=(5.0, 5.0, 5.0), patch_size=(40, 48, 40)
    )
    model = install.import_model(trained, "quick", folder / "models").folder

    def make(output):
        words = [sys.executable, "-m", "bids_app", str(bids), str(output), "participant"]
        words += ["--model", str(model), "--skip-bids-validation", "--nprocs", "1"]
        return [*words, "--participant-label", *GOOD]

    return make


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    start = time.perf_counter()
    subprocess.run(command(output), check=True, stdout=subprocess.DEVNULL)
    return maps(output), time.perf_counter() - start


def maps(output):
    return {path.name: path.read_bytes() for path in output.glob(MAPS)}


def leftovers(output):
    return [path for path in output.rglob(".*") if path.suffix in (".tmp", ".lock")]


def test_ten_kills_at_random_moments_lose_nothing(command, undisturbed, tmp_path):
    expected, seconds = undisturbed
    moments = random.Random(20260101)
    for kill in range(10):
        output = tmp_path / f"out{kill // 2}"  # twice in each, before all images are complete
        process = subprocess.Popen(command(output), stdout=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.2, 0.9) * seconds)
        process.kill()
        process.wait()
        if kill % 2:
            subprocess.run(command(output), check=True, stdout=subprocess.DEVNULL)
            assert maps(output) == expected
            assert not leftovers(output)


def test_two_runs_at_once_share_the_images(command, undisturbed, tmp_path):
    expected, _ = undisturbed
    runs = [
        subprocess.Popen(command(tmp_path / "out"), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], printed
    assert maps(tmp_path / "out") == expected
    assert not leftovers(tmp_path / "out")
