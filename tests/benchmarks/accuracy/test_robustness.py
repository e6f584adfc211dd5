"""Tables of how volumes follow known changes, from made-up results."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import robustness
from benchmarks.accuracy.changes import without_brainstem
from benchmarks.accuracy.runs import ODD, SHAPES, UNCHANGED, Folders, Result
from benchmarks.accuracy.setup import REGIONS, Setup

HEAD = "ds011_sub-06"
EMPTY = [change.title for change in without_brainstem()]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup("open", "", {}, (HEAD,), Folders(tmp_path, None, tmp_path))


def follow(job, by):
    """A result whose volumes show a share of the true change."""
    _, _, shrunk = job.change.partition(" shrunk by ")
    true = -int(shrunk.split("%")[0]) / 100 if shrunk else np.nan
    ml = dict.fromkeys(REGIONS, 10 * (1 + by * np.nan_to_num(true)))
    gone = job.change in EMPTY or job.head == ODD
    labels = np.full((2, 2, 2), 0 if gone else 1, np.uint8)
    shape = dict.fromkeys(SHAPES, 10 * (1 + by * np.nan_to_num(true)))
    return Result(labels, ml, ml, shape, 1500.0, "no_brainstem" if gone else "", 1.0, true)


def lines_of(part, setup, by=1.0):
    jobs = getattr(robustness, f"{part}_jobs")(setup)
    results = {job: follow(job, by) for job in jobs}
    return getattr(robustness, f"{part}_lines")(setup, results)


def test_unchanged_volumes_are_reported_as_such(setup):
    lines = lines_of("harmless", setup)
    assert any(
        "all mild ones" in line and line.split()[-2:] == ["0.00", "(+0.0)"] for line in lines
    )
    assert any("maps equal voxel for voxel" in line for line in lines)


def test_a_slope_is_the_share_of_the_true_change_that_is_measured(setup):
    lines = lines_of("atrophy", setup, by=0.8)
    pons = [line for line in lines if line.startswith("pons  ")]
    assert "0.800 (0.80 to 0.80)" in pons[0]
    assert pons[0].endswith("NO")
    assert pons[1].count("0.800") == 2  # across and along


def test_intracranial_volumes_within_the_usual_range_are_marked(setup):
    assert f"{HEAD}" in lines_of("etiv", setup)[1]
    assert lines_of("etiv", setup)[1].split()[-2:] == ["1.500", "yes"]


def test_missing_flags_stand_out(setup):
    lines = lines_of("flags", setup)
    by_image = {line.split("  ")[0]: line for line in lines[1:]}
    assert by_image[ODD].endswith("yes")
    assert next(line for line in lines if "above the medulla" in line).endswith("NO")
    assert UNCHANGED in by_image[ODD]
