"""How long calls take: each waiting call is counted once with its own time, apart from the loop's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from consumer.instructions import Pause
from consumer.observe.loop_time import TimedLoop
from consumer.partition.chunk import Chunk
from consumer.record import Record
from consumer.routes.route import Route
from consumer.settings.sections import RetrySettings
from tests.unit.delivery.batches import a_batch_route
from tests.unit.delivery.engines import QUICK, Bench, a_route, an_engine_on
from tests.unit.delivery.handlers import Letters
from tests.unit.delivery.source import KEY, MemorySource, RawRecord
from tests.unit.delivery.waiting import until

WAIT = 0.1
RETRY = RetrySettings(attempts=3, initial_seconds=0.3, jitter=0.0)
Handle = Callable[..., Any]


@pytest.fixture(params=["timed", "plain"])
def on_loop(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Bench]], Bench]:
    """Run a coroutine on an event loop that counts its rounds, and on a plain one."""

    def run(work: Coroutine[Any, Any, Bench]) -> Bench:
        factory = TimedLoop if request.param == "timed" else asyncio.SelectorEventLoop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work)

    return run


def records(count: int, key: Callable[[int], bytes] = lambda _number: b"k") -> Chunk:
    made = [RawRecord(number, b"%d" % number, key(number)) for number in range(count)]
    return Chunk(0, iter(made), count, lambda: made)


async def handled(count: int, chunk: Chunk, *handlers: Handle | Route, **delivery: Any) -> Bench:
    routes = [
        handler if isinstance(handler, Route) else a_route(handler, f"r{index}")
        for index, handler in enumerate(handlers)
    ]
    async with an_engine_on(MemorySource(), *routes, retry=RETRY, **delivery) as bench:
        bench.source.give(chunk)
        bench.engine.assign([KEY])
        await until(lambda: all(each.handled == count for each in bench.counters.routes.values()))
    return bench


def times(bench: Bench, route: str = "r0") -> tuple[int, float, float]:
    """Return how many calls waited, for how long in total, and how long calls kept the loop."""
    counts = bench.counters.routes[route]
    return sum(counts.seconds.counts), counts.seconds.total, counts.inline_seconds


def test_a_call_that_waits_is_counted_with_its_time(on_loop: Any) -> None:
    """Of ten calls two wait: only those are counted, and their time is not the loop's."""

    waited = 0.0

    async def handle(event: bytes) -> None:
        nonlocal waited
        if event in (b"3", b"7"):
            began = time.monotonic()
            await asyncio.sleep(WAIT)
            waited += time.monotonic() - began

    count, seconds, inline = times(on_loop(handled(10, records(10), handle)))
    assert count == 2
    assert waited * 0.9 < seconds < waited + 0.1
    assert 0 < inline < WAIT


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
def test_a_retry_is_no_time_of_a_call(on_loop: Any, ordering: str) -> None:
    """The time between a failed call and the next belongs to no call, nor to the loop."""
    failed: list[bytes] = []

    async def handle(event: bytes) -> None:
        if event == b"1" and not failed:
            failed.append(event)
            await asyncio.sleep(0)
            raise ValueError

    count, seconds, inline = times(on_loop(handled(5, records(5), handle, ordering=ordering)))
    assert seconds < RETRY.initial_seconds / 2, (count, seconds)
    assert 0 <= inline < RETRY.initial_seconds / 2


def test_calls_behind_a_busy_key_are_counted_once(on_loop: Any) -> None:
    """A waiting call is counted once, whether it was pulled or queued behind its key."""

    waited = 0.0

    async def handle(_event: bytes, _record: Record) -> None:
        nonlocal waited
        began = time.monotonic()
        await asyncio.sleep(WAIT)
        waited += time.monotonic() - began

    count, seconds, inline = times(
        on_loop(handled(6, records(6, lambda number: b"%d" % (number % 2)), handle, ordering="key", concurrency=4))
    )
    assert count == 6
    assert waited * 0.9 < seconds < waited + 0.3
    assert 0 <= inline < WAIT


def test_a_plain_function_keeps_the_loop(on_loop: Any) -> None:
    """The time of a plain function is the event loop's, per route; none of it counts as waiting."""

    def slow(event: bytes) -> None:
        if event == b"0":
            time.sleep(WAIT)

    alone = on_loop(handled(3, records(3), slow))
    assert (times(alone)[0], times(alone)[2] >= WAIT) == (0, True)
    beside = on_loop(handled(3, records(3), slow, lambda _event: None))
    assert (times(beside)[0], times(beside)[2] >= WAIT) == (0, True)
    assert times(beside, "r1")[2] < WAIT


def test_of_several_routes_each_has_its_own(on_loop: Any) -> None:
    """A route that waits is told apart from one that does not."""

    async def waits(_event: bytes) -> None:
        await asyncio.sleep(WAIT)

    bench = on_loop(handled(2, records(2), waits, lambda _event: None))
    assert times(bench)[0] == 2
    assert times(bench, "r1")[0] == 0
    assert times(bench, "r1")[2] < WAIT


def test_a_batch_is_one_call(on_loop: Any) -> None:
    """A batch is one call, counted with its records and its time."""

    async def handle(events: list[bytes]) -> None:
        await asyncio.sleep(WAIT)

    bench = on_loop(handled(5, records(5), a_batch_route(handle, max_records=100, max_seconds=WAIT)))
    counts = bench.counters.routes["r0"]
    assert sum(counts.batches.counts) == sum(counts.seconds.counts)
    assert counts.batches.total == 5
    assert counts.seconds.total >= WAIT * 0.9


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
def test_failing_calls_are_calls(on_loop: Any, ordering: str) -> None:
    """A call that waits and then raises is counted like any other, so that timeouts show."""

    async def handle(_event: bytes) -> None:
        await asyncio.sleep(0.01)
        raise ValueError

    async def run() -> Bench:
        source = MemorySource()
        source.give(records(3, lambda number: b"%d" % number))
        async with an_engine_on(source, a_route(handle), retry=QUICK, letters=Letters(), ordering=ordering) as bench:
            bench.engine.assign([KEY])
            await until(lambda: bench.counters.routes["r0"].dead_lettered == 3)
        return bench

    assert times(on_loop(run()))[0] == 3 * QUICK.attempts


@pytest.mark.parametrize("is_async", [False, True])
def test_failing_batches_are_calls(on_loop: Any, is_async: bool) -> None:
    """Each call of a batch is counted, however quick, also when it raises."""

    def fail(_events: list[bytes]) -> None:
        raise ValueError

    async def fail_async(_events: list[bytes]) -> None:
        raise ValueError

    async def run() -> Bench:
        source = MemorySource()
        source.give(records(3))
        route = a_batch_route(fail_async if is_async else fail, max_records=100, max_seconds=WAIT)
        async with an_engine_on(source, route, retry=QUICK, letters=Letters()) as bench:
            bench.engine.assign([KEY])
            await until(lambda: bench.counters.routes["r0"].dead_lettered == 3)
        return bench

    counts = on_loop(run()).counters.routes["r0"]
    assert sum(counts.seconds.counts) == sum(counts.batches.counts) > 3


def test_a_plain_call_that_raises_keeps_the_loop_too(on_loop: Any) -> None:
    """The time of a failing route is the loop's too, beside another route."""

    def fail(_event: bytes) -> None:
        time.sleep(WAIT)
        raise ValueError

    async def run() -> Bench:
        source = MemorySource()
        source.give(records(1))
        routes = [a_route(lambda _event: None, "r0"), a_route(fail, "r1")]
        async with an_engine_on(source, *routes, letters=Letters()) as bench:
            bench.engine.assign([KEY])
            await until(lambda: bench.counters.routes["r1"].dead_lettered == 1)
        return bench

    assert times(on_loop(run()), "r1")[2] >= WAIT * 0.9


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
def test_a_records_age_is_that_of_its_calls_begin(on_loop: Any, ordering: str) -> None:
    """A record's age is taken when its call begins; the call's duration is not part of it."""

    async def handle(_event: bytes) -> None:
        await asyncio.sleep(0.4)

    chunk = Chunk(0, iter([RawRecord(0, b"x", b"k", int(time.time() * 1000))]), 1)
    bench = on_loop(handled(1, chunk, handle, ordering=ordering))
    age = bench.counters.record_age["t"]
    assert (sum(age.counts), age.total < 0.3) == (1, True)


@pytest.mark.parametrize("timestamp", [None, -1])
@pytest.mark.parametrize("routes", [1, 2])
def test_records_without_a_timestamp(on_loop: Any, timestamp: Any, routes: int) -> None:
    """Records of old formats have no timestamp: they are handled, and have no age."""

    async def handle(_event: bytes) -> None:
        await asyncio.sleep(0)

    made = [RawRecord(number, b"x", None, timestamp) for number in range(3)]
    bench = on_loop(handled(3, Chunk(0, iter(made), 3), *[handle] * routes))
    assert bench.failures == []
    assert sum(bench.counters.record_age["t"].counts) == 0


def test_an_old_backlog_that_is_paused_is_old(on_loop: Any) -> None:
    """Lag of a paused partition is the age of the record that pauses, however young the epoch is."""
    calls = []

    def handle(_event: bytes) -> None:
        calls.append(1)
        if len(calls) > 500:
            raise Pause(after=60)

    async def run() -> Bench:
        source = MemorySource()
        old = int((time.time() - 259_200) * 1000)
        source.give(Chunk(0, iter([RawRecord(n, b"x", None, old + n) for n in range(1000)]), 1000))
        async with an_engine_on(source, a_route(handle)) as bench:
            bench.engine.assign([KEY])
            partition = bench.engine.partitions[KEY]
            await until(lambda: partition.committed == 500)
            partition.lag.ends_at(1000, 500, time.monotonic(), time.time())
            seconds.append(partition.lag_seconds(time.time()))
        return bench

    seconds: list[float | None] = []
    on_loop(run())
    assert seconds[0] == pytest.approx(259_200, abs=60)
