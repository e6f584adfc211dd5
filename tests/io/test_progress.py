"""How far a long image is: a bar on a terminal, a line now and then elsewhere."""

import io
import sys

from bids_app.io import progress
from bids_app.io.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """Put one in the place of standard error, within a test as pytest has its own there before."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_lines_name_what_is_counted_and_the_time_left(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    said = []
    for parts, digits, share in (("passes", 0, 1), ("windows", 1, 0.5)):
        with Progress(said.append, parts, digits) as done:
            done.add(share, 4)
    assert said == [
        "1 of 4 passes, 00:00, about 00:00 left",
        "0.5 of 4 windows, 00:00, about 00:00 left",
    ]


def test_a_terminal_has_a_bar_instead(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BEFORE_BAR", 0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    said = []
    screen = terminal(monkeypatch)
    with Progress(said.append, "passes") as done:
        for _ in range(4):
            done.add(1, 4)
            done._bar.refresh()
    assert "3 of 4 passes, 00:00, 00:00 left" in screen.getvalue()
    assert said == []


def test_an_image_of_a_few_seconds_shows_none(monkeypatch):
    screen = terminal(monkeypatch)
    with Progress(print, "passes") as done:
        for _ in range(4):
            done.add(1, 4)
    assert "passes" not in screen.getvalue()
