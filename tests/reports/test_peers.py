"""Where a result lies among all results of its dataset."""

import re

import pytest

from bids_app.reports.around import read_around
from bids_app.reports.peers import Peers, Spread, outlying, read_peers, strips

MODEL = ("open", "1.0.0")
VALUES = (4000.0, 4200.0, 4300.0, 4300.0, 4400.0, 4600.0)


@pytest.fixture
def peers():
    return Peers({(*MODEL, "medulla"): Spread(VALUES)})


@pytest.mark.parametrize(
    ("value", "rank"), [(4000, "1 of 6"), (4600, "6 of 6"), (4200, "2 of 6"), (4300, "3 of 6")]
)
def test_the_rank_counts_from_the_smallest(value, rank):
    assert Spread(VALUES).rank(value) == rank


def test_a_value_far_from_the_median_is_told_and_one_near_it_is_not(peers):
    assert outlying({"medulla": 4500.0}, MODEL, peers) == []
    [said] = outlying({"medulla": 3000.0}, MODEL, peers)
    assert said.startswith("medulla: much smaller than in the rest of the dataset, 8.8 ")


def test_equal_values_and_few_values_say_nothing():
    equal = Peers({(*MODEL, "pons"): Spread((5.0,) * 9)})
    assert outlying({"pons": 50.0}, MODEL, equal) == []
    few = Peers({(*MODEL, "pons"): Spread((1.0, 2.0, 3.0, 4.0))})
    assert few.of(*MODEL, "pons") is None
    assert strips({"pons": (2.0, "#000000")}, MODEL, few) is None


def test_a_strip_says_in_words_what_it_shows_and_stays_within_its_drawing(peers):
    svg = strips({"medulla": (4600.0, "#009E73"), "pons": (1.0, "#56B4E9")}, MODEL, peers)
    assert "medulla 4.60 ml, 6 of 6 from the smallest" in svg
    assert "pons" not in svg
    places = [float(x) for x in re.findall(r"M([\d.]+) [\d.]+h0", svg)]
    assert len(places) == 6
    assert 0 < min(places) < max(places) < 640
    assert f'cx="{max(places):.1f}"' in svg


def test_a_large_dataset_is_drawn_with_some_of_its_dots():
    peers = Peers({(*MODEL, "pons"): Spread(tuple(float(i) for i in range(5000)))})
    svg = strips({"pons": (7.0, "#56B4E9")}, MODEL, peers)
    assert 250 < len(re.findall(r"h0", svg)) < 400


def test_volumes_come_from_the_group_table_and_newer_ones_from_the_tables_of_participants(dataset):
    def row(number, pons):
        name = f"sub-{number:02d}"
        source = f"{name}/anat/{name}_T1w.nii.gz"
        return {"participant_id": name, "source": source, "model": "open",
                "model_version": "1.0.0", "pons_mm3": pons}  # fmt: skip

    dataset.add("sub-01", volumes={"midbrain": 1.0, "pons": 16000.0, "medulla": 1.0})
    dataset.group([*(row(n, f"{n}.5") for n in range(1, 7)), row(7, "n/a")])
    spread = read_around(dataset.folder).peers.of(*MODEL, "pons")
    assert spread.values == (1.5, 2.5, 3.5, 4.5, 5.5, 6.5)
    spread = read_around(dataset.folder, ["sub-01"]).peers.of(*MODEL, "pons")
    assert spread.values == (2.5, 3.5, 4.5, 5.5, 6.5, 16000.0)
    assert read_around(dataset.folder).peers.of("open", "2.0.0", "pons") is None


def test_images_without_brainstem_are_nobodys_peers(dataset):
    nothing = dict.fromkeys(("midbrain", "pons", "medulla"), 0.0)
    for number in range(1, 8):
        volumes = {"volumes": nothing} if number > 5 else {}
        dataset.add(f"sub-{number:02d}", **volumes)
    people = [f"sub-{n:02d}" for n in range(1, 8)]
    spread = read_peers(dataset.folder, participants=people).of(*MODEL, "pons")
    assert spread.values == (15000.0,) * 5


def test_a_broken_group_table_is_passed_over(dataset):
    (dataset.folder / "group_volumes.tsv").write_text("model\tpons_mm3\nopen\n")
    assert read_around(dataset.folder).peers == Peers({})
