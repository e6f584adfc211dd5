"""Every benchmark starts, and says what it does."""

import pytest

from benchmarks import __main__ as command

COMMANDS = [
    words
    for name, entry in command.COMMANDS.items()
    for words in ([(name,)] if isinstance(entry, tuple) else [(name, below) for below in entry])
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([*words, "--help"])
    assert ended.value.code == 0
    assert f"python -m benchmarks {' '.join(words)}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["speed"], ["nothing"], ["speed", "nothing"]])
def test_an_unknown_command_lists_those_that_exist(words, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert "usage: python -m benchmarks" in capsys.readouterr().err
