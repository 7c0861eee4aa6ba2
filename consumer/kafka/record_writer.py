"""The record writer: writes records of handlers to other topics, in batches, each acknowledged or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import aiokafka
import msgspec
from aiokafka import errors

from consumer.errors import KafkaError, KafkaUnreachableError, SinkError
from consumer.instructions import Reject
from consumer.kafka.broker_errors import guilt_of, refusal_of
from consumer.kafka.failures import described
from consumer.kafka.probe import probe_topics
from consumer.kafka.producers import PARTITIONER, Producers
from consumer.record import NewRecord, TopicPartition
from consumer.routes.writing import why_circular
from consumer.settings.sections import Settings

WRITE_SECONDS = 15.0
"""Time for one call. aiokafka itself would wait for unreachable brokers for ever."""
BATCH_BYTES = 131_072

Outcome = Reject | SinkError | None


class _Written:
    """The records of one call, and what became of them."""

    def __init__(self, records: Sequence[NewRecord]) -> None:
        self.records = records
        late = SinkError(f"Kafka has not acknowledged the records within {WRITE_SECONDS:g} s")
        self.outcomes: list[Outcome] = [late] * len(records)

    def set(self, indexes: Iterable[int], outcome: Outcome) -> None:
        for index in indexes:
            self.outcomes[index] = outcome


class RecordWriter:
    """Writes the records of one handler; implements ``Writer``, connects at the first call.

    - A target partition gets one batch of a call after the other, so a failure lets no later record pass.
    - A call that ends early stops its producer first: no record of it is written behind those of the next call.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producers = Producers(settings.kafka, compression_type="lz4", max_batch_size=BATCH_BYTES)
        self._known: set[str] = set()
        self._largest: dict[str, int] = {}
        """Bytes of a batch that a topic takes, where that is less than BATCH_BYTES."""
        self._asking = asyncio.Lock()

    async def write(self, records: Sequence[NewRecord]) -> Sequence[Outcome]:
        """Write records, and return the outcome of each: see ``Writer``."""
        written = _Written(records)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                try:
                    placed = await self._placed(records)
                except Exception as error:
                    written.set(range(len(records)), _delayed(error))
                    return written.outcomes
                async with asyncio.TaskGroup() as group:
                    for place, indexes in placed.items():
                        group.create_task(self._write_in_order(place, indexes, written))
        except TimeoutError:
            self._known -= {each.topic for each in records}
        return written.outcomes

    async def close(self) -> None:
        """Stop the producer; what is under way is given up."""
        await self._producers.close()

    async def _placed(self, records: Sequence[NewRecord]) -> dict[TopicPartition, list[int]]:
        """Return the indexes of the records by their target partitions."""
        for topic in {each.topic for each in records} - self._known:
            await self._require(topic)
        placed: dict[TopicPartition, list[int]] = {}
        async with self._producers.lent() as producer:
            numbers = {each: sorted(await producer.partitions_for(each)) for each in {each.topic for each in records}}
        for index, each in enumerate(records):
            all_numbers = numbers[each.topic]
            if each.key is None:
                number = all_numbers[each.source % len(all_numbers)]
            else:
                number = PARTITIONER(each.key, all_numbers, all_numbers)
            placed.setdefault(TopicPartition(each.topic, number), []).append(index)
        return placed

    async def _require(self, topic: str) -> None:
        """Raise SinkError or KafkaError for a topic that is missing or consumed here; the client would create it."""
        async with self._asking:
            if topic in self._known:
                return
            if why := why_circular(topic, self._settings):
                raise SinkError(f"options.topic: {why}")
            kafka = msgspec.structs.replace(self._settings.kafka, topics=[topic])
            await probe_topics(kafka, "create it, or correct the option", "options.topic")
            self._known.add(topic)

    async def _write_in_order(self, place: TopicPartition, indexes: list[int], written: _Written) -> None:
        """Write the records of one partition, batch after batch, until one is not taken now.

        A batch that is refused for what may be the fault of one record is tried again in halves.
        """
        most, shared = len(indexes), len(indexes) == 1
        while indexes:
            batch: list[int] = []
            size = 0
            try:
                async with self._producers.lent() as producer:
                    if shared and _may_share(written.records[indexes[0]]):
                        batch = indexes
                        await self._until_taken(producer, _share(producer, place, written.records[indexes[0]]))
                    else:
                        builder, batch = self._filled(producer, place.topic, written.records, indexes[:most])
                        size = builder.size()
                        await self._until_taken(producer, _send(producer, place, builder))
            except Exception as error:
                code = guilt_of(error)
                if code is None:
                    self._known.discard(place.topic)  # it may have been deleted
                    written.set(indexes, _delayed(error, place.topic))
                    return
                if len(batch) == 1 and not shared:
                    written.set(batch, Reject(f"the topic refuses it: {described(error)}", code=code))
                    indexes = indexes[1:]
                if code == "too_large" and len(batch) > 1:
                    self._largest[place.topic] = size // 2
                most, shared = max(1, len(batch) // 2), False
            else:
                written.set(batch, None)
                indexes, most = indexes[len(batch) :], 2 * most

    def _filled(
        self, producer: aiokafka.AIOKafkaProducer, topic: str, records: Sequence[NewRecord], indexes: list[int]
    ) -> tuple[Any, list[int]]:
        """Return a batch with the first of these records, as many as it takes, and their indexes."""
        builder, largest = producer.create_batch(), self._largest.get(topic, BATCH_BYTES)
        for count, index in enumerate(indexes):
            each = records[index]
            if count and builder.size() >= largest:
                return builder, indexes[:count]
            timestamp, headers = each.timestamp_ms, list(each.headers)
            if builder.append(timestamp=timestamp, key=each.key, value=each.value, headers=headers) is None:
                return builder, indexes[:count]
            if timestamp < 0:  # as the first of a batch it would change the timestamps behind it
                return builder, indexes[: count + 1]
        return builder, indexes

    async def _until_taken(self, producer: aiokafka.AIOKafkaProducer, sent: Any) -> None:
        try:
            await (await sent)
        except asyncio.CancelledError:
            await self._producers.discard(producer, errors.ProducerClosed())
            raise


def _may_share(record: NewRecord) -> bool:
    """Whether aiokafka may put a record into a batch with those of other calls."""
    return record.timestamp_ms >= 0 and (record.key is not None or record.value is not None)


async def _share(producer: aiokafka.AIOKafkaProducer, place: TopicPartition, record: NewRecord) -> Any:
    return await producer.send(
        place.topic,
        record.value,
        record.key,
        partition=place.partition,
        timestamp_ms=record.timestamp_ms,
        headers=list(record.headers),
    )


async def _send(producer: aiokafka.AIOKafkaProducer, place: TopicPartition, builder: Any) -> Any:
    builder.close()  # else aiokafka appends others
    return await producer.send_batch(builder, place.topic, partition=place.partition)


def _delayed(error: Exception, topic: str = "") -> SinkError:
    """Return what to raise for a record that is not written now."""
    if isinstance(error, SinkError):
        return error
    if isinstance(error, KafkaError | KafkaUnreachableError):
        return SinkError(str(error))
    if why := refusal_of(error):
        return SinkError(f"options.topic: records cannot be written to {topic!r}: {why} ({described(error)})")
    return SinkError(f"records cannot be written{f' to {topic!r}' if topic else ''}: {described(error)}")
