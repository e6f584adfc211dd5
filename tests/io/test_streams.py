"""Output that nobody reads any more neither stops a command nor ends in a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TALKS = """
import sys
from pathlib import Path
from bids_app.cli.options import guarded
def work():
    for n in range(100_000):
        print("a line", n)
        print("an error", n, file=sys.stderr)
    Path(sys.argv[1]).write_text("done")
    return 3
sys.exit(guarded(work))
"""


@pytest.mark.parametrize("ending", ["| head -1", "2>&1 | head -1", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_output_stops_nothing(tmp_path: Path, ending: str) -> None:
    done = tmp_path / "done"
    command = f'"$0" -c "$1" "$2" {ending}; exit ${{PIPESTATUS[0]}}'
    run = subprocess.run(
        ["bash", "-c", command, sys.executable, TALKS, str(done)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 3
    assert done.read_text() == "done"
    assert "Traceback" not in run.stdout + run.stderr
    assert "BrokenPipe" not in run.stderr
    assert "lost sys" not in run.stderr


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    command = """
import sys
from bids_app.cli.options import guarded
def work():
    with open(sys.argv[1], "w") as file:
        print("to the screen")
        sys.stdout.flush()
        file.write("to the file")
    return 0
sys.exit(guarded(work))
"""
    path = tmp_path / "file"
    words = ["bash", "-c", '"$0" -c "$1" "$2" >&- 2>&-', sys.executable, command, str(path)]
    assert subprocess.run(words, check=False).returncode == 0
    assert path.read_text() == "to the file"


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    command = r"""
import sys
from bids_app.cli.options import guarded
sys.exit(guarded(lambda: print("\u00e9 \udcff") or 0))
"""
    run = subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "\\xe9 \\udcff\n"
