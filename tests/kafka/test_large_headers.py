"""Records with large headers on a real Kafka: their outcome, and that other records and partitions go on."""

from __future__ import annotations

import json

import pytest
from aiokafka.admin import NewTopic

from consumer.kafka.plain_batch import MAX_HEADER_BYTES
from tests.chaos.failing import letters
from tests.cluster import Cluster, a_session, eventually

HEADERS = [("trace", b"x" * MAX_HEADER_BYTES), ("none", None)]


async def create(cluster: Cluster, largest_letter: int) -> None:
    """Create the topic with two partitions, and its dead-letter topic with a limit; send the record to partition 0."""
    await cluster.create(2)
    async with cluster.admin() as admin:
        config = {"max.message.bytes": str(largest_letter)}
        await admin.create_topics([NewTopic(f"{cluster.topic}.dlq", 1, 1, topic_configs=config)])
    async with cluster.producer(compression_type="gzip", max_batch_size=1 << 22) as producer:
        batch = producer.create_batch()
        for value, headers in ((a_session(1), []), (a_session(2), HEADERS), (a_session(3), [])):
            assert batch.append(timestamp=1, key=b"k", value=value, headers=headers) is not None
        await (await producer.send_batch(batch, cluster.topic, partition=0))
    await cluster.produce([a_session(4)] * 3, 1)


@pytest.mark.parametrize("path", ["raw", "plain"])
async def test_large_headers_become_a_dead_letter(cluster: Cluster, path: str) -> None:
    """The record with the large headers becomes a letter with all of them, and the others are handled."""
    await create(cluster, 1 << 22)
    async with cluster.run(f"kafka.fetch_path={path}") as daemon:
        await eventually(lambda: is_committed(cluster, {0: 3, 1: 3}))
        assert await daemon.metric("dead_letters_total", reason="too_large") == 1
        assert await daemon.metric("outcomes_total", outcome="handled") == 5
        assert await daemon.stop() == 0
    (letter,) = await letters(cluster)
    assert (letter.context.reason, letter.context.origin) == ("too_large", (cluster.topic, 0, 1))
    assert (letter.record.value, list(letter.record.headers)) == (a_session(2), HEADERS)


async def test_a_letter_with_large_headers_may_be_refused(cluster: Cluster) -> None:
    """A dead-letter topic that takes no letter of that size halts the record's partition, and no other."""
    await create(cluster, 1 << 20)
    async with cluster.run() as daemon:
        halt = json.loads(await daemon.said("partition_halted"))
        assert (halt["partition"], halt["offset"], halt["reason"]) == (0, 1, "no_dead_letter")
        await cluster.produce([a_session(5)], 1)
        await eventually(lambda: is_committed(cluster, {0: 1, 1: 4}))
        assert await daemon.stop() == 0


async def is_committed(cluster: Cluster, offsets: dict[int, int]) -> bool:
    return await cluster.committed() == offsets
