"""What is worked on counts as in flight, whatever the ordering; and its age is known before it is pulled."""

from __future__ import annotations

import asyncio
import time

import pytest

from consumer.instructions import Pause, Retry
from consumer.partition.chunk import Chunk
from consumer.partition.state import Partition
from consumer.record import Record
from tests.unit.delivery.engines import Bench, a_route, an_engine_on
from tests.unit.delivery.source import KEY, MemorySource, RawRecord, a_chunk
from tests.unit.delivery.waiting import until

ORDERINGS = ["partition", "key", "unordered"]
AN_HOUR_AGO = 3600.0


def the_partition(bench: Bench) -> Partition:
    return bench.engine.partitions[KEY]


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_an_awaited_call_is_in_flight(ordering: str) -> None:
    """A record counts while its call waits, with its bytes, and no more when it is done."""
    go = asyncio.Event()

    async def handle(_event: bytes) -> None:
        await go.wait()

    source = MemorySource()
    source.give(a_chunk(0, 1))
    async with an_engine_on(source, a_route(handle), ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r0"].waiting)
        assert the_partition(bench).in_flight == (1, len(b"x"))
        go.set()
        await until(lambda: source.commits)
        assert the_partition(bench).in_flight == (0, 0)


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_an_inline_call_is_in_flight(ordering: str) -> None:
    """A record counts while its call keeps the event loop, which another thread may see."""
    seen: list[int] = []
    source = MemorySource()
    source.give(a_chunk(0, 3))

    def handle(_event: bytes) -> None:
        seen.append(the_partition(bench).in_flight[0])

    async with an_engine_on(source, a_route(handle), ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.commits)
        assert (seen, the_partition(bench).in_flight) == ([1, 1, 1], (0, 0))


@pytest.mark.parametrize("instruction", [Retry(after=60), Pause(after=60)])
@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_record_that_waits_is_in_flight(ordering: str, instruction: Exception) -> None:
    """A record counts while it waits for its retry or for the end of its pause."""

    def handle(_event: bytes, record: Record) -> None:
        if record.offset == 1:
            raise instruction

    source = MemorySource()
    source.give(a_chunk(0, 2))
    async with an_engine_on(source, a_route(handle), ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: the_partition(bench).holds)
        await asyncio.sleep(0)
        assert the_partition(bench).in_flight == (1, len(b"x"))


@pytest.mark.parametrize("timestamp", [True, False])
async def test_the_first_record_has_an_age_while_it_keeps_the_loop(timestamp: bool) -> None:
    """The clock of the oldest record runs from its timestamp, or its delivery, though its first call has not ended."""
    ages: list[float | None] = []
    records = [RawRecord(0, b"x"), RawRecord(1, b"x")]
    created = int((time.time() - AN_HOUR_AGO) * 1000)  # down: a record is not younger than an hour
    source = MemorySource()
    source.give(Chunk(0, iter(records), 2, lambda: records, timestamp=created if timestamp else None))

    def handle(_event: bytes, record: Record) -> None:
        if record.offset == 0:
            partition = the_partition(bench)
            partition.lag.ends_at(2, partition.known_committed, time.monotonic(), time.time())
            ages.append(partition.lag_seconds(time.time() + 5.0))

    async with an_engine_on(source, a_route(handle)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: ages)
    age = ages[0]
    assert age is not None
    assert age >= 5.0 + (AN_HOUR_AGO if timestamp else 0.0)
