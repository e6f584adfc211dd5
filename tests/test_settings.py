"""Settings have types, which configuration files are held to."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_app.settings import Settings, read_config

SETTINGS = Settings(Path("bids"), Path("out"), "participant")


def test_values_of_a_configuration_file_become_those_of_the_fields():
    content = {
        "participant-label": "01",
        "folds": [0, 1],
        "norms": "n.tsv",
        "no_tta": True,
        "nprocs": 3,
        "device": "cpu",
    }
    assert read_config(content) == {
        "participant_label": ("01",),
        "folds": ("0", "1"),
        "norms": Path("n.tsv"),
        "no_tta": True,
        "nprocs": 3,
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"nosuch": 1}, "there is no option --nosuch"),
        ({"level": "group"}, "there is no option --level"),
        ({"no-tta": 1}, "--no-tta takes true or false"),
        ({"nprocs": 0}, "--nprocs takes a whole number, 1 or more"),
        ({"nprocs": 1.5}, "--nprocs takes a whole number, 1 or more"),
        ({"verbose": -1}, "--verbose takes a whole number, 0 or more"),
        ({"folds": [[0]]}, "--folds takes text or a number"),
        ({"device": []}, "--device takes one value"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_option(content, reason):
    with pytest.raises(ValueError, match=reason):
        read_config(content)


def test_participants_are_requested_with_or_without_prefix():
    settings = Settings(Path("b"), Path("o"), "group", participant_label=("02", "sub-01"))
    there = {"sub-01", "sub-02", "sub-03"}
    assert settings.requested(there) == ["sub-01", "sub-02"]
    assert SETTINGS.requested(there) == sorted(there)


def test_group_settings_return_to_their_defaults_at_the_participant_level():
    settings = Settings(Path("b"), Path("o"), "group", covariates=("age",), work_dir=Path("w"))
    copied = settings.for_participants()
    assert (copied.level, copied.covariates, copied.work_dir) == ("participant", (), Path("w"))
