"""End offsets: taken from answers to fetches, and asked for where these are old, often while records flow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any

import pytest

from consumer.instructions import Pause
from consumer.outcome import HaltReason
from consumer.process import measuring
from consumer.process.measuring import Measuring
from consumer.record import TopicPartition
from tests.fakes.broker import FETCH, LIST_OFFSETS, FakeBroker
from tests.fakes.daemon import a_run_on
from tests.unit.delivery.engines import Bench, a_route, an_engine_on
from tests.unit.delivery.source import KEY, MemorySource, a_chunk
from tests.unit.delivery.waiting import rounds, until


class AskedSource:
    """Counts questions for end offsets, and answers each."""

    def __init__(self) -> None:
        self.asked = 0

    async def end_offsets(self, keys: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked += 1
        return dict.fromkeys(keys, 100)


async def questions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often the end of a partition that was just measured is asked for within some looks."""
    monkeypatch.setattr(measuring, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "FLOWING_SECONDS", 0.0)
    source: Any = AskedSource()
    bench.engine.partitions[KEY].lag.ends_at(100, 0, time.monotonic(), time.time())
    asking = asyncio.create_task(Measuring(source, bench.engine).ask_forever())
    await rounds()
    asking.cancel()
    return int(source.asked)


async def test_a_call_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a record is worked on, the end is asked for again and again: nothing else carries it."""
    source = MemorySource()
    source.give(a_chunk(0, 2))
    go = asyncio.Event()

    async def handle(_event: bytes) -> None:
        await go.wait()

    async with an_engine_on(source, a_route(handle)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r0"].waiting)
        assert await questions(bench, monkeypatch) > 1
        go.set()


def halted(bench: Bench) -> None:
    bench.engine.halt_partition(bench.engine.partitions[KEY], HaltReason.NO_DEAD_LETTER, 0, "why", 1)


def paused(bench: Bench) -> None:
    assert bench.engine.partitions[KEY].pauses


@pytest.mark.parametrize("happens", [halted, paused])
async def test_a_partition_that_waits(monkeypatch: pytest.MonkeyPatch, happens: Callable[[Bench], None]) -> None:
    """A partition that is halted, or that pauses for a handler, is asked for no more often than an idle one."""
    source = MemorySource()
    source.give(a_chunk(0, 2))

    def handle(_event: bytes) -> None:
        raise Pause(after=60)

    async with an_engine_on(source, a_route(handle)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].pauses)
        happens(bench)
        await rounds()
        assert await questions(bench, monkeypatch) == 0


async def test_the_end_is_known_before_the_first_record_is_taken() -> None:
    """A first call that keeps the event loop hides no lag: its fetch carried the end, which is noted before."""
    asked: Any = AskedSource()
    async with an_engine_on(MemorySource(), a_route(print)) as bench:
        bench.engine.assign([KEY])
        asked.fetched_ends = lambda: {KEY: (100, time.monotonic())}
        Measuring(asked, bench.engine).note_first()
        assert bench.engine.partitions[KEY].lag.end_offset == 100


async def nothing_new(version: int, response: Any, request: Any) -> Any:
    """Answer a fetch without records: the log ends at the offset that it asks for."""
    await asyncio.sleep(0.02)
    rest: tuple[Any, ...] = (0, [], -1, b"") if version >= 11 else (0, [], b"")
    at = 2 if version >= 9 else 1  # behind the leader's epoch
    rows = [(topic, [(each[0], 0, each[at], each[at], *rest) for each in found]) for topic, found in request.topics]
    return response(0, 0, 0, rows) if version >= 7 else response(0, rows)


@pytest.mark.usefixtures("quick")
async def test_an_answer_without_records_has_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end offset is that of the last answer to a fetch, also without records, and no broker is asked for it."""
    monkeypatch.setattr(measuring, "MEASURE_SECONDS", 60.0)
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = nothing_new
        partitions = run.engine.partitions.values()
        await run.until(lambda: all(each.lag.end_offset == each.position for each in partitions))
        asked, first = broker.requests[LIST_OFFSETS], min(each.lag.measured_at for each in partitions)
        await run.until(lambda: min(each.lag.measured_at for each in partitions) > first + 0.5)
        assert broker.requests[LIST_OFFSETS] == asked


@pytest.mark.usefixtures("quick")
async def test_brokers_are_asked_where_no_fetch_is_answered() -> None:
    """While no answer to a fetch comes, brokers are asked for the ends, and they count as heard."""
    async with FakeBroker() as broker, a_run_on(broker) as run:

        async def late(*_: Any) -> None:
            await asyncio.sleep(0.5)

        broker.answers[FETCH] = late
        asked, heard_at = broker.requests[LIST_OFFSETS], run.source.heard_at
        await run.until(lambda: broker.requests[LIST_OFFSETS] > asked + 1)
        assert run.source.heard_at > heard_at
        broker.answers.clear()
        await run.consumes()
