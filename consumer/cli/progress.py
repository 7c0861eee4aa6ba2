"""What a command says while it works: bars and tables on a terminal, plain lines elsewhere; progress goes to stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 2.0


class Progress:
    """Owned by one command; results go to stdout, everything else to stderr."""

    def __init__(self) -> None:
        self._errors = Console(stderr=True, highlight=False)
        self._output = Console(highlight=False)

    def say(self, line: str) -> None:
        """Say what happens now."""
        self._errors.print(line, markup=False, emoji=False)

    def print(self, line: str) -> None:
        """Print a result."""
        self._output.print(line, markup=False, emoji=False, soft_wrap=True)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print a table whose first row is its head and whose last column is numbers."""
        table = Table()
        for index, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if index == len(rows[0]) - 1 else "left")
        for row in rows[1:]:
            table.add_row(*map(Text, row))
        self._output.print(table)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how far something is; call what is yielded with the count so far."""
        if not self._errors.is_terminal:
            yield self._lines(title, total)
            return
        columns = TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with RichProgress(*columns, console=self._errors) as shown:
            task = shown.add_task(title, total=total)
            yield lambda count: shown.update(task, completed=count)

    def _lines(self, title: str, total: int) -> Callable[[int], None]:
        started = said = time.monotonic()

        def tell(count: int) -> None:
            nonlocal said
            now = time.monotonic()
            if count >= total or now - said >= PLAIN_SECONDS:
                said = now
                self.say(f"{title}: {count:,} of {total:,} after {now - started:.1f} s")

        return tell
