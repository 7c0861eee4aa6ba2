"""The screen of ``top``: one row for each daemon, and the details of one, fitted into a terminal's height. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from consumer.cli.top_notes import DETAILS, STYLES, Note, Seen, identity, notes, word
from consumer.cli.top_section import Column, Row, Section
from consumer.cli.top_tables import sections
from consumer.http.status import Status
from consumer.http.wording import MISSING, number, rate, size, span

OLD_SECONDS = 10.0
"""Age from which a number is shown with its age."""
TILES = 6
TABLE_LINES = 4
"""Lines that are kept for tables below the notes."""


def worst_first(seen: Sequence[Seen]) -> list[int]:
    """Return the places of daemons, the worst first."""
    return sorted(range(len(seen)), key=lambda place: seen[place].rank)


def live(seen: Sequence[Seen], now: float, console: Console, selected: int | None) -> Group:
    """Return the whole screen: all daemons if there are several, then the selected or the worst one."""
    width, height = console.size
    several = len(seen) > 1
    parts: list[RenderableType] = []
    left = height - 1
    keys = "q quits"
    if several:
        rows = min(len(seen), max(1, height // 3))
        parts.append(_daemons(seen, now).table(width, rows))
        left -= rows + 1
        keys = "q quits, 1 to 9 shows that daemon, 0 the worst"
    for place in _detailed(seen, selected):
        parts += [_heading(place, seen[place])] if several else []
        details, left, missing = _fitted(seen[place], now, console, left - several)
        parts += details
        keys += f"; no room for {', '.join(missing)}" if missing else ""
    return Group(*parts, *[Text()] * left, Text(keys, "dim", no_wrap=True, overflow="ellipsis"))


def _detailed(seen: Sequence[Seen], selected: int | None) -> list[int]:
    """Return the places of the daemons to show: one, and a second if nothing is known of the first."""
    if selected is not None:
        return [selected]
    order = worst_first(seen)
    return (
        order[:1] + [place for place in order if seen[place].status is not None and seen[order[0]].status is None][:1]
    )


def whole(seen: Sequence[Seen], now: float, width: int) -> Group:
    """Return everything about all daemons, however long."""
    parts: list[RenderableType] = []
    seen = [each._replace(failing_since=now) for each in seen]  # asked once, so it is not known since when
    if len(seen) > 1:
        parts.append(_daemons(seen, now).table(width, len(seen)))
    for place in worst_first(seen):
        each = seen[place]
        parts += [Text(), _heading(place, each)] if parts else []
        parts += [note.text for note in notes(each, now, None)]
        if each.status is not None:
            parts += [*identity(each.status), _tiles(each.status, width, old=False)]
            parts += [table.table(width, len(table.rows)) for table in sections(each.status)]
    return Group(*parts)


def _fitted(seen: Seen, now: float, console: Console, left: int) -> tuple[list[RenderableType], int, list[str]]:
    """Return the details of a daemon in ``left`` lines, the lines left then, and the names of tables without room."""
    width = console.width
    found = notes(seen, now, width)
    if seen.status is None:
        lines = _kept(found, console, max(left, 1))
        return [*lines], left - len(lines), []
    who = [line for text in identity(seen.status) for line in _lines(text, console)]
    left -= len(who) + 3 * -(-TILES // _tiles_per_row(width))
    lines = _kept(found, console, max(TABLE_LINES, left - TABLE_LINES))
    left -= len(lines)
    tables = sections(seen.status)
    counts = _allotted(tables, left)
    shown = [table.table(width, count) for table, count in zip(tables, counts, strict=True) if count]
    missing = [table.name.lower() for table, count in zip(tables, counts, strict=True) if not count]
    left -= sum(count + 1 for count in counts if count)
    tiles = _tiles(seen.status, width, old=seen.failure is not None)
    return [*lines, *who, tiles, *shown], left, missing


def _kept(found: Sequence[Note], console: Console, most: int) -> list[Text]:
    """Return the lines of notes, without those that matter least if there are more than ``most`` lines."""
    left = [(note.weight, _lines(note.text, console)) for note in found]
    dropped = False
    while sum(len(lines) for _, lines in left) > most - dropped and (heaviest := max(weight for weight, _ in left)):
        del left[max(place for place, (weight, _) in enumerate(left) if weight == heaviest)]
        dropped = dropped or heaviest <= DETAILS
    kept = [line for _, lines in left for line in lines]
    if dropped or len(kept) > most:
        return [*kept[: most - 1], Text("  There is more: make the terminal higher, or use --once.", "yellow")]
    return kept


def _allotted(tables: Sequence[Section], lines: int) -> list[int]:
    """Share lines among tables: first the least that each needs, in their order, then the rest."""
    counts = [0] * len(tables)
    for place, table in enumerate(tables):
        if lines >= 2:
            counts[place] = min(table.least, len(table.rows), lines - 1)
            lines -= counts[place] + 1
    for place, table in enumerate(tables):
        if counts[place]:
            more = min(len(table.rows) - counts[place], lines)
            counts[place] += more
            lines -= more
    return counts


def _lines(text: Text, console: Console) -> list[Text]:
    return list(text.wrap(console, console.width)) or [text]


def _heading(place: int, seen: Seen) -> Text:
    return Text(f"{place + 1} {seen.address}", "bold underline", no_wrap=True, overflow="ellipsis")


def _daemons(seen: Sequence[Seen], now: float) -> Section:
    columns = (
        Column("Daemons", flexible=True),
        Column("Host, pid", flexible=True),
        Column("Verdict"),
        Column("For", right=True),
        Column("Rec/s", right=True),
        Column("Lag", right=True),
        Column("Behind", right=True),
        Column("", wide=100, flexible=True),
    )
    return Section("Daemons", columns, [_daemon(place, seen[place], now) for place in worst_first(seen)], 1, gap=1)


def _daemon(place: int, seen: Seen, now: float) -> Row:
    status, failure = seen.status, seen.failure
    says, judged, since = "", Text("asked"), MISSING
    if failure is not None:
        says, judged = str(failure), Text(f" {failure.word} ", STYLES["bad"])
        since = _short_span(now - seen.failing_since) if now > seen.failing_since else MISSING
    elif status is not None:
        verdict = status.verdicts[0]
        says, judged, since = verdict.sentence, word(verdict), _short_span(status.at - verdict.since)
    name = f"{place + 1} {seen.address}"
    if status is None:
        return name, MISSING, judged, since, MISSING, MISSING, MISSING, says
    style = ""
    if failure is not None:
        style, says = "dim", f"numbers {span(now - seen.answered_at)} old; {says}"
    behind = _behind(status)
    numbers = (
        rate(status.records_per_second),
        number(_lag(status)),
        MISSING if behind is None else _short_span(behind),
    )
    old = [Text(f"({each})" if failure is not None else each, style) for each in numbers]
    return name, f"{status.process.host} {status.process.pid}", judged, since, *old, says


def _short_span(seconds: float) -> str:
    """Format a duration in its largest unit."""
    return " ".join(span(max(0.0, seconds)).split()[:2])


def _tiles_per_row(width: int) -> int:
    return TILES if width >= 78 else TILES // 2


def _tiles(status: Status, width: int, *, old: bool) -> RenderableType:
    """Return the numbers that matter most, each with its name above and its note below."""
    tiles = _numbers(status)
    per_row = _tiles_per_row(width)
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    for _ in range(per_row):
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for start in range(0, len(tiles), per_row):
        for line, style in enumerate(("dim", "dim" if old else "bold", "dim" if old else "")):
            table.add_row(*(Text(tile[line], style) for tile in tiles[start : start + per_row]))
    return table


def _numbers(status: Status) -> list[tuple[str, str, str]]:
    total = len(status.partitions)
    committed, age = status.last_commit_at, _age(status)
    old = f"{_short_span(age)} old" if age > OLD_SECONDS or (status.brokers.silent and age) else ""
    known = sum(each.lag_records is not None for each in status.partitions)
    return [
        ("Records/s", rate(status.records_per_second), f"{size(status.bytes_per_second)}/s"),
        ("Lag", number(_lag(status)), old or ("records" if known == total else f"of {known}/{total} part.")),
        ("Behind", span(_behind(status)), (old if status.brokers.silent else "") or "oldest"),
        (
            "In flight",
            number(sum(each.in_flight_records for each in status.partitions)),
            f"of {number(status.max_in_flight_records * total)}",
        ),
        ("Dead letters", number(sum(each.dead_lettered for each in status.routes)), "since start"),
        (
            "Last commit",
            MISSING if committed is None else span(max(0.0, status.at - committed)),
            "none yet" if committed is None else "ago",
        ),
    ]


def _age(status: Status) -> float:
    """Return the age of what brokers said last about the ends of the partitions."""
    ages = [each.end_offset_age_seconds for each in status.partitions if each.end_offset_age_seconds is not None]
    if status.brokers.silent and status.brokers.heard_at is not None:
        ages.append(status.at - status.brokers.heard_at)
    return max(ages, default=0.0)


def _lag(status: Status) -> int | None:
    lags = [each.lag_records for each in status.partitions if each.lag_records is not None]
    return sum(lags) if lags else None


def _behind(status: Status) -> float | None:
    return max((each.lag_seconds for each in status.partitions if each.lag_seconds is not None), default=None)
