"""Lines beside a bar, and numbers with their nouns."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from consumer.cli.progress import ABOVE_BARS, Progress
from consumer.errors import counted
from consumer.logs import configure_logging
from consumer.settings.sections import Log


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Have stderr be a terminal until the test ends; a fixture would set it before pytest sets its own."""
    stream = Terminal()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_log_line_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the log that is written while a bar is shown begins at the left and stands alone."""
    terminal = a_terminal(monkeypatch)
    configure_logging(Log(level="warning", format="json"), ABOVE_BARS)
    with Progress().bar("Consuming", 10) as report:
        report(1)
        logging.getLogger("x").warning("lines_beside_bars")
        report(10)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    (line,) = (each for each in re.split(r"[\r\n]+", shown) if "lines_beside_bars" in each)
    assert line.startswith('{"event": "lines_beside_bars"'), line
    assert "Consuming" in shown
    assert "━" not in line


def test_a_log_line_without_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a bar the log goes to stderr as usual."""
    terminal = a_terminal(monkeypatch)
    configure_logging(Log(level="warning", format="json"), ABOVE_BARS)
    logging.getLogger("x").warning("a_line")
    assert terminal.getvalue().startswith('{"event": "a_line"')


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 letters"), (1, "1 letter"), (2, "2 letters"), (1000, "1,000 letters")]
)
def test_one_is_not_many(count: int, text: str) -> None:
    """A noun is singular after 1 only."""
    assert counted(count, "letter") == text


def test_numbers_are_aligned_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns that hold only numbers; a name is not."""
    Progress().table([("topic", "left", "redriven"), ("a", "1,000", "5"), ("bb", "7", "0")])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [re.split(r"\s*│", line) for line in lines] == [["a", " 1,000", "        5"], ["bb", "     7", "        0"]]
