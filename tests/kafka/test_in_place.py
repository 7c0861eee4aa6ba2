"""Partitions that are added and removed one by one while others are fetched: none is read twice, none left out."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import pytest

from consumer.kafka.client import make_consumer
from consumer.kafka.client_internals import ended_task, stop_consumer
from consumer.kafka.fetch_plain import PlainFetch
from consumer.kafka.fetch_raw import RawFetch
from consumer.kafka.in_place import InPlace
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka
from tests.cluster import Cluster, a_session

PARTITIONS, RECORDS = 4, 3000


@pytest.mark.parametrize("kind", [RawFetch, PlainFetch])
async def test_partitions_come_and_go(cluster: Cluster, kind: type[RawFetch | PlainFetch]) -> None:
    """Each partition is read from where it was left, through changes at random moments."""
    await cluster.create(PARTITIONS)
    for partition in range(PARTITIONS):
        await cluster.produce(map(a_session, range(RECORDS)), partition, linger_ms=1, max_batch_size=2000)
    chance = random.Random(7)
    kafka = Kafka(bootstrap_servers=cluster.kafka.bootstrap_servers, group_protocol="consumer", fetch_bytes=20_000)
    consumer = make_consumer(kafka, kind.fetches_per_partition)
    await consumer.start()
    try:
        in_place, fetch = InPlace(consumer), kind(consumer, defaultdict(int))
        consumer._client.set_topics([cluster.topic])
        keys = [TopicPartition(cluster.topic, each) for each in range(PARTITIONS)]
        position, shown, changes = dict.fromkeys(keys, 0), set[TopicPartition](), 0
        async with asyncio.timeout(60):
            while any(each < RECORDS for each in position.values()):
                if chance.random() < 0.3:
                    changes += 1
                    key = chance.choice(keys)
                    if key in shown:
                        shown.discard(key)
                        in_place.hide(key)
                        fetch.forget(key)
                        assert key not in in_place
                    else:
                        shown.add(key)
                        fetch.forget(key)
                        in_place.show(key, position[key])
                await fetch.wait(list(shown), 0.02)
                for key in shown:
                    while (chunk := fetch.take(key)) is not None:
                        assert chunk.first_offset == position[key]
                        offsets = [record.offset for record in chunk.records]
                        assert offsets == list(range(chunk.first_offset, chunk.next_offset))
                        position[key] = chunk.next_offset
        assert changes > 10
        assert ended_task(consumer) is None
    finally:
        await stop_consumer(consumer)
