"""The producer of ``produce`` and ``demo``: records are written once, and acknowledged by all replicas."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiokafka
from aiokafka.admin import NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from consumer.errors import KafkaError, counted
from consumer.kafka.connection import connection_options
from consumer.kafka.dial import dial
from consumer.kafka.failures import ClientError, described, unreachable
from consumer.kafka.probe import connected_admin
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

OUTSTANDING = 20_000


class Outgoing(NamedTuple):
    """One record to be produced."""

    key: bytes | None
    value: bytes


async def create_topic(kafka: Kafka, topic: str, partitions: int) -> None:
    """Create a topic with up to three replicas, unless it exists. Raises KafkaError when that fails."""
    async with connected_admin(kafka) as admin:
        try:
            brokers = len((await admin.describe_cluster())["brokers"])
            answer: Any = await admin.create_topics([NewTopic(topic, partitions, min(3, brokers))])
        except ClientError as error:
            raise KafkaError(f"topic {topic!r} cannot be created: {described(error)}") from error
    for _name, code, *_message in answer.topic_errors:
        refused = for_code(code)
        if refused not in (NoError, TopicAlreadyExistsError):
            raise KafkaError(f"topic {topic!r} cannot be created: {refused.__name__}")


class Producer:
    """Sends records to one topic and notes those that every replica has; made by ``open_producer``."""

    def __init__(
        self, client: aiokafka.AIOKafkaProducer, topic: str, acknowledged: dict[TopicPartition, list[int]]
    ) -> None:
        self.acknowledged = acknowledged
        """Acknowledged offsets, by partition."""
        self._client = client
        self._topic = topic
        self._outstanding: deque[asyncio.Future[object]] = deque()

    async def send(self, record: Outgoing) -> None:
        """Send a record; waits only while OUTSTANDING records are not acknowledged."""
        try:
            self._outstanding.append(await self._client.send(self._topic, record.value, key=record.key))
        except ClientError as error:
            size = len(record.value)
            raise KafkaError(
                f"topic {self._topic!r}: a record of {counted(size, 'byte', '')}: {described(error)}"
            ) from error
        if len(self._outstanding) >= OUTSTANDING:
            await self._settle(OUTSTANDING // 2)

    async def send_all(self, records: AsyncIterable[Outgoing] | Iterable[Outgoing], rate: float = 0.0) -> None:
        """Send records, at most ``rate`` a second (0: no limit), and wait until all are acknowledged."""
        started, sent = time.monotonic(), 0
        async for record in _each(records):
            await self.send(record)
            sent += 1
            if rate and (ahead := sent / rate - (time.monotonic() - started)) > 0:
                await asyncio.sleep(ahead)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all records are acknowledged."""
        await self._settle(0)

    async def _settle(self, down_to: int) -> None:
        while len(self._outstanding) > down_to:
            try:
                done = await self._outstanding.popleft()
            except ClientError as error:
                raise KafkaError(f"topic {self._topic!r}: producing failed: {described(error)}") from error
            key = TopicPartition(done.topic, done.partition)  # type: ignore[attr-defined]
            self.acknowledged.setdefault(key, []).append(done.offset)  # type: ignore[attr-defined]


@asynccontextmanager
async def open_producer(
    kafka: Kafka, topic: str, acknowledged: dict[TopicPartition, list[int]] | None = None
) -> AsyncIterator[Producer]:
    """Connect a Producer for the block; ``acknowledged`` collects the acknowledged offsets.

    Raises KafkaUnreachableError when no broker answers in time.
    """
    client = aiokafka.AIOKafkaProducer(
        **connection_options(await dial(kafka)),
        enable_idempotence=True,
        acks="all",
        compression_type="lz4",
        linger_ms=5,
        max_batch_size=131_072,
    )
    try:
        try:
            async with asyncio.timeout(kafka.start_timeout_seconds):
                await client.start()
        except (ClientError, OSError, TimeoutError) as error:
            raise unreachable(kafka, error) from error
        yield Producer(client, topic, {} if acknowledged is None else acknowledged)
    finally:
        await client.stop()


async def _each(records: AsyncIterable[Outgoing] | Iterable[Outgoing]) -> AsyncIterator[Outgoing]:
    if isinstance(records, AsyncIterable):
        async for record in records:
            yield record
    else:
        for record in records:
            yield record
