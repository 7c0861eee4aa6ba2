"""The letter box: writes dead letters to Kafka, idempotently, and acknowledged by all replicas."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import partial

import aiokafka
import structlog
from aiokafka import errors
from aiokafka.partitioner import DefaultPartitioner

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.letter import Letter, Writer
from consumer.errors import KafkaError, KafkaUnreachableError, LetterDelayedError, LetterRefusedError
from consumer.kafka.broker_errors import InvalidRecordError, refusal_of
from consumer.kafka.client import usable_topics
from consumer.kafka.connection import connection_options
from consumer.kafka.dial import dial
from consumer.kafka.failures import REQUEST_ERRORS, ClientError, described
from consumer.kafka.probe import connected_admin
from consumer.record import RawRecord, TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")

CONNECT_SECONDS = 10.0
STOP_SECONDS = 3.0
WRITES = 250
"""Writes of one partition at once. aiokafka wakes every write that waits for a batch at each batch: with many, a letter
costs milliseconds."""
LINGER_MS = 5
"""Wait for other letters; a request costs as much as ten of them."""
BATCH_BYTES = 65_536
"""Fewer than any topic's limit is likely to be, as a batch over the limit is sent again letter by letter."""
LARGEST = 2**31 - 1
PERHAPS_ANOTHER = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
    InvalidRecordError,
)
"""Errors of a batch that may be due to the others in it."""
PARTITIONER = DefaultPartitioner()
"""The one that aiokafka uses too: a key has one partition, however its letters are sent."""


class _Client:
    """A connected producer and the number of its writes under way."""

    def __init__(self, producer: aiokafka.AIOKafkaProducer) -> None:
        self.producer = producer
        self.writes = 0


class LetterBox:
    """Writes dead letters, each acknowledged before ``write`` returns; owned by the daemon, closed after its drain.

    It connects at the first letter. After any error the next letter gets a new client: a batch that the broker refused
    leaves a gap in the sequence numbers of its partition, and the broker would refuse all that this client sends there
    afterwards.
    """

    def __init__(self, kafka: Kafka, writer: Writer) -> None:
        self._kafka = kafka
        self._writer = writer
        self._client: _Client | None = None
        self._connecting = asyncio.Lock()
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
        client = self._client
        if client is None or self._asking.locked():
            return
        letters = client.producer._message_accumulator
        async with self._asking:
            topics = {batch.tp.topic for batch in letters._pending_batches} | {key.topic for key in letters._batches}
            missing = await self._missing(topics)
        if missing and self._client is client:
            self._known -= set(missing)
            self._client = None
            await _stop(client.producer)  # first, as its sender knows nothing of batches that others have ended
            letters.fail_all(errors.UnknownTopicOrPartitionError())

    async def _missing(self, topics: Collection[str]) -> list[str]:
        """Return those of some topics that do not exist; none when the brokers do not say within CONNECT_SECONDS."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS), connected_admin(self._kafka) as admin:
                return sorted(set(topics) - await usable_topics(admin))
        except REQUEST_ERRORS:
            return []

    async def close(self) -> None:
        """Close the client; writes under way are given up."""
        if self._client is not None:
            await _stop(self._client.producer)

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
        """Write with the current client; after an error the next letter gets another, and its last write stops it."""
        client = self._client or await self._connected()
        client.writes += 1
        try:
            await _send(client.producer, letter, alone=alone)
        except Exception:
            if self._client is client:
                self._client = None
            raise
        finally:
            client.writes -= 1
            if self._client is not client and not client.writes:
                await _stop(client.producer)

    async def _connected(self) -> _Client:
        async with self._connecting:
            if self._client is None:
                self._client = _Client(await self._connect())
            return self._client

    async def _connect(self) -> aiokafka.AIOKafkaProducer:
        producer = aiokafka.AIOKafkaProducer(
            **connection_options(await dial(self._kafka)),
            enable_idempotence=True,
            acks="all",
            linger_ms=LINGER_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=LARGEST,
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await producer.start()
        except BaseException:
            await _stop(producer)
            raise
        return producer


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


async def _stop(producer: aiokafka.AIOKafkaProducer) -> None:
    """Stop a client within a time limit; else it would wait for unreachable brokers to take its records."""
    with contextlib.suppress(Exception):  # whatever ended its sender: it is of no use any more
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()
            return
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1.0):
            await producer._sender.close()
            await producer.client.close()
