"""Output of commands: bars and tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 2.0


class _AboveBars(io.TextIOBase):
    """Writes to what ``sys.stderr`` is at the time: while a bar is shown, that prints lines above the bar."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


ABOVE_BARS = cast(TextIO, _AboveBars())
"""The stream of the log of commands that show progress."""


class Progress:
    """Prints for one command, which owns it: results on stdout, everything else on stderr."""

    def __init__(self) -> None:
        self._errors = Console(stderr=True, highlight=False)
        self._output = Console(highlight=False)

    def say(self, line: str) -> None:
        """Print a line on the progress of the command."""
        self._errors.print(line, markup=False, emoji=False)

    def print(self, line: str) -> None:
        """Print a line of the result."""
        self._output.print(line, markup=False, emoji=False, soft_wrap=True)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print a table. The first row is its head, and columns of numbers are aligned to the right."""
        head, *body = rows
        table = Table()
        for name, cells in zip(head, zip(*body, strict=True), strict=True):
            numbers = all(each.replace(",", "").isdecimal() for each in cells)
            table.add_column(name, justify="right" if numbers else "left")
        for row in body:
            table.add_row(*map(Text, row))
        self._output.print(table)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show progress; call the yielded function with the count so far."""
        if not self._errors.is_terminal:
            yield self._lines(title, total)
            return
        columns = TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with RichProgress(*columns, console=self._errors) as shown:
            task = shown.add_task(title, total=total)
            yield lambda count: shown.update(task, completed=count)

    def _lines(self, title: str, total: int) -> Callable[[int], None]:
        started = reported = time.monotonic()

        def report(count: int) -> None:
            nonlocal reported
            now = time.monotonic()
            if count >= total or now - reported >= PLAIN_SECONDS:
                reported = now
                self.say(f"{title}: {count:,} of {total:,} after {now - started:.1f} s")

        return report
