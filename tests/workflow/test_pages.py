"""A participant's page is written once, after the last image of the participant has ended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bids_app.settings import Settings
from bids_app.workflow import pages
from bids_app.workflow.pages import Pages


class NoFailures:
    records = ()

    def of(self, participant):
        return []


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Pages that were written, each with the results it was made of."""
    found = []
    earlier = {"sub-02": ["of an earlier run"]}

    def read_results(_output_dir, participant, held):
        return [*earlier.get(participant, []), *held]

    def write_page(_output_dir, participant, results, _failures):
        (tmp_path / f"{participant}.html").touch()
        found.append((participant, results))

    monkeypatch.setattr(pages, "read_results", read_results)
    monkeypatch.setattr(pages, "write_page", write_page)
    return found


@pytest.fixture
def run(tmp_path):
    settings = Settings(Path("bids"), tmp_path, "participant")
    return Pages(settings, ["sub-01", "sub-01", "sub-02"], NoFailures())


def test_the_last_image_of_a_participant_writes_the_page_from_memory(run, written):
    run.count("sub-01", "first")
    assert written == []
    run.count("sub-02", "only")
    run.count("sub-01", "second")
    assert written == [
        ("sub-02", ["of an earlier run", "only"]),
        ("sub-01", ["first", "second"]),
    ]
    run.write_rest(["sub-01", "sub-02"])
    assert len(written) == 2


def test_a_page_with_nothing_new_stays(run, written, tmp_path):
    (tmp_path / "sub-02.html").touch()
    run.count("sub-02")
    run.write_rest(["sub-02"])
    assert written == []


def test_a_page_that_was_lost_is_written_again(run, written):
    run.write_rest(["sub-02"])
    assert written == [("sub-02", ["of an earlier run"])]


def test_a_stopped_run_writes_pages_of_what_it_has(run, written):
    run.count("sub-01", "first")
    run.write_rest([])
    assert written == [("sub-01", ["first"])]


def test_an_image_that_failed_is_on_a_page(run, written):
    run._failures = SimpleNamespace(
        records=[SimpleNamespace(participant="sub-02")], of=lambda participant: []
    )
    run.count("sub-02")
    assert [participant for participant, _ in written] == ["sub-02"]
