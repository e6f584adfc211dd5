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


def table_of(*cells):
    """A table of texts: names of columns first."""
    names, *rows = (line.split("|") for line in cells)
    return names, [dict(zip(names, row, strict=False)) for row in rows]


def test_a_row_per_session_is_joined_by_session():
    table = volumes(
        {"session_id": "ses-1"},
        {"session_id": "ses-2"},
        {"session_id": "ses-3"},
        {"participant_id": "sub-02", "session_id": "ses-1"},
    )
    people = table_of(
        "participant_id|session_id|age",
        "sub-01|ses-1|61",
        "sub-01|2|63",
        "sub-02|n/a|50",
        "sub-02||50",
    )
    found, _ = join_covariates(table, ["age"], people, {}, {})
    assert texts(found["age"]) == ["61", "63", None, "50"]


@pytest.mark.parametrize(
    "people",
    [
        table_of("participant_id|age", "01|61", "02|50"),
        table_of("participant_id |age  ", "sub-01  |61 ", " 02|50"),
        table_of("participant_id|age", "sub-01|61", "sub-02|50", "n/a|3", "|4"),
        table_of("participant_id|age|sex", "sub-01|61", "sub-02|50|F"),
    ],
)
def test_ids_are_matched_as_they_are_usually_written(people, caplog):
    table = volumes({}, {"participant_id": "sub-02"})
    found, _ = join_covariates(table, ["age"], people, {}, {})
    assert texts(found["age"]) == ["61", "50"]
    assert not caplog.records


@pytest.mark.parametrize(
    "rows",
    [
        ["sub-01||61", "sub-01||63"],
        ["sub-01|ses-1|61", "01|1|63"],
        ["sub-01|n/a|61", "sub-01||"],
    ],
)
def test_rows_that_contradict_each_other_are_refused(rows):
    people = table_of("participant_id|session_id|age", *rows)
    with pytest.raises(UsageError, match=r"--covariates age: .* rows of sub-01.*session_id"):
        join_covariates(volumes({}), ["age"], people, {}, {})


def test_rows_of_the_same_participant_are_named(caplog):
    people = table_of("participant_id|age", "sub-01|61", "sub-02|50", "01|61")
    with caplog.at_level("WARNING"):
        found, _ = join_covariates(volumes({}), ["age"], people, {}, {})
    assert texts(found["age"]) == ["61"]
    assert "participants.tsv has several rows of sub-01\n" in caplog.text


def test_rows_that_differ_in_other_columns_only_are_one():
    people = table_of("participant_id|age|visit", "sub-01|61|a", "sub-01|61|b")
    found, _ = join_covariates(volumes({}), ["age"], people, {}, {})
    assert texts(found["age"]) == ["61"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["61,5", "50"], ["61.5", "50"]),
        (["61,5", "n/a"], ["61.5", None]),
        (["-0,5", "1.25"], ["-0.5", "1.25"]),
        (["a,b", "50"], ["a,b", "50"]),
        (["1,2,3", "4"], ["1,2,3", "4"]),
    ],
)
def test_decimal_commas_become_points_in_columns_of_numbers(values, expected, caplog):
    people = table_of("participant_id|age", f"01|{values[0]}", f"02|{values[1]}")
    table = volumes({}, {"participant_id": "sub-02"})
    found, _ = join_covariates(table, ["age"], people, {}, {})
    assert texts(found["age"]) == expected
    assert len(caplog.records) == (values != [value or "n/a" for value in expected])


def test_a_table_without_participants_is_refused():
    with pytest.raises(UsageError, match=r"no column participant_id.*columns are: id, age"):
        join_covariates(volumes({}), ["age"], table_of("id|age", "01|61"), {}, {})


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
