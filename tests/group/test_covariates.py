"""Covariates, scanners, dates and ratings are joined to the rows they belong to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from made_tables import texts, volumes

from bids_app.errors import UsageError
from bids_app.group.covariates import RATED, add_acquisition, join_covariates, join_ratings

PEOPLE = (
    ["participant_id", "age", "site", "flags"],
    [{"participant_id": "sub-01", "age": " 61 ", "site": "Bern", "flags": "x"}],
)


def test_a_sessions_own_value_wins_and_what_is_missing_is_missing():
    table = volumes({"session_id": "ses-1"}, {"session_id": "ses-2"}, {"participant_id": "sub-02"})
    sessions = {("sub-01", "ses-2"): {"age": "63"}}
    found, columns = join_covariates(table, ["age", "site"], PEOPLE, sessions, {})
    assert texts(found["age"]) == ["61", "63", None]
    assert texts(found["site"]) == ["Bern", "Bern", None]
    assert columns["age"].entry() == {"Description": "age, from participants.tsv"}
    assert list(columns) == ["age"]  # a site has its column already


def test_the_users_description_of_a_column_is_kept():
    described = {"age": {"Description": "Years", "Units": "year"}, "sex": None}
    _, columns = join_covariates(volumes({}), ["age"], PEOPLE, {}, described)
    assert columns["age"].entry() == described["age"]


def test_a_column_that_is_not_there_or_not_free_is_refused():
    for column in ("height", "flags"):
        with pytest.raises(UsageError, match=f"--covariates {column}: .*It has: age, site."):
            join_covariates(volumes({}), [column], PEOPLE, {}, {})


def test_scanner_and_site_make_a_batch_and_a_joined_site_is_kept():
    table = volumes({}, {"site": "Bern"}, {"source": "b"})
    scanner = {"site": "The 'Lab'", "manufacturer": "A B", "field_strength_t": 3.0}
    found = add_acquisition(table, {"a": scanner}, {})
    assert texts(found["batch"]) == ["The 'Lab', A B, 3", "Bern, A B, 3", None]
    assert texts(found["scanner_model"]) == [None] * 3
    assert found["field_strength_t"].dtype == float


def test_years_are_counted_from_the_first_dated_image():
    table = volumes({"source": "b"}, {"source": "a"}, {"source": "c"})
    dates = {"a": datetime(1901, 1, 1, tzinfo=UTC), "b": datetime(1902, 1, 1, 10, tzinfo=UTC)}
    found = add_acquisition(table, {}, dates)["years_since_first"]
    assert found.tolist()[:2] == [1.0, 0.0]
    assert found.isna().tolist() == [False, False, True]


def rating(word, source="a", model="open", version="1"):
    return dict(zip(RATED, (source, model, version, word), strict=True))


def test_ratings_find_their_results_and_failures_have_none(caplog):
    table = volumes({}, {"source": "b"}, {"source": "c", "flags": "failed"})
    lines = [rating("fail"), rating("n/a", "b"), rating("pass", "c")]
    found = join_ratings(table, RATED, lines, "ratings.tsv")
    assert texts(found["rating"]) == ["fail", None, None]
    assert "1 of 3 ratings match no result" in caplog.text


@pytest.mark.parametrize(
    ("names", "line", "message"),
    [
        (RATED[:3], rating("pass"), "no column rating. It needs source"),
        (RATED, rating("good"), 'line 2: rating is "good", not pass or fail'),
        (RATED, rating(None), "line 2: needs source"),
    ],
)
def test_a_mistake_in_ratings_is_named(names, line, message):
    with pytest.raises(UsageError, match=message):
        join_ratings(volumes({}), names, [line], "ratings.tsv")
