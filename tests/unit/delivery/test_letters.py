"""Dead letters and batches beside what ends or pauses their partition."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from consumer import Pause, Record, Reject, Retry
from consumer.errors import LetterDelayedError
from consumer.record import TopicPartition
from consumer.settings.sections import RetrySettings
from tests.unit.delivery.batches import HOUR, a_batch_route
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.handlers import Letters, Scripted
from tests.unit.delivery.log_source import LogSource, is_at, keyed
from tests.unit.delivery.observer import NO_FUSE
from tests.unit.delivery.source import KEY, MemorySource, a_chunk
from tests.unit.delivery.waiting import rounds, until


class OneByOne(Letters):
    """Takes one letter after the other, each in some seconds."""

    def __init__(self, seconds: float, done: set[int] | None = None) -> None:
        super().__init__(done)
        self._seconds = seconds
        self._place = asyncio.Semaphore(1)

    async def write(self, key: Any, raw: Any, cause: Any) -> None:
        async with self._place:
            await asyncio.sleep(self._seconds)
            await super().write(key, raw, cause)


async def test_letters_that_kafka_takes_slowly_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for slow letters as long as Kafka goes on taking them: their records are done and not repeated."""
    monkeypatch.setattr("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.2)
    source = LogSource(keyed([None] * 20))
    handler = Scripted({offset: [Reject()] for offset in range(20)}, source.done)
    async with an_engine_on(
        source,
        a_route(handler.plain),
        letters=OneByOne(0.03, source.done),
        dead_letter=NO_FUSE,
        commit_interval_seconds=HOUR,
    ) as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        await until(lambda: partition.held)
        await bench.engine.revoke(lost=False)
        assert (source.committed, bench.counters.routes["r0"].abandoned) == (source.end, 0)


async def test_a_hold_has_no_gap_between_attempts() -> None:
    """A letter that cannot be written holds its partition from the first failure until it is written."""
    answers: list[Exception | None] = [LetterDelayedError("away")] * 5
    source = LogSource(keyed([None]))
    letters = Letters(source.done, answers)
    states: list[bool] = []
    write = letters.write

    async def noted(*arguments: Any) -> None:
        states.append(bool(bench.engine.partitions[KEY].held))
        await asyncio.sleep(0)
        await write(*arguments)

    letters.write = noted  # type: ignore[assignment, method-assign]
    async with an_engine_on(
        source,
        a_route(Scripted({0: [Reject()]}, source.done).plain),
        letters=letters,
        dead_letter=NO_FUSE,
        retry=RetrySettings(initial_seconds=0.001, maximum_seconds=0.002),
    ) as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        await until(lambda: source.committed == source.end)
        assert (states, partition.held) == ([False] + [True] * 5, [])


async def test_slow_letters_make_the_writer_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that is not acknowledged makes the writer look whether the topic is still there."""
    monkeypatch.setattr("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.05)
    source = LogSource(keyed([None]))
    letters = Letters(source.done)
    looked: list[bool] = []

    async def look() -> None:
        looked.append(True)
        letters.gate.set()

    letters.look = look  # type: ignore[method-assign]
    letters.gate.clear()
    async with an_engine_on(
        source, a_route(Scripted({0: [Reject()]}, source.done).plain), letters=letters, dead_letter=NO_FUSE
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert looked == [True]


async def test_letters_of_one_partition_wait_behind_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop gives up no letter while Kafka takes any: those of this partition may wait behind others."""
    monkeypatch.setattr("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.2)

    def handle(_event: bytes) -> None:
        raise Reject

    source, other = MemorySource(), TopicPartition("t", 1)
    async with an_engine_on(
        source, a_route(handle), letters=OneByOne(0.02), dead_letter=NO_FUSE, commit_interval_seconds=HOUR
    ) as bench:
        bench.engine.assign([KEY, other])
        for key, count in ((KEY, 50), (other, 5)):
            source.give(a_chunk(0, count), key=key)
            await until(partial(is_at, bench.engine.partitions[key], count))
        await bench.engine.revoke(lost=False)
        assert bench.counters.routes["r0"].abandoned == 0


async def test_a_look_at_the_moment_of_a_close_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter that waits for its next write is left to the gate when its partition closes."""
    monkeypatch.setattr("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.1)
    waits = asyncio.Event()

    class Down(Letters):
        async def write(self, key: Any, raw: Any, cause: Any) -> None:
            waits.set()
            raise LetterDelayedError("down")

    def handle(_event: bytes) -> None:
        raise Reject

    source = MemorySource()
    source.give(a_chunk(0, 1))
    retry = RetrySettings(attempts=1, initial_seconds=5.0, jitter=0.0)
    async with an_engine_on(source, a_route(handle), letters=Down(), dead_letter=NO_FUSE, retry=retry) as bench:
        bench.engine.assign([KEY])
        await waits.wait()
        await asyncio.sleep(0.15)
        (workers,) = bench.engine.workers
        loop = asyncio.get_running_loop()
        loop.call_soon(partial(workers.close, lost=False))
        loop.call_soon(workers.work.failure_handler._look)
        await rounds()
        assert bench.failures == []
        assert bench.counters.routes["r0"].abandoned == 1


async def test_a_halt_names_every_record_of_a_batch() -> None:
    """The way out of a halt names the records of a batch below it: none of them has an outcome."""

    def batch(_events: list[bytes]) -> None:
        raise Retry(after=3600)

    def single(_event: bytes, record: Record) -> None:
        if record.offset == 7:
            raise Reject

    source = MemorySource()
    source.give(a_chunk(0, 8))
    routes = a_batch_route(batch, "b", max_records=6), a_route(single, "s")
    async with an_engine_on(source, *routes, letters=None) as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        await until(lambda: partition.halt is not None and partition.halt.remedy.startswith("mend"))
        assert partition.halt is not None
        assert "0, 1, 2, 3, 4, 5, 6" in partition.halt.remedy


async def test_a_batch_that_waits_for_a_pause_is_no_call() -> None:
    """A batch whose call was not begun, because another record paused the partition, does not count as under way."""
    began: list[int] = []

    async def batch(_events: list[bytes]) -> None:
        began.append(1)

    def single(_event: bytes, record: Record) -> None:
        if record.offset == 3:
            raise Pause(after=3600)

    source = MemorySource()
    source.give(a_chunk(0, 4))
    async with an_engine_on(source, a_batch_route(batch, "b", max_records=4), a_route(single, "s")) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].pauses)
        await rounds()
        assert (began, bench.engine.workers[0].calls) == ([], [])
