"""One table of ``top``: one line of names, and rows of one line each."""

from __future__ import annotations

from typing import NamedTuple

from rich.table import Table
from rich.text import Text

Row = tuple[Text | str, ...]


class Column(NamedTuple):
    """One column, shown if the terminal has at least ``wide`` columns. A ``flexible`` one is cut if room lacks."""

    name: str
    right: bool = False
    wide: int = 0
    flexible: bool = False


class Section(NamedTuple):
    """One table. ``least`` is the number of rows that are shown before another table gets more than its own."""

    name: str
    columns: tuple[Column, ...]
    rows: list[Row]
    least: int
    gap: int = 2
    """Columns between two cells."""

    def table(self, width: int, count: int) -> Table:
        """Return the first ``count`` rows below one line of names, which says how many rows there are."""
        table = Table(box=None, padding=(0, self.gap, 0, 0), pad_edge=False, header_style="bold")
        shown = [each.wide <= width for each in self.columns]
        total = len(self.rows)
        title = f"{self.name} ({total})" if count >= total else f"{self.name} ({count} of {total})"
        for place, column in enumerate(self.columns):
            if shown[place]:
                name = Text(column.name if place else title, no_wrap=True, overflow="ellipsis")
                table.add_column(
                    name,
                    justify="right" if column.right else "left",
                    no_wrap=not column.flexible,
                    overflow="ellipsis",
                )
        for row in self.rows[:count]:
            table.add_row(*(_cell(text) for text, visible in zip(row, shown, strict=True) if visible))
        return table


def _cell(text: Text | str) -> Text:
    cell = Text(text) if isinstance(text, str) else text.copy()
    cell.no_wrap, cell.overflow = True, "ellipsis"
    return cell
