"""Both fetch paths with the engine behind them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from consumer import Record
from consumer.delivery.decoding import Decoder
from consumer.delivery.engine import Engine
from consumer.delivery.pipeline import Pipeline, Pipelines
from consumer.kafka.source import KafkaSource
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.process.parts import make_engine
from consumer.record import TopicPartition
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from consumer.settings.sections import Delivery, Settings
from schemas.formats import Plain
from tests.cluster import Cluster, eventually
from tests.kafka.reader import flip, produce_batch, produce_batches, produce_with_a_bad_key, some
from tests.unit.delivery.engines import FakeLifecycle


class Handled:
    """A handler that sometimes yields, and notes its events."""

    def __init__(self) -> None:
        self.offsets: dict[int, list[int]] = {}
        self.by_key: dict[tuple[int, bytes | None], list[int]] = {}
        self.running: Counter[tuple[int, bytes | None]] = Counter()
        self.overlapped = False

    async def __call__(self, _event: Any, record: Record) -> None:
        lane = (record.partition, record.key)
        self.running[lane] += 1
        self.overlapped |= self.running[lane] > 1
        for _ in range(record.offset % 3):
            await asyncio.sleep(0)
        self.running[lane] -= 1
        self.offsets.setdefault(record.partition, []).append(record.offset)
        self.by_key.setdefault(lane, []).append(record.offset)


@asynccontextmanager
async def an_engine(cluster: Cluster, path: str, handler: Any, **delivery: Any) -> AsyncIterator[Engine]:
    counters, lifecycle = Counters([cluster.topic], ["r"]), FakeLifecycle()
    kafka = msgspec.structs.replace(cluster.kafka, fetch_path=path)
    source = KafkaSource(kafka, counters, lifecycle.fail)
    async with lifecycle.tasks as tasks:
        routes = [Route("r", None, bind_handler(handler, "test"), tombstones=True)]
        pipeline = Pipeline(Decoder(Plain(lambda value: value), 1 << 20), routes)
        settings = Settings(delivery=Delivery(**{"commit_interval_seconds": 0.05} | delivery))
        engine = make_engine(
            settings, source, Pipelines(routes, lambda _topic: pipeline), counters, lifecycle, None, lambda *_: ""
        )
        await source.start(engine)
        loops = [tasks.create_task(engine.poll_forever()), tasks.create_task(engine.commit_forever())]
        try:
            yield engine
            await engine.stop()
        finally:
            for loop in loops:
                loop.cancel()
            await source.stop()
    assert lifecycle.failures == []


@pytest.mark.parametrize("codec", [None, "lz4"])
@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_handlers_that_wait(cluster: Cluster, path: str, ordering: str, codec: str | None) -> None:
    """With waiting calls in every ordering each record is handled once, each key in order, and all is committed."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await produce_batches(cluster, *(some(at, 100) for at in range(0, 500, 100)), partition=partition, codec=codec)
    handled = Handled()
    async with an_engine(cluster, path, handled, ordering=ordering, concurrency=8):

        async def committed() -> bool:
            return await cluster.committed() == {0: 500, 1: 500}

        await eventually(committed)
    assert {partition: sorted(offsets) for partition, offsets in handled.offsets.items()} == {
        partition: list(range(500)) for partition in range(2)
    }
    if ordering != "unordered":
        assert not handled.overlapped
        assert all(offsets == sorted(offsets) for offsets in handled.by_key.values())


@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_a_wrong_checksum_halts_its_partition_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, ordering: str
) -> None:
    """A partition halts at a wrong checksum with all before it committed; the other one goes on to its end."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await produce_batches(cluster, some(0, 50), some(50, 50), partition=partition)
    flip(monkeypatch, partition=0, offset=50)
    handled = Handled()
    async with an_engine(cluster, "raw", handled, ordering=ordering) as engine:

        async def committed() -> bool:
            return await cluster.committed() == {0: 50, 1: 100}

        await eventually(committed)
        halt = engine.partitions[TopicPartition(cluster.topic, 0)].halt
        assert halt is not None
        assert (halt.reason, halt.offset) == (HaltReason.CORRUPT_BATCH, 50)
    assert sorted(handled.offsets[0]) == list(range(50))


@pytest.mark.parametrize("codec", [None, "lz4"])
async def test_a_header_that_is_not_text_halts_its_partition_alone(cluster: Cluster, codec: str | None) -> None:
    """Without dead letters a header key that is not UTF-8 halts its partition; the rest goes on."""
    await cluster.create(partitions=2)
    async with cluster.producer(compression_type=None, max_batch_size=1 << 20, enable_idempotence=False) as producer:
        for partition in range(2):
            await produce_batch(producer, cluster.topic, some(0, 10), partition)
        await produce_with_a_bad_key(producer, cluster.topic, some(10, 10), bad=13)
        await produce_batch(producer, cluster.topic, some(10, 10), partition=1)
    handled = Handled()
    async with an_engine(cluster, "raw", handled) as engine:

        async def committed() -> bool:
            return await cluster.committed() == {0: 13, 1: 20}

        await eventually(committed)
        halt = engine.partitions[TopicPartition(cluster.topic, 0)].halt
        assert halt is not None
        assert (halt.reason, halt.offset) == (HaltReason.NO_DEAD_LETTER, 13)
    assert handled.offsets == {0: list(range(13)), 1: list(range(20))}
