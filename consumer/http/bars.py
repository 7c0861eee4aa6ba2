"""What a handler has counted, as bars and rows of the status page. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from consumer.http.status import StatsStatus
from consumer.http.wording import percent
from consumer.observe.event_counts import Counts

HOURS = 48
HOUR_SECONDS = 3600
HEIGHT = 100
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Bar(NamedTuple):
    """The bar of one hour: events from the bottom up to ``y``, and those that are counted apart above them."""

    x: int
    y: str
    height: str
    apart_y: str
    apart_height: str


class Row(NamedTuple):
    """One row of a table: a name, its number of events, and their share of all."""

    name: str
    events: int
    share: str
    bar: str
    """Length of a bar in percent; empty without one."""


class Values(NamedTuple):
    """The table of one field."""

    field: str
    rows: list[Row]
    note: str
    """Empty if the numbers are exact."""


class StatsView(NamedTuple):
    """The section of one route."""

    route: str
    since: float
    facts: list[tuple[str, int]]
    """Numbers of events by name, those that are 0 left out but the first."""
    bars: list[Bar]
    begin: float
    """Begin of the first hour."""
    highest: int
    hours: list[tuple[str, Counts]]
    """Hours that have events, newest first, for the table beside the bars."""
    weekdays: list[Row]
    fields: list[Values]


def make_stats(stats: StatsStatus, at: float) -> StatsView:
    """Make the section of what one route has counted, with bars for the hours up to ``at``, or to the last hour."""
    counts = stats.counts
    hours = {int(each.begin): each.counts for each in counts.hours}
    last = max([int(at // HOUR_SECONDS) * HOUR_SECONDS, *hours])
    begin = last - (HOURS - 1) * HOUR_SECONDS
    highest = max([each.events + each.apart for each in hours.values()], default=0)
    bars = [
        _bar((hour - begin) // HOUR_SECONDS, each, highest) for hour, each in sorted(hours.items()) if hour >= begin
    ]
    facts = [("events", counts.events), *((f"{name} apart", count) for name, count in counts.apart.items())]
    facts += [
        ("older than 48 hours", counts.older),
        ("of the future", counts.later),
        ("without time", counts.without_time),
    ]
    weekdays = [each.events for each in counts.weekdays]
    most = max(weekdays, default=0)
    return StatsView(
        stats.route,
        counts.since,
        [(name, count) for number, (name, count) in enumerate(facts) if count or not number],
        bars,
        float(begin),
        highest,
        [(f"{datetime.fromtimestamp(hour, UTC):%a %H:%M}", each) for hour, each in sorted(hours.items(), reverse=True)],
        [_row(day, count, sum(weekdays), most) for day, count in zip(DAYS, weekdays, strict=True)],
        [
            Values(
                each.field,
                _rows([*((one.value, one.events) for one in each.top), ("all others", each.other)], counts.events),
                "" if each.exact else "at least: rare values were dropped",
            )
            for each in counts.fields
        ],
    )


def _bar(x: int, counts: Counts, highest: int) -> Bar:
    height, apart = HEIGHT * counts.events / highest, HEIGHT * counts.apart / highest
    return Bar(x, f"{HEIGHT - height:.1f}", f"{height:.1f}", f"{HEIGHT - height - apart:.1f}", f"{apart:.1f}")


def _rows(counts: list[tuple[str, int]], whole: int) -> list[Row]:
    """Return rows of values; the last is that of all others, which is left out if it is 0."""
    most = max(count for _, count in counts)
    found = [_row(name, count, whole, most) for name, count in counts]
    return found if found[-1].events else found[:-1]


def _row(name: str, count: int, whole: int, most: int) -> Row:
    return Row(name, count, percent(count, whole), f"{100 * count / most:.1f}" if count else "")
