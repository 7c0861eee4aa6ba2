"""A partition that goes on while slow ones drain may find its offset gone: no reset of it outlives the drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiokafka

from consumer.kafka.consumer_source import ConsumerSource
from consumer.kafka.drains import Drains
from consumer.kafka.positions import Positions
from consumer.observe.counters import Counters
from consumer.record import Record, TopicPartition
from consumer.settings.sections import Kafka
from tests.unit.delivery.engines import Bench, a_route, an_engine_on
from tests.unit.delivery.source import MemorySource, a_chunk
from tests.unit.delivery.waiting import rounds, until

SLOW, QUICK = TopicPartition("t", 0), TopicPartition("t", 1)
END = 1000


class Scene(NamedTuple):
    source: ConsumerSource
    bench: Bench
    memory: MemorySource
    positions: Positions
    committed: list[tuple[TopicPartition, int]]
    handled: list[tuple[int, int]]
    slow_call: asyncio.Event
    end_asked: asyncio.Event
    end_found: asyncio.Event


@asynccontextmanager
async def a_scene(spare: float) -> AsyncIterator[Scene]:
    handled: list[tuple[int, int]] = []
    slow_call, end_asked, end_found = asyncio.Event(), asyncio.Event(), asyncio.Event()
    committed: list[tuple[TopicPartition, int]] = []

    async def handle(_event: bytes, record: Record) -> None:
        if record.partition == SLOW.partition:
            await slow_call.wait()
        handled.append((record.partition, record.offset))

    async def end_offsets(partitions: list[aiokafka.TopicPartition]) -> dict[aiokafka.TopicPartition, int]:
        end_asked.set()
        await end_found.wait()
        return dict.fromkeys(partitions, END)

    async def commit(key: TopicPartition, offset: int) -> None:
        committed.append((key, offset))

    none = lambda *_: None  # noqa: E731
    consumer: Any = SimpleNamespace(pause=none, resume=none, seek=none, end_offsets=end_offsets)
    fetched: Any = SimpleNamespace(holds=lambda _key: False, forget=none)
    offsets: Any = SimpleNamespace(commit=commit, forget=none)
    in_place: Any = SimpleNamespace(hide=none, show=none, know=none, learn=none)
    memory = MemorySource()
    memory.give(a_chunk(0, 1), key=SLOW)
    async with an_engine_on(memory, a_route(handle)) as bench:
        drain = 5.0
        kafka = Kafka(
            topics=["t"],
            group_protocol="consumer",
            out_of_range="latest",
            rebalance_timeout_seconds=drain + 2 * 7.0 + spare,
        )
        source = ConsumerSource(kafka, Counters(["t"], []), bench.failures.append)
        source._listener = bench.engine
        source.drains = Drains(lambda key: 2.0 if key == SLOW else 0.0, drain)
        positions = Positions(kafka, consumer, fetched, bench.engine, source._counters, offsets)
        source._positions, source._fetch = positions, fetched
        parts: Any = SimpleNamespace(in_place=in_place)
        source._parts = parts
        bench.engine.assign([SLOW, QUICK])
        await until(lambda: bench.counters.routes["r0"].waiting == 1)  # the call of SLOW is under way
        yield Scene(source, bench, memory, positions, committed, handled, slow_call, end_asked, end_found)
        slow_call.set()
        end_found.set()
        await positions.stop()


async def drained_in_a_reset(scene: Scene) -> asyncio.Task[None]:
    """Let both go, and begin a reset of QUICK, whose end is found when the time that could be spared is over."""
    letting_go = asyncio.create_task(scene.source.let_go([SLOW, QUICK], lost=False))
    await rounds()
    scene.positions.gone(QUICK, 5)
    scene.positions.look()
    await scene.end_asked.wait()
    await until(lambda: QUICK not in scene.bench.engine.partitions)
    scene.end_found.set()
    await rounds()
    return letting_go


async def test_a_partition_that_comes_back_is_not_reset_for_an_offset_of_its_last_time() -> None:
    """With ``out_of_range`` = latest all records from its committed offset on are skipped, and the skip committed."""
    async with a_scene(spare=5.0) as scene:
        letting_go = asyncio.create_task(scene.source.let_go([SLOW, QUICK], lost=False))
        await rounds()
        scene.positions.gone(QUICK, 5)  # as ``wait`` does while QUICK goes on: the broker has deleted what is at 5
        scene.slow_call.set()
        await letting_go
        let_go = QUICK not in scene.bench.engine.partitions
        # The next owner has had it, has committed 700, and the group gives it back.
        scene.source.begin({QUICK: 700}, time.monotonic())
        scene.end_found.set()
        scene.positions.look()
        await rounds()
    assert let_go
    assert scene.committed == []  # the offset END would lose the records 700 to 999


async def test_a_reset_under_way_begins_no_partition_that_was_let_go() -> None:
    """A reset that began while QUICK went on would begin a new epoch of it after its last one was ended."""
    async with a_scene(spare=0.1) as scene:
        engine = scene.bench.engine
        letting_go = await drained_in_a_reset(scene)
        assert not letting_go.done()
        scene.memory.give(a_chunk(END, 3), key=QUICK)  # what the fetcher still reads: it is hidden at the end
        await rounds()
        await asyncio.sleep(0.05)
        scene.slow_call.set()
        await letting_go
        # Now it is acknowledged, and the next owner begins.
        found = (sorted(engine.partitions), [each for each in scene.handled if each[0] == QUICK.partition])
    assert found == ([], [])


async def test_the_stop_ends_after_such_a_reset() -> None:
    """The epoch that was begun for a partition that was let go is forgotten when the partition comes back."""
    async with asyncio.timeout(8):
        async with a_scene(spare=0.1) as scene:
            letting_go = await drained_in_a_reset(scene)
            scene.slow_call.set()
            await letting_go
            scene.source.begin({QUICK: 700}, time.monotonic())
            await rounds()
            # the block's end stops the engine, and waits for its tasks as the daemon does
