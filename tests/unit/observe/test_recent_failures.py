"""Recent failures: groups by kind, bounded, and without contents of records."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from consumer import Pause, Record
from consumer.observe.recent_failures import KEPT, RecentFailures
from consumer.record import Position
from tests.unit.delivery.engines import QUICK, a_route, an_engine_on
from tests.unit.delivery.handlers import Letters
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import until

PHONE = "+18045550100"


def note(failures: RecentFailures, at: float, kind: str = "error", error: str = "KeyError (a.py:1)") -> None:
    failures.note(at, "voice", kind, error, Position("t", 0, int(at)))


def test_a_storm_is_one_failure() -> None:
    """Failures of one kind are one entry: how often, since when, and where last."""
    failures = RecentFailures()
    note(failures, 1, error="ValueError (b.py:2)")
    for at in range(2, 1002):
        note(failures, at)
    storm, other = failures.latest_first
    assert (storm.times, storm.first_at, storm.last_at, storm.offset) == (1000, 2, 1001, 1001)
    assert (other.error, other.times) == ("ValueError (b.py:2)", 1)


def test_failures_are_bounded() -> None:
    """Only the latest kinds of failure are kept; the one that happened least recently is dropped first."""
    failures = RecentFailures()
    for line in range(KEPT):
        note(failures, line, error=f"KeyError (a.py:{line})")
    note(failures, 100, error="KeyError (a.py:0)")
    note(failures, 101, error="KeyError (new.py:1)")
    errors = [failure.error for failure in failures.latest_first]
    assert len(errors) == KEPT
    assert errors[:2] == ["KeyError (new.py:1)", "KeyError (a.py:0)"]
    assert "KeyError (a.py:1)" not in errors


def test_undecodable_records_are_one_kind() -> None:
    """Undecodable records are one kind per topic and reason, whatever their sizes."""
    failures = RecentFailures()
    for size in range(50):
        failures.note(size, "none", "undecodable", f"its value of {size} bytes is not an event", Position("t", 0, size))
    (failure,) = failures.latest_first
    assert (failure.times, failure.error) == (50, "its value of 49 bytes is not an event")


async def test_failures_of_an_engine() -> None:
    """Retried calls and dead letters are noted with class and place, without the exception's text."""
    source, letters = LogSource(keyed([b"a", b"a"])), Letters()
    calls: list[int] = []

    async def fails(_event: Any, record: Record) -> None:
        calls.append(record.offset)
        if record.offset == 0 and len(calls) == 1:
            raise Pause(PHONE, after=0.001)
        if record.offset == 1:
            raise ValueError(PHONE)

    async with an_engine_on(source, a_route(fails), retry=QUICK, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r0"].dead_lettered == 1)
        found = bench.counters.failures.latest_first
    assert [(each.kind, each.times, each.offset, each.partition) for each in found] == [
        ("exhausted", 1, 1, KEY.partition),
        ("error", 2, 1, KEY.partition),
        ("pause", 1, 0, KEY.partition),
    ]
    assert found[0].error.startswith("the handler of route 'r0' raised ValueError (")
    assert found[1].error.startswith("ValueError (")
    assert "test_recent_failures.py:" in found[1].error
    assert PHONE not in json.dumps([msgspec.to_builtins(each) for each in found])
