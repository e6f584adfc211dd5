"""The command line says what is wrong at once, and reads the same options from a file."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest

from bids_app.cli import main as cli
from bids_app.cli import options
from bids_app.cli.options import positive
from bids_app.errors import UsageError
from bids_app.settings import ONE_LEVEL, Settings

BASE = ["bids", "out", "participant"]


def test_labels_are_taken_as_fmriprep_takes_them():
    settings = cli.parse([*BASE, "--participant_label", "01", "sub-02", "--skip_bids_validation"])
    assert settings.participant_label == ("01", "sub-02")
    assert settings.skip_bids_validation


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["01,02"], ("01", "02")),
        (["sub-01,sub-02"], ("sub-01", "sub-02")),
        (["01,", "02 03", ",04"], ("01", "02", "03", "04")),
        (["01 , 02"], ("01", "02")),
    ],
)
def test_labels_may_be_separated_by_commas(words, expected):
    assert cli.parse([*BASE, "--participant-label", *words]).participant_label == expected
    assert cli.parse([*BASE, "--session-label", *words]).session_label == expected


@pytest.mark.parametrize(
    "text",
    [
        "01\nsub-02\n",
        "01, sub-02",
        "\ufeff01\r\n\r\nsub-02  \r\n",
        "# controls\n01 # the first\nsub-02",
        "participant_id\tage\n01\t30\nsub-02\t41\n",
    ],
)
def test_labels_may_be_listed_in_a_file(tmp_path, text):
    file = tmp_path / "labels of mine.txt"
    file.write_text(text, encoding="utf-8", newline="")
    settings = cli.parse([*BASE, "--participant-label", f"@{file}", "03"])
    assert settings.participant_label == ("01", "sub-02", "03")


@pytest.mark.parametrize("text", ["", "participant_id\n", "# none\n"])
def test_a_file_without_labels_does_not_select_everyone(tmp_path, text):
    file = tmp_path / "labels.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match="--participant-label: no label"):
        cli.parse([*BASE, "--participant-label", f"@{file}"])


def test_a_missing_file_of_labels_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--session-label @.*gone\.txt: cannot be read"):
        cli.parse([*BASE, "--session-label", f"@{tmp_path / 'gone.txt'}"])


@pytest.mark.parametrize(
    "words",
    [
        ["--notrack"],
        ["--no-datalad-get"],
        ["--output-layout", "bids"],
        ["--fs-license-file=license.txt"],
    ],
)
def test_options_typed_by_habit_are_accepted_and_have_no_effect(words, capsys):
    assert cli.parse([*BASE, *words]) == cli.parse(BASE)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"warning: {words[0].partition('=')[0]} has no effect in bids_app."


@pytest.mark.parametrize("name", ["--nthreads", "--n-cpus", "--n_cpus"])
def test_the_number_of_cpus_has_the_names_of_fmriprep(name):
    assert cli.parse([*BASE, name, "3"]).nprocs == 3


@pytest.mark.parametrize("words", [["T1w", "T2w", "FLAIR"], ["t1w,T2W", "flair", "T1w"]])
def test_several_suffixes_follow_one_option(words):
    assert cli.parse([*BASE, "--suffix", *words]).suffix == ("T1w", "T2w", "FLAIR")


@pytest.mark.parametrize("words", [["bold"], ["T1w", "T1map"], [","]])
def test_a_suffix_of_no_head_is_refused(words):
    with pytest.raises(UsageError, match=r"^--suffix .*: choose from T1w, T2w, FLAIR, UNIT1"):
        cli.parse([*BASE, "--suffix", *words])


def test_several_thresholds_follow_one_option_or_several():
    one = cli.parse([*BASE, "--flag-threshold", "wrong_order=8", "low_resolution=3"])
    two = cli.parse(
        [*BASE, "--flag-threshold", "wrong_order=8", "--flag-threshold", "low_resolution=3"]
    )
    assert one.flag_threshold == two.flag_threshold == ("wrong_order=8", "low_resolution=3")


def test_labels_given_again_are_added():
    settings = cli.parse([*BASE, "--participant-label", "01", "--participant_label", "02", "03"])
    assert settings.participant_label == ("01", "02", "03")


def test_options_have_the_defaults_of_the_settings():
    settings = cli.parse([*BASE, "--nprocs", "3"])
    assert settings.omp_nthreads == 3
    assert settings == Settings(
        settings.bids_dir, settings.output_dir, "participant", nprocs=3, omp_nthreads=3
    )


def test_more_network_threads_than_threads_are_refused():
    with pytest.raises(UsageError, match="omp-nthreads 4"):
        cli.parse([*BASE, "--nprocs", "2", "--omp-nthreads", "4"])


def test_a_configuration_file_gives_options_and_the_command_line_wins(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'participant-label = ["01", "02"]\nno_tta = true\nforce = false\nnprocs = 2\n'
        'model = "open"\nverbose = 2\n'
    )
    settings = cli.parse([*BASE, "--config-file", str(file), "--participant-label", "03"])
    assert settings.participant_label == ("03",)
    assert settings.no_tta
    assert not settings.force
    assert settings.nprocs == 2
    assert settings.model == ("open",)
    assert settings.verbose == 2


def test_a_model_on_the_command_line_replaces_that_of_the_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('model = ["a", "b"]\n')
    base = ["bids", "out", "group", "--config-file", str(file)]
    assert cli.parse(base).model == ("a", "b")
    assert cli.parse([*base, "--model", "c"]).model == ("c",)


@pytest.mark.parametrize(
    ("level", "options", "expected"),
    [
        ("participant", ["--covariates", "age", "--norms", "n.tsv"], "--covariates, --norms: for"),
        ("group", ["--force", "--device", "cpu"], "--force, --device: for the participant level"),
        ("group", ["--bids-filter-file", "f.json"], "no effect at the group level"),
    ],
)
def test_options_of_the_other_level_are_named_in_one_line(level, options, expected, capsys):
    cli.parse(["bids", "out", level, *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert expected in line


def test_options_of_the_level_or_of_both_or_from_a_file_are_not(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text('covariates = ["age"]\nforce = true\n')
    both = ["--nprocs", "2", "--participant-label", "01", "--flag-threshold", "wrong_order=8"]
    for level, option in (("participant", "--no-tta"), ("group", "--covariates=sex")):
        cli.parse(["bids", "out", level, option, *both, "--config-file", str(file)])
    assert capsys.readouterr().err == ""


def test_the_help_tells_the_level_of_each_option_of_one():
    explained = {
        action.dest: f"{group.title} {action.help}"
        for group in cli.make_parser()._action_groups
        for action in group._group_actions
    }
    for name, level in ONE_LEVEL.items():
        assert f"{level} level" in explained[name], name


def test_each_setting_is_an_option_of_its_type():
    """The parser is held to `Settings`, which configuration files set directly."""
    actions = {action.dest: action for action in cli.make_parser()._actions}
    types = get_type_hints(Settings)
    others = {"help", "version", "config_file", argparse.SUPPRESS}
    assert types.keys() == actions.keys() - others
    for name, kind in types.items():
        action = actions[name]
        if kind is bool:
            assert isinstance(action, argparse._StoreTrueAction), name
        elif kind == tuple[str, ...]:
            assert isinstance(action, argparse._AppendAction | argparse._ExtendAction), name
        elif kind is int:
            assert action.type is positive or isinstance(action, argparse._CountAction), name
        else:
            assert action.type is (None if kind is str else Path), name
        assert action.default is argparse.SUPPRESS or name in ("bids_dir", "output_dir", "level")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no-such-option = 1", "no option --no-such-option"),
        ("help = true", "no option --help"),
        ("config-file = 'x'", "no option --config-file"),
        ("force = 'yes'", "takes true or false"),
        ("device = ['cpu', 'cuda']", "takes one value"),
        ("device = true", "takes text"),
        ("nprocs = 0", "takes a whole number, 1 or more"),
        ("nprocs = '2'", "takes a whole number"),
        ("bids-dir = 'x'", "no option --bids-dir"),
        ("not toml", "not TOML"),
    ],
)
def test_a_mistake_in_the_configuration_file_is_named(tmp_path, content, message):
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=message):
        cli.parse([*BASE, "--config-file", str(file)])


def test_the_settings_of_a_run_can_be_given_again(tmp_path):
    first = cli.parse([*BASE, "--nprocs", "2", "--folds", "0", "1", "--work-dir", str(tmp_path)])
    file = tmp_path / "config.toml"
    file.write_text(first.toml())
    tomllib.loads(first.toml())
    assert cli.parse([*BASE, "--config-file", str(file)]) == first


def test_folds_are_a_set_in_order():
    assert cli.parse([*BASE, "--folds", "1", "0", "--folds", "0"]).folds == ("0", "1")


@pytest.mark.parametrize(
    "arguments", [[], ["bids", "out", "session"], [*BASE, "--nprocs", "0"], [*BASE, "--nope"]]
)
def test_a_wrong_command_line_ends_with_2(arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


def test_a_folder_that_is_no_dataset_ends_with_4(tmp_path, capsys):
    assert cli.main([str(tmp_path), str(tmp_path / "out"), "participant"]) == 4
    assert "dataset_description.json" in capsys.readouterr().err


def test_an_error_that_was_not_foreseen_is_a_line_that_says_where_to_report_it(capsys):
    def fail():
        raise ZeroDivisionError("by\x1b[2J\nzero")

    assert options.guarded(fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unexpected ZeroDivisionError: by\\x1b[2J zero.")
    assert "please report it" in line
    assert "test_main.py, line" not in line, "only lines of the app"


def test_too_little_memory_is_no_fault_of_the_app(capsys):
    def fail():
        raise MemoryError

    assert options.guarded(fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "too little memory" in line
    assert "fault" not in line


def test_an_error_is_one_line_whatever_a_path_holds(capsys):
    def fail():
        raise UsageError("a\nb\x1b[2J\udcff\u202e: no such folder")

    assert options.guarded(fail) == 2
    assert capsys.readouterr().err == "error: a\\nb\\x1b[2J\\udcff\\u202e: no such folder\n"


def test_a_count_of_any_size_does_not_make_command_lines_endless(tmp_path):
    (tmp_path / "c.toml").write_text("verbose = 1000000")
    settings = cli.parse(["a", "b", "participant", "--config-file", str(tmp_path / "c.toml")])
    assert len(options.as_words(settings)) < 10


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from bids_app.cli.main import make_parser; make_parser().format_help();"
        "print([m for m in ('torch', 'numpy', 'nibabel', 'bids', 'pandas') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
