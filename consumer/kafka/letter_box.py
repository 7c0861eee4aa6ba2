"""The letter box: writes dead letters to Kafka, idempotently, and acknowledged by all replicas."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import partial

import aiokafka
import structlog
from aiokafka import errors

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.letter import Letter, Writer
from consumer.errors import KafkaError, KafkaUnreachableError, LetterDelayedError, LetterRefusedError
from consumer.kafka.broker_errors import PERHAPS_ANOTHER, refusal_of
from consumer.kafka.client import usable_topics
from consumer.kafka.failures import REQUEST_ERRORS, ClientError, described
from consumer.kafka.probe import connected_admin
from consumer.kafka.producers import CONNECT_SECONDS, PARTITIONER, Producers
from consumer.record import RawRecord, TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")

WRITES = 250
"""Writes of one partition at once. aiokafka wakes every write that waits for a batch at each batch: with many, a letter
costs milliseconds."""
LINGER_MS = 5
"""Wait for other letters; a request costs as much as ten of them."""
BATCH_BYTES = 65_536
"""Fewer than any topic's limit is likely to be, as a batch over the limit is sent again letter by letter."""


class LetterBox:
    """Writes dead letters, each acknowledged before ``write`` returns; owned by the daemon, closed after its drain.

    It connects at the first letter. After any error the next letter gets a new producer.
    """

    def __init__(self, kafka: Kafka, writer: Writer) -> None:
        self._kafka = kafka
        self._writer = writer
        self._producers = Producers(kafka, linger_ms=LINGER_MS, max_batch_size=BATCH_BYTES)
        self._places: defaultdict[TopicPartition, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, WRITES))
        """Places of each partition: one whose letters are not taken blocks no other."""
        self._asking = asyncio.Lock()
        self._known: set[str] = set()

    async def write(self, key: TopicPartition, raw: RawRecord, cause: Cause) -> None:
        """Write one letter. It waits while the brokers are unreachable, so the caller may cancel it.

        Raises LetterRefusedError when a retry cannot succeed, LetterDelayedError when it may.
        """
        async with self._places[key]:
            await self.send(self._writer.letter(key, raw, cause))

    async def send(self, letter: Letter) -> None:
        """Write one record; raises the same errors as ``write``."""
        try:
            if letter.topic not in self._known:
                await self._require(letter.topic)
            try:
                await self._send(letter, alone=False)
            except PERHAPS_ANOTHER:
                await self._send(letter, alone=True)
        except (KafkaError, KafkaUnreachableError) as error:
            raise LetterDelayedError(str(error)) from error
        except (ClientError, OSError, TimeoutError) as error:
            self._known.discard(letter.topic)  # it may have been deleted
            if why := refusal_of(error):
                raise LetterRefusedError(f"topic {letter.topic!r} refuses it: {why} ({described(error)})") from error
            raise LetterDelayedError(described(error)) from error

    async def warn_of_missing(self, topics: Iterable[str]) -> None:
        """Log a warning for each dead-letter topic of these topics that does not exist."""
        for topic in await self._missing({self._writer.topic_for(topic) for topic in topics}):
            log.warning("dead_letter_topic_missing", topic=topic)

    async def look(self) -> None:
        """End the writes under way if the topic of one is gone; aiokafka would try that one for ever."""
        producer = self._producers.current
        if producer is None or self._asking.locked():
            return
        letters = producer._message_accumulator
        async with self._asking:
            topics = {batch.tp.topic for batch in letters._pending_batches} | {key.topic for key in letters._batches}
            missing = await self._missing(topics)
        if missing and self._producers.current is producer:
            self._known -= set(missing)
            await self._producers.discard(producer, errors.UnknownTopicOrPartitionError())

    async def _missing(self, topics: Collection[str]) -> list[str]:
        """Return those of some topics that do not exist; none when the brokers do not say within CONNECT_SECONDS."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS), connected_admin(self._kafka) as admin:
                return sorted(set(topics) - await usable_topics(admin))
        except REQUEST_ERRORS:
            return []

    async def close(self) -> None:
        """Close the client; writes under way are given up."""
        await self._producers.close()

    async def _require(self, topic: str) -> None:
        """Raise LetterRefusedError for a missing topic, which the client would wait for or create."""
        async with self._asking:
            if topic in self._known:
                return
            async with connected_admin(self._kafka) as admin:
                usable = await usable_topics(admin)
            if topic not in usable:
                raise LetterRefusedError(f"there is no topic {topic!r} for it that this client may use")
            self._known.add(topic)

    async def _send(self, letter: Letter, *, alone: bool) -> None:
        async with self._producers.lent() as producer:
            await _send(producer, letter, alone=alone)


async def _send(producer: aiokafka.AIOKafkaProducer, letter: Letter, *, alone: bool) -> None:
    """Send a letter and wait until Kafka acknowledges it; ``alone`` puts no other letter into its batch."""
    timestamp = letter.timestamp_ms
    # aiokafka refuses to send a record without key and value, which Kafka accepts; and in a batch it gives a record
    # without a timestamp, which is -1, that of another.
    if alone or timestamp < 0 or (letter.key is None and letter.value is None):
        batch = producer.create_batch()
        batch.append(timestamp=timestamp, key=letter.key, value=letter.value, headers=letter.headers)
        batch.close()  # else aiokafka appends others
        partitions = sorted(await producer.partitions_for(letter.topic))
        partition = PARTITIONER(letter.key, partitions, partitions)
        await asyncio.shield(await producer.send_batch(batch, letter.topic, partition=partition))
        return
    # A cancellation ends this letter's own future, which the client then passes over.
    await (await producer.send(letter.topic, letter.value, letter.key, timestamp_ms=timestamp, headers=letter.headers))
