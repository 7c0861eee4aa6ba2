"""The letter box: writes dead letters to Kafka, idempotently, and acknowledged by all replicas."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiokafka
from aiokafka import errors

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.letter import Letter, Writer
from consumer.errors import ConsumerError, KafkaUnreachableError, LetterDelayedError, LetterRefusedError
from consumer.kafka.client import ClientError, connection_options, described
from consumer.kafka.probe import connected_admin
from consumer.record import RawRecord, TopicPartition
from consumer.settings.sections import Kafka

CONNECT_SECONDS = 10.0
STOP_SECONDS = 3.0
LARGEST = 2**31 - 1
REFUSALS = (
    errors.TopicAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTopicError,
    errors.InvalidTimestampError,
    errors.PolicyViolationError,
    errors.UnsupportedForMessageFormatError,
)
"""Errors that a retry does not change."""


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
        self._asking = asyncio.Lock()
        self._known: set[str] = set()

    async def write(self, key: TopicPartition, raw: RawRecord, cause: Cause) -> None:
        """Write one letter. It waits while the brokers are unreachable, so the caller may cancel it.

        Raises LetterRefusedError when a retry cannot succeed, LetterDelayedError when it may.
        """
        await self.send(self._writer.letter(key, raw, cause))

    async def send(self, letter: Letter) -> None:
        """Write one record; raises the same errors as ``write``."""
        try:
            await self._require(letter.topic)
            async with self._connected() as producer:
                await _send(producer, letter)
        except KafkaUnreachableError as error:
            raise LetterDelayedError(str(error)) from error
        except (ClientError, OSError, TimeoutError) as error:
            self._known.discard(letter.topic)  # it may have been deleted
            why = f"topic {letter.topic!r} does not accept it: {described(error)}"
            for each in (error, error.__cause__):
                if isinstance(each, REFUSALS):
                    raise LetterRefusedError(why) from error
            raise LetterDelayedError(described(error)) from error

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
                found = {each["topic"] for each in await admin.describe_topics() if not each["error_code"]}
            if topic not in found:
                raise LetterRefusedError(f"there is no topic {topic!r} for it that this client may use")
            self._known.add(topic)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiokafka.AIOKafkaProducer]:
        async with self._connecting:
            if self._client is None:
                self._client = _Client(await self._connect())
            client = self._client
        client.writes += 1
        try:
            yield client.producer
        except Exception:
            if self._client is client:
                self._client = None
            raise
        finally:
            client.writes -= 1
            if self._client is not client and not client.writes:
                await _stop(client.producer)

    async def _connect(self) -> aiokafka.AIOKafkaProducer:
        producer = aiokafka.AIOKafkaProducer(
            **connection_options(self._kafka), enable_idempotence=True, acks="all", max_request_size=LARGEST
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await producer.start()
        except BaseException:
            await _stop(producer)
            raise
        return producer


async def _send(producer: aiokafka.AIOKafkaProducer, letter: Letter) -> None:
    timestamp = letter.timestamp_ms
    if letter.key is None and letter.value is None:  # `send` refuses such a record, Kafka accepts it
        batch = producer.create_batch()
        batch.append(timestamp=timestamp, key=None, value=None, headers=letter.headers)
        partition = random.choice(list(await producer.partitions_for(letter.topic)))  # noqa: S311
        sent = await producer.send_batch(batch, letter.topic, partition=partition)
    else:
        sent = await producer.send(
            letter.topic, letter.value, letter.key, timestamp_ms=timestamp, headers=letter.headers
        )
    # The future belongs to the batch, so other letters wait for it too.
    await asyncio.shield(sent)


async def _stop(producer: aiokafka.AIOKafkaProducer) -> None:
    """Stop a client within a time limit; else it would wait for unreachable brokers to take its records."""
    with contextlib.suppress(TimeoutError, ClientError, OSError, ConsumerError):
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()
            return
    with contextlib.suppress(TimeoutError, ClientError, OSError):
        async with asyncio.timeout(1.0):
            await producer._sender.close()
            await producer.client.close()
