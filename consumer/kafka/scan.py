"""Read topics from beginning to end, outside of any group: what is there now, once, partition by partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiokafka

from consumer.errors import KafkaError
from consumer.kafka.client import ClientError, connection_options, described, position_of
from consumer.kafka.probe import answered, connected_admin
from consumer.record import TopicPartition
from consumer.settings import Kafka

POLL_SECONDS = 0.5
SILENT_POLLS = 60


class Scan:
    """One reading of some topics; made by ``open_scan``."""

    def __init__(self, consumer: Any, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        self.ends = ends
        """Where each partition ends, as a reader of the settings' isolation level sees it."""
        self.total = sum(max(0, end - begins[key]) for key, end in ends.items())
        """Offsets to go through, with and without a record."""
        self.passed = 0
        self._consumer = consumer
        self._begins = begins

    async def records(self) -> AsyncIterator[tuple[TopicPartition, Any]]:
        """Yield every record below the ends; raises KafkaError for silent brokers and for an unreadable batch."""
        left = {key for key, end in self.ends.items() if self._begins[key] < end}
        silent = 0
        while left:
            try:
                found = await self._consumer.getmany(
                    *(aiokafka.TopicPartition(*key) for key in left), timeout_ms=int(POLL_SECONDS * 1000)
                )
            except ClientError as error:
                raise KafkaError(f"reading {', '.join(map(str, sorted(left)))} failed: {described(error)}") from error
            except Exception as error:
                names = ", ".join(map(str, sorted(left)))
                raise KafkaError(f"one of {names} holds a batch that cannot be read: {type(error).__name__}") from error
            silent = 0 if found else silent + 1
            if silent > SILENT_POLLS:
                raise KafkaError(
                    f"no answer for {', '.join(map(str, sorted(left)))} within {SILENT_POLLS * POLL_SECONDS:g} s"
                )
            for partition, records in found.items():
                key = TopicPartition(*partition)
                for record in records:
                    if record.offset < self.ends[key]:
                        yield key, record
            places = {key: position_of(self._consumer, key) or self._begins[key] for key in self.ends}
            left = {key for key in left if places[key] < self.ends[key]}
            self.passed = sum(min(places[key], end) - self._begins[key] for key, end in self.ends.items())


@asynccontextmanager
async def open_scan(kafka: Kafka, only: Mapping[TopicPartition, int] | None = None) -> AsyncIterator[Scan]:
    """Connect a reader to all partitions of ``kafka.topics``, at their beginnings, and yield a Scan.

    ``only`` instead names single partitions and where to begin in each. Raises KafkaUnreachableError or KafkaError.
    """
    reader = aiokafka.AIOKafkaConsumer(
        **connection_options(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=kafka.isolation_level,
        max_partition_fetch_bytes=kafka.fetch_bytes,
    )
    keys: Collection[aiokafka.TopicPartition]
    try:
        async with connected_admin(kafka) as admin:
            topics = {each["topic"]: each["partitions"] for each in await answered(kafka, admin.describe_topics)}
        if only is None:
            keys = [aiokafka.TopicPartition(t, p["partition"]) for t in kafka.topics for p in topics.get(t, ())]
        else:
            keys = [aiokafka.TopicPartition(*key) for key in only]
        await answered(kafka, reader.start)
        begins = await answered(kafka, lambda: reader.beginning_offsets(keys)) if keys else {}
        ends = await answered(kafka, lambda: reader.end_offsets(keys)) if keys else {}
        reader.assign(keys)
        starts = {TopicPartition(*key): max(begins[key], (only or {}).get(TopicPartition(*key), 0)) for key in keys}
        for key, start in starts.items():
            reader.seek(aiokafka.TopicPartition(*key), start)
        yield Scan(reader, starts, {TopicPartition(*key): ends[key] for key in keys})
    finally:
        await reader.stop()
