"""Scans: topics read once from beginning to end, without a group, partition by partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiokafka

from consumer.errors import KafkaError
from consumer.kafka.client import open_reader, position_of
from consumer.kafka.codecs import limit_decompression
from consumer.kafka.failures import ClientError, described
from consumer.kafka.probe import answered, connected_admin
from consumer.record import RawRecord, TopicPartition
from consumer.settings.sections import Kafka

POLL_SECONDS = 0.5
SILENT_POLLS = 60


class Scan:
    """One scan of some topics; made by ``open_scan``."""

    def __init__(self, consumer: Any, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        self.ends = ends
        """End offsets by partition, at the isolation level of the settings."""
        self.total = sum(max(0, end - begins[key]) for key, end in ends.items())
        """Number of offsets to pass, with and without a record."""
        self.passed = 0
        self._consumer = consumer
        self._begins = begins

    async def records(self) -> AsyncIterator[tuple[TopicPartition, RawRecord]]:
        """Yield every record below the ends. Raises KafkaError if brokers do not answer or a batch cannot be read."""
        for key, end in self.ends.items():
            place, silent, passed = self._begins[key], 0, self.passed
            while place < end:
                records = await self._next(key, place)
                for record in records:
                    if record.offset < end:
                        yield key, record
                before, place = place, self._place(key)
                silent = silent + 1 if place == before else 0
                if silent > SILENT_POLLS:
                    raise KafkaError(f"no answer for {key} within {SILENT_POLLS * POLL_SECONDS:g} s")
                self.passed = passed + min(place, end) - self._begins[key]

    async def _next(self, key: TopicPartition, place: int) -> list[RawRecord]:
        partition = aiokafka.TopicPartition(*key)
        try:
            found = await self._consumer.getmany(partition, timeout_ms=int(POLL_SECONDS * 1000))
        except ClientError as error:
            raise KafkaError(f"reading {key} at offset {place} failed: {described(error)}") from error
        except Exception as error:
            raise KafkaError(
                f"{key} holds a batch, at offset {place} or soon after it, that cannot be read: {type(error).__name__};"
                " kafka-delete-records.sh can remove it, together with all records before it"
            ) from error
        return list(found.get(partition, ()))

    def _place(self, key: TopicPartition) -> int:
        return position_of(self._consumer, key) or self._begins[key]


@asynccontextmanager
async def open_scan(kafka: Kafka, only: Mapping[TopicPartition, int] | None = None) -> AsyncIterator[Scan]:
    """Connect a reader to all partitions of ``kafka.topics``, at their beginnings, and yield a Scan.

    ``only`` instead gives single partitions with their first offsets; partitions that do not exist are left out.
    Raises KafkaUnreachableError or KafkaError.
    """
    limit_decompression(kafka.max_batch_bytes)
    keys: Collection[aiokafka.TopicPartition]
    async with AsyncExitStack() as opened:
        async with connected_admin(kafka) as admin:
            topics = {each["topic"]: each["partitions"] for each in await answered(kafka, admin.describe_topics)}
        if only is None:
            keys = [aiokafka.TopicPartition(t, p["partition"]) for t in kafka.topics for p in topics.get(t, ())]
        else:
            there = {(t, p["partition"]) for t, partitions in topics.items() for p in partitions}
            keys = [aiokafka.TopicPartition(*key) for key in only if key in there]
        if not keys:  # aiokafka would end a reader that is stopped as soon as it is started with a CancelledError
            yield Scan(None, {}, {})
            return
        reader = await answered(kafka, lambda: opened.enter_async_context(open_reader(kafka)))
        begins = await answered(kafka, lambda: reader.beginning_offsets(keys))
        ends = await answered(kafka, lambda: reader.end_offsets(keys))
        reader.assign(keys)
        starts = {TopicPartition(*key): max(begins[key], (only or {}).get(TopicPartition(*key), 0)) for key in keys}
        for key, start in starts.items():
            reader.seek(aiokafka.TopicPartition(*key), start)
        yield Scan(reader, starts, {TopicPartition(*key): ends[key] for key in keys})
