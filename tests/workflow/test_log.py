"""The table of failures is read back as it was written."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace

from bids_app.bids.results import read_failures
from bids_app.bids.scans import Scan
from bids_app.settings import Settings
from bids_app.workflow.log import LOG, Failures, start_log, stop_log

MODEL = SimpleNamespace(name="open", version="1", label="open1")


def scan(folder, name):
    entities = tuple(tuple(part.split("-")) for part in name.split("_")[:-1])
    relative = f"sub-01/anat/{name}"
    return Scan(folder / relative, relative, entities)


def test_failures_are_read_back_as_they_were_recorded(tmp_path):
    failures = Failures(tmp_path / "logs" / "run" / "failures.tsv", MODEL)
    assert read_failures(tmp_path) == []
    first = scan(tmp_path, "sub-01_ses-2_run-1_T1w.nii.gz")
    failures.add(first, f"{first.path}: cannot\nbe read")
    assert read_failures(tmp_path) == failures.records
    [failure] = failures.records
    assert (failure.participant, failure.session, failure.entities) == (
        "sub-01",
        "ses-2",
        {"run": "1"},
    )
    assert failure.reason == f"{first.relative}: cannot be read"


def test_of_an_image_and_model_the_latest_failure_counts(tmp_path):
    image = scan(tmp_path, "sub-01_T1w.nii.gz")
    earlier = Failures(tmp_path / "logs" / "a" / "failures.tsv", MODEL)
    earlier.add(image, "before")
    failures = Failures(tmp_path / "logs" / "b" / "failures.tsv", MODEL, earlier.records)
    assert [failure.reason for failure in failures.of("sub-01")] == ["before"]
    failures.add(image, "now")
    assert [failure.reason for failure in failures.of("sub-01")] == ["now"]
    assert failures.of("sub-02") == []


def test_names_cannot_write_to_the_terminal_or_add_lines(tmp_path, capsys):
    settings = Settings(tmp_path, tmp_path / "a\nto do  sub-99", "participant")
    start_log(settings, keep=True)
    try:
        LOG.info("Results: %s; %s\n\tnext", settings.output_dir, "\x1b[2J\x9b\u202e")
    finally:
        stop_log()
    (log,) = (settings.output_dir / "logs").glob("*/run.log")
    for text in (capsys.readouterr().out, log.read_text()):
        first, second = text.splitlines()
        assert first.endswith("a\\nto do  sub-99; \\x1b[2J\\x9b\\u202e")
        assert second == "\tnext"


def test_settings_with_bytes_that_are_no_utf_8_are_written_escaped(tmp_path):
    settings = Settings(tmp_path / "\udcff", tmp_path, "participant", model=("a\udcff",))
    assert tomllib.loads(settings.toml())["model"] == ["a\\udcff"]


def test_a_line_with_half_a_surrogate_pair_is_printed_and_kept(tmp_path, capsys):
    folder = start_log(Settings(tmp_path, tmp_path, "participant"), keep=True)
    LOG.info("a\ud800b")
    stop_log()
    assert "a\\ud800b" in capsys.readouterr().out
    assert "a\\ud800b" in (folder / "run.log").read_text(encoding="utf-8")
