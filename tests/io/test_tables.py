"""Tables keep the types of their columns, and mistakes in users' tables are named."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from bids_app.bids import columns as dictionary
from bids_app.io.tables import (
    Column,
    by_name,
    data_dictionary,
    dump_frame,
    dump_json,
    dump_rows,
    make_frame,
    read_json,
    read_rows,
    read_user_table,
)

COLUMNS = by_name(
    [
        Column("name", description="Name", levels={"a": "first"}),
        Column("count", "int"),
        Column("size", "float", "Size", "mm", 2),
        Column("tesla", "float", digits=None, extra={"Thresholds": {}}),
    ]
)
ROWS = [
    {"name": "a", "count": 3, "size": 1.234, "tesla": 1.5},
    {"name": None, "count": None, "size": math.nan, "tesla": 3.0},
    {},
]
TEXT = "name\tcount\tsize\ttesla\na\t3\t1.23\t1.5\nn/a\tn/a\tn/a\t3\nn/a\tn/a\tn/a\tn/a\n"


def test_rows_are_written_by_the_types_of_their_columns():
    assert dump_rows(ROWS, COLUMNS).decode() == TEXT


def test_a_frame_has_the_declared_types_and_is_written_as_its_rows_are():
    frame = make_frame(ROWS, COLUMNS)
    assert frame.dtypes.map(str).tolist() == ["object", "float64", "float64", "float64"]
    assert frame.isna().sum().tolist() == [2, 2, 2, 1]
    assert dump_frame(frame, COLUMNS).decode() == TEXT
    assert dump_frame(frame[["name"]], COLUMNS).decode().splitlines()[1] == "a\tn/a\tn/a\tn/a"
    assert make_frame([], COLUMNS).shape == (0, 4)


def test_what_was_written_is_read_as_values(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_bytes(dump_rows(ROWS, COLUMNS))
    later = by_name([*COLUMNS.values(), Column("later")])
    rows = read_rows(path, later)
    assert rows[0] == {"name": "a", "count": 3, "size": 1.23, "tesla": 1.5, "later": None}
    assert set(rows[1].values()) == {None, 3.0}
    assert isinstance(rows[0]["count"], int)


@pytest.mark.parametrize("text", ["count\nmuch\n", "count\n1\t2\n"])
def test_a_cell_of_another_type_or_a_cell_too_many_is_an_error(tmp_path, text):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"much|argument 2 is longer"):
        read_rows(path, COLUMNS)


def test_the_data_dictionary_has_the_keys_of_bids():
    assert data_dictionary(COLUMNS) == {
        "name": {"Description": "Name", "Levels": {"a": "first"}},
        "count": {},
        "size": {"Description": "Size", "Units": "mm"},
        "tesla": {"Thresholds": {}},
    }


@pytest.mark.parametrize("name", ["VOLUMES", "GROUP", "LONGITUDINAL", "GROUP_COMPARISON"])
def test_every_column_is_described_with_the_unit_of_its_name(name):
    for column in getattr(dictionary, name).values():
        assert column.description
        unit = {"mm": "mm", "mm2": "mm^2", "mm3": "mm^3", "percent": "percent", "t": "T"}
        assert column.units == unit.get(column.name.split("_")[-1], column.units)


def test_rounding_is_that_of_the_text():
    column = COLUMNS["size"]
    for value in np.random.default_rng(0).normal(0, 100, 200):
        assert column.text(value) == column.text(column.rounded(value))
    assert math.isnan(column.rounded(math.nan))


def test_json_that_cannot_be_read_is_empty(tmp_path):
    path = tmp_path / "file.json"
    assert read_json(path) == {}
    path.write_text("[1]")
    assert read_json(path) == {}
    path.write_bytes(dump_json({"ä": 1}))
    assert read_json(path) == json.loads(path.read_text()) == {"ä": 1}


@pytest.mark.parametrize(("text", "why"), [("a,b\n", "commas"), ("a;b\n", "semicolons")])
def test_a_users_table_with_other_separators_is_refused(tmp_path, text, why):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{why} separate its columns. Save it as"):
        read_user_table(path)


def test_a_users_table_may_start_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("\ufeffa\tb\n1\t2\n")
    assert read_user_table(path) == (["a", "b"], [{"a": "1", "b": "2"}])
    with pytest.raises(ValueError, match="No such file"):
        read_user_table(tmp_path / "none.tsv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_users_table_may_come_from_a_spreadsheet(tmp_path, encoding, end):
    path = tmp_path / "table.tsv"
    path.write_bytes(f"a\tb{end}Zürich\t2{end}".encode(encoding))
    assert read_user_table(path) == (["a", "b"], [{"a": "Zürich", "b": "2"}])


def test_frames_of_either_kind_of_text_column_are_written_alike():
    frame = pd.DataFrame({"name": ["a", None]})
    assert dump_frame(frame, {"name": COLUMNS["name"]}) == b"name\na\nn/a\n"


def test_half_a_surrogate_pair_is_written_as_an_escape(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(dump_json({"Name": "\ud800x"}))
    assert path.read_bytes() == b'{\n  "Name": "\\ud800x"\n}\n'
    assert read_json(path) == {"Name": "\ud800x"}
    assert dump_rows([{"name": "\ud800x"}], by_name([Column("name")])) == b"name\n\\ud800x\n"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_json_nested_too_deeply_is_no_object(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert read_json(tmp_path / "a.json") == {}


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\t=1", "-", "+49 761"]
)
def test_a_spreadsheet_takes_no_text_for_a_formula(tmp_path, text):
    columns = by_name([Column("a", description="A."), Column("b")])
    frame = pd.DataFrame({"a": [text, "x"], "b": ["y", None]})
    written = dump_frame(frame, columns).decode()
    cell = text.replace("\t", " ")
    assert written.splitlines()[1:] == [f"'{cell}\ty", "x\tn/a"]
    assert dump_rows([{"a": text, "b": "y"}], columns).decode().splitlines()[1] == f"'{cell}\ty"
    path = tmp_path / "table.tsv"
    path.write_bytes(dump_frame(frame, columns))
    assert read_rows(path, columns)[0] == {"a": cell, "b": "y"}, "the apostrophe is taken off"
    described = data_dictionary(columns, frame)
    assert described["a"]["Description"].startswith("A. A text that begins with =, +, - or @")
    assert "b" in described
    assert "Description" not in described["b"]


@pytest.mark.parametrize("text", ["-1.5", "+3", "1e-3", "-inf", "a=b", "'quoted'", "sub-01", ""])
def test_numbers_and_plain_texts_are_written_as_they_are(text):
    columns = by_name([Column("a")])
    assert dump_rows([{"a": text}], columns).decode() == f"a\n{text}\n"
    assert data_dictionary(columns, pd.DataFrame({"a": [text]})) == {"a": {}}


def test_a_users_table_may_have_cells_of_any_length(tmp_path):
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tnote\tage\n\nsub-01\t" + "x" * 200_000 + "\t3\nsub-02\n")
    columns, rows = read_user_table(path)
    assert columns == ["participant_id", "note", "age"]
    assert rows == [
        {"participant_id": "sub-01", "note": "x" * 200_000, "age": "3"},
        {"participant_id": "sub-02", "note": None, "age": None},
    ]


def test_a_text_stays_in_its_cell():
    columns = by_name([Column("name"), Column("other")])
    assert dump_rows([{"name": "a\tb\r\nc"}], columns) == b"name\tother\na b  c\tn/a\n"
    frame = make_frame([{"name": "a\tb"}], columns)
    assert dump_frame(frame, columns) == b"name\tother\na b\tn/a\n"
