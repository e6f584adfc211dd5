"""A user's norms give z scores where just one stratum fits, and mistakes in them are named."""

import pytest

from bids_app.errors import UsageError
from bids_app.group.norms import add_norm_scores, read_norms

COLUMNS = ("source", "pons_mm3", "age", "sex")


def norms(tmp_path, text):
    path = tmp_path / "norms.tsv"
    path.write_text(text.replace(" ", "\t"))
    return read_norms(path, COLUMNS)


def row(age="30", sex="F", pons="16000"):
    return {"source": "sub-01", "pons_mm3": pons, "age": age, "sex": sex}


TABLE = """measure sex age_min age_max mean sd
pons_mm3 F 20 40 15000 500
pons_mm3 F 40 n/a 14000 500
pons_mm3 M 20 40 16000 800
"""


@pytest.mark.parametrize(
    ("person", "z"),
    [
        (row(), "2.00"),
        (row(age="40"), "4.00"),
        (row(sex="M"), "0.00"),
        (row(sex="M", age="50"), "n/a"),
        (row(age="n/a"), "n/a"),
        (row(pons="n/a"), "n/a"),
    ],
)
def test_the_stratum_that_fits_gives_the_score(tmp_path, person, z):
    add_norm_scores([person], norms(tmp_path, TABLE))
    assert person["pons_mm3_norm_z"] == z


def test_strata_that_overlap_are_refused(tmp_path):
    both = norms(tmp_path, TABLE + "pons_mm3 F 30 50 1 1\n")
    with pytest.raises(UsageError, match="2 rows for pons_mm3 fit sub-01"):
        add_norm_scores([row()], both)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("measure mean sd\n", "it has no row"),
        ("measure,mean,sd\npons_mm3,1,1\n", "must be tab-separated .* commas separate"),
        ("measure;mean;sd\npons_mm3;1;1\n", "must be tab-separated .* semicolons separate"),
        ("measure mean sd\nheight 1 1\n", "no column height"),
        ("measure group mean sd\npons_mm3 a 1 1\n", "no column group"),
        ("measure mean sd\npons_mm3 one 1\n", "no number"),
        ("measure mean sd\npons_mm3 1 0\n", "sd is not above 0"),
        ("measure mean\npons_mm3 1\n", "sd is missing"),
        ("measure mean sd\npons_mm3 1\n", "more or fewer cells"),
        ("measure age_min mean sd\npons_mm3 old 1 1\n", "age_min is 'old'"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, told):
    with pytest.raises(UsageError, match=told):
        norms(tmp_path, text)


def test_a_table_that_is_not_there_is_named_in_plain_words(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be read \(No such file or directory\)"):
        read_norms(tmp_path / "none.tsv", COLUMNS)
