"""Both fetch paths on offsets without records: deleted, compacted, aborted, or markers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiokafka
import msgspec
import pytest
from aiokafka.admin import NewTopic

from consumer.kafka.probe import group_offsets
from consumer.record import TopicPartition
from tests.cluster import Cluster, eventually
from tests.kafka.reader import (
    PATHS,
    Given,
    a_reader,
    commit_for_the_group,
    delete_below,
    produce_batch,
    produce_batches,
    some,
)


async def test_records_deleted_below(cluster: Cluster, path: str) -> None:
    """After deletion, also in the middle of a batch, the earliest record that is left comes first."""
    await cluster.create()
    records = some(0, 100)
    await produce_batches(cluster, records[:60], records[60:])
    await delete_below(cluster, 42)
    async with a_reader(cluster, path) as reader:
        await reader.take_until(100)
        assert reader.starts == [(0, 42)]
    assert reader.taken[0] == records[42:]


async def test_a_compacted_range(cluster: Cluster) -> None:
    """Compaction leaves gaps: the remaining records arrive, and the position passes the gaps."""
    configs = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    async with cluster.admin() as admin:
        await admin.create_topics([NewTopic(cluster.topic, 1, 1, topic_configs=configs)])
    keys = [b"%d" % (offset if offset % 10 == 0 else offset % 4) for offset in range(60)]
    records = [Given(offset, key, b"v%d" % offset, (), 1_700_000_000_000) for offset, key in enumerate(keys)]
    await produce_batches(cluster, records[:20], records[20:40], records[40:])
    kept = sorted({record.key: record for record in records}.values())
    end = len(records)

    async def compacted() -> bool:
        # The segment that is written to is never cleaned: a later record begins a new one, until the cleaner has come.
        nonlocal end
        end += 1
        await produce_batches(cluster, [Given(0, b"last", b"", (), 1_700_000_000_000 + end * 1000)])
        return await is_gone(cluster, 1)

    await eventually(compacted, seconds=90.0)
    for path in PATHS:
        cluster.kafka = msgspec.structs.replace(cluster.kafka, group_id=f"{cluster.topic}-{path}")
        async with a_reader(cluster, path) as reader:
            await reader.take_until(end)
        assert [record for record in reader.taken[0] if record.key != b"last"] == kept
        assert reader.offsets()[-1] == end - 1


async def is_gone(cluster: Cluster, offset: int) -> bool:
    """Tell whether reading from an offset finds a later one."""
    client = aiokafka.AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers)
    await client.start()
    try:
        key = aiokafka.TopicPartition(cluster.topic, 0)
        client.assign([key])
        client.seek(key, offset)
        return bool((await client.getone()).offset > offset)
    finally:
        await client.stop()


@asynccontextmanager
async def a_transaction_of(cluster: Cluster, name: str) -> AsyncIterator[aiokafka.AIOKafkaProducer]:
    async with cluster.producer(transactional_id=f"{cluster.topic}-{name}", max_batch_size=1 << 20) as producer:
        yield producer


async def marker_written(cluster: Cluster, offset: int) -> None:
    """Wait for a transaction's marker, which the coordinator writes after it has answered the producer."""
    kafka = msgspec.structs.replace(cluster.kafka, isolation_level="read_uncommitted")

    async def written() -> bool:
        ((_committed, end),) = (await group_offsets(kafka)).values()
        return end == offset + 1

    await eventually(written)


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_transactions(cluster: Cluster, path: str, isolation: str) -> None:
    """``read_committed`` shows committed records up to the first open transaction; ``read_uncommitted`` shows all.

    Two transactions overlap, one is aborted; markers and aborted batches move the position and are never seen.
    """
    await cluster.create()
    topic = cluster.topic
    async with (
        a_transaction_of(cluster, "a") as first,
        a_transaction_of(cluster, "b") as second,
        cluster.producer() as free,
    ):
        await first.begin_transaction()
        await second.begin_transaction()
        await produce_batch(first, topic, some(0, 10))
        await produce_batch(second, topic, some(10, 10))
        await produce_batch(free, topic, some(20, 5))
        await produce_batch(first, topic, some(25, 5))
        await second.abort_transaction()
        await marker_written(cluster, 30)
        await produce_batch(first, topic, some(31, 5))
        await first.commit_transaction()
        await marker_written(cluster, 36)
        await second.begin_transaction()
        await produce_batch(second, topic, some(37, 3))
        await second.commit_transaction()
        await marker_written(cluster, 40)
        await first.begin_transaction()
        await produce_batch(first, topic, some(41, 4))
        await produce_batch(free, topic, some(45, 5))
        aborted, committed = some(10, 10), [*some(0, 10), *some(20, 10), *some(31, 5), *some(37, 3)]
        async with a_reader(cluster, path, isolation_level=isolation) as reader:
            if isolation == "read_committed":
                await reader.take_until(41)
                for _ in range(3):
                    await reader.take()
                assert reader.position() == 41
                assert reader.taken[0] == committed
                await first.abort_transaction()
                await marker_written(cluster, 50)
                await reader.take_until(51)
                assert reader.taken[0] == [*committed, *some(45, 5)]
            else:
                await reader.take_until(50)
                assert reader.taken[0] == sorted([*committed, *aborted, *some(41, 9)])
                await first.abort_transaction()
                await reader.take_until(51)


async def test_markers_at_the_end_move_the_position(cluster: Cluster, path: str) -> None:
    """Behind the last record markers and aborted batches move the position to the end, to be committed."""
    await cluster.create()
    async with a_transaction_of(cluster, "a") as producer:
        await producer.begin_transaction()
        await produce_batch(producer, cluster.topic, some(0, 3))
        await producer.commit_transaction()
        await marker_written(cluster, 3)
        for at in range(4, 24, 5):
            await producer.begin_transaction()
            await produce_batch(producer, cluster.topic, some(at, 4))
            await producer.abort_transaction()
            await marker_written(cluster, at + 4)
        async with a_reader(cluster, path) as reader:
            await reader.take_until(24)
            assert reader.taken[0] == some(0, 3)
            key = TopicPartition(cluster.topic, 0)
            assert await reader.source.end_offsets([key]) == {key: 24}


async def test_a_start_inside_an_aborted_transaction(cluster: Cluster, path: str) -> None:
    """A group that starts inside an aborted transaction goes on behind it."""
    await cluster.create()
    async with a_transaction_of(cluster, "a") as producer:
        await producer.begin_transaction()
        await produce_batch(producer, cluster.topic, some(0, 10))
        await produce_batch(producer, cluster.topic, some(10, 10))
        await producer.abort_transaction()
        await marker_written(cluster, 20)
        await producer.begin_transaction()
        await produce_batch(producer, cluster.topic, some(21, 5))
        await producer.commit_transaction()
        await marker_written(cluster, 26)
    await commit_for_the_group(cluster, {0: 13})
    async with a_reader(cluster, path) as reader:
        await reader.take_until(27)
    assert reader.taken[0] == some(21, 5)
