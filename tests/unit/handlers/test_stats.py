"""Counts of events: by hour, weekday and value, of today and of any other time, and test events apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from consumer import testing
from consumer.errors import SettingsError
from consumer.handlers import stats as module
from consumer.handlers.stats import Stats
from consumer.observe.event_counts import EventCounts
from schemas.session import Session

HANDLER = "consumer.handlers.stats:Stats"
NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
"""A Wednesday."""


class Order(msgspec.Struct):
    at: datetime | None = None
    shop: str | msgspec.UnsetType = msgspec.UNSET
    lines: list[int] = []
    is_trial: bool | None = None
    total: float = 0.0


class Clock:
    """The wall clock of the handler."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now.timestamp()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def a_session(when: datetime = NOW, **fields: Any) -> Session:
    return Session(when, **fields)


def counted(*events: Any, kind: type = Session, **options: Any) -> EventCounts:
    stats = Stats(**options)
    stats.expect_events(kind)
    for each in events:
        stats(each)
    return stats.counted_events()


def hours(counts: EventCounts) -> list[tuple[str, int, int]]:
    return [
        (f"{datetime.fromtimestamp(each.begin, UTC):%d %H}", each.counts.events, each.counts.apart)
        for each in counts.hours
    ]


def top(counts: EventCounts, number: int = 0) -> list[tuple[str, int]]:
    return [(each.value, each.events) for each in counts.fields[number].top]


ORDERS: dict[str, Any] = {"time_field": "at", "by": ["shop"], "test_fields": ["is_trial"]}


def test_hours_over_midnight_in_any_order() -> None:
    """An event counts in the hour of its time field, in UTC, whatever its offset and whenever it comes."""
    plus_5 = timezone(timedelta(hours=5, minutes=30))
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    found = counted(
        a_session(midnight),
        a_session(midnight - timedelta(microseconds=1)),
        a_session(NOW.astimezone(plus_5)),
        a_session(midnight + timedelta(minutes=59, seconds=59)),
        a_session(datetime(2026, 3, 4, 2, 0, tzinfo=plus_5)),
        a_session(midnight),
    )
    assert hours(found) == [("03 20", 1, 0), ("03 23", 1, 0), ("04 00", 3, 0), ("04 12", 1, 0)]
    assert [each.events for each in found.weekdays] == [0, 2, 4, 0, 0, 0, 0]
    assert (found.events, found.since) == (6, NOW.timestamp())


def test_any_week() -> None:
    """Each event counts on the weekday of its time, also before 1970."""
    days = [datetime(year, 1, 1, 23, tzinfo=UTC) for year in range(1900, 2030)]
    expected = [sum(each.weekday() == day for each in days) for day in range(7)]
    assert [each.events for each in counted(*map(a_session, days)).weekdays] == expected


def test_times_far_away_are_counted_apart_and_kept_out() -> None:
    """Times beyond the hours that are kept take no memory and push no hour out."""
    ages = [timedelta(hours=each) for each in range(-100, 300)]
    found = counted(
        a_session(datetime.min.replace(tzinfo=UTC)),
        a_session(datetime.max.replace(tzinfo=UTC)),
        *(a_session(NOW - age) for age in ages),
    )
    assert (len(found.hours), found.events) == (49, 402)
    assert (found.older, found.later) == (1 + 300 - 48, 1 + 100 - 1)


def test_times_that_have_no_form_in_utc() -> None:
    zones = [timezone(timedelta(hours=each)) for each in (14, -12)]
    times = [datetime(1, 1, 1, tzinfo=zones[0]), datetime(9999, 12, 31, 23, tzinfo=zones[1])]
    found = counted(*map(a_session, times))
    assert (found.without_time, found.events) == (2, 2)


def test_old_hours_are_forgotten(clock: Clock) -> None:
    """Hours leave as time passes, in what is shown and in memory; all else stays."""
    stats = Stats()
    stats.expect_events(Session)
    for _ in range(400):
        stats(a_session(clock.now))
        clock.now += timedelta(hours=1)
    assert len(stats._hours) <= 50
    clock.now += timedelta(hours=46)
    found = stats.counted_events()
    assert (len(found.hours), found.events) == (1, 400)
    assert sum(each.events for each in found.weekdays) == 400


def test_test_events_are_apart() -> None:
    """An event of which a test field is true counts there, under the first, and in no value."""
    found = counted(
        a_session(agent_name="a"),
        a_session(agent_name="a", is_test=False),
        a_session(agent_name="t", is_test=True),
        a_session(agent_name="l", is_legacy=True),
        a_session(agent_name="b", is_test=True, is_legacy=True),
    )
    assert (found.events, found.apart) == (2, {"is_test": 2, "is_legacy": 1})
    assert hours(found) == [("04 12", 2, 3)]
    assert found.weekdays[2].apart == 3
    assert (top(found, 1), found.fields[1].other) == ([("a", 2)], 0)


def test_the_rest_of_the_values() -> None:
    found = counted(*(a_session(agent_name=f"{number % 7}") for number in range(70)), by=["agent_name"], top=3)
    assert (len(top(found)), found.fields[0].other, found.fields[0].exact) == (3, 40, True)


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process have another time zone than UTC."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_a_struct_of_ours() -> None:
    """Times may be missing or have no offset, which is UTC; values may be absent or lists."""
    found = counted(
        Order(),
        Order(NOW.replace(tzinfo=None), "x", [1]),
        Order(NOW, "x", [1], is_trial=True),
        Order(NOW, "x", [1, 2]),
        kind=Order,
        **(ORDERS | {"by": ["shop", "lines"]}),
    )
    assert (found.events, found.without_time, hours(found)) == (3, 1, [("04 12", 2, 1)])
    assert (top(found), top(found, 1)) == ([("x", 2), ("(absent)", 1)], [("[]", 1), ("[1]", 1), ("[1,2]", 1)])


async def test_dicts() -> None:
    """Events without a type: times are text, fields may be missing."""
    options = {"time_field": "at", "by": ["shop"], "test_fields": ["trial"]}
    routes = {"counts": {"handler": HANDLER, "options": options}}
    async with testing.consumer(routes=routes, schemas={"orders": dict}) as app:
        await app.give({"at": "2026-03-04T12:30:00Z", "shop": None}, {"at": "noon"}, {"trial": True, "shop": 1}, {})
        assert app.outcomes == [("counts", "handled")] * 4


def test_dicts_are_counted() -> None:
    options: dict[str, Any] = {"time_field": "at", "by": ["shop"], "test_fields": ["trial"]}
    events = [{"at": "2026-03-04T12:30:00Z", "shop": None}, {"at": "noon"}, {"trial": True}, {"at": 7, "shop": [1]}]
    found = counted(*events, kind=dict, **options)
    assert (found.events, found.apart, found.without_time, len(found.hours)) == (3, {"trial": 1}, 3, 1)
    assert top(found) == [("(null)", 1), ("(absent)", 1), ("[1]", 1)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"time_field": ""}, "options.time_field is empty"),
        ({"time_field": "shop"}, "options.time_field: field 'shop' of Order is not a datetime"),
        ({"time_field": "att"}, "options.time_field: Order has no field 'att'; did you mean 'at'?"),
        ({"by": ["shop", "shop"]}, "options.by must name each field once"),
        ({"by": ["channel"]}, "options.by: Order has no field 'channel'; the known names are"),
        ({"test_fields": ["is_test"]}, "options.test_fields: Order has no field 'is_test'"),
        ({"test_fields": ["total"]}, "options.test_fields: field 'total' of Order is not a boolean"),
        ({"top": 0}, "options.top must be from 1 to 1000"),
        ({"top": 1001}, "options.top must be from 1 to 1000"),
    ],
)
async def test_options_that_cannot_be(options: dict[str, Any], why: str) -> None:
    routes = {"counts": {"handler": HANDLER, "options": ORDERS | options}}
    with pytest.raises(SettingsError) as raised:
        async with testing.consumer(routes=routes, schemas={"orders": Order}):
            pass
    assert why in str(raised.value)
    assert "counts" in str(raised.value)


async def test_bytes_have_no_fields() -> None:
    with pytest.raises(SettingsError, match="bytes has no field 'timestamp'"):
        async with testing.consumer(HANDLER, schemas={"raw": bytes}):
            pass


def test_a_reader_in_another_thread() -> None:
    """What another thread reads while events are counted is whole, and no rest is negative."""
    stats, ended, found = Stats(by=["agent_name"], top=5), threading.Event(), []
    stats.expect_events(Session)
    events = [a_session(NOW - timedelta(hours=number % 60), agent_name=f"{number}") for number in range(20_000)]

    def read() -> None:
        while not ended.is_set():
            found.append(stats.counted_events())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for each in events * 3:
            stats(each)
    finally:
        ended.set()
        reader.join()
    assert found
    assert all(each.fields[0].other >= 0 and len(each.hours) <= 48 for each in found)
    totals = [each.events for each in found]
    assert totals == sorted(totals)
    assert stats.counted_events().events == 60_000
