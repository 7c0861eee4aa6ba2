"""End offsets are asked for often while records flow, and seldom while they do not."""

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
