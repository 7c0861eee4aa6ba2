"""Producers of the daemon's own writes: idempotent, acknowledged by all replicas, and replaced after any failure."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from typing import Any

import aiokafka
from aiokafka import errors
from aiokafka.partitioner import DefaultPartitioner

from consumer.kafka.connection import connection_options
from consumer.kafka.dial import dial
from consumer.settings.sections import Kafka

CONNECT_SECONDS = 10.0
STOP_SECONDS = 3.0
CLOSE_SECONDS = 1.0
LARGEST = 2**31 - 1
PARTITIONER = DefaultPartitioner()
"""The one that aiokafka uses too: a key has one partition, however its records are sent."""


class _Client:
    """A connected producer and the number of its writes under way."""

    def __init__(self, producer: aiokafka.AIOKafkaProducer) -> None:
        self.producer = producer
        self.writes = 0
        self._stopping: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Return when it has stopped, however many wait for that and whichever of them are cancelled."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(stop(self.producer))
        await asyncio.shield(self._stopping)


class Producers:
    """Lends one producer after the other; connects at the first write, closed by its owner.

    After any error the next write gets another one: a batch that the broker refused leaves a gap in the sequence
    numbers of its partition, and the broker would refuse all that this producer sends there afterwards. A producer that
    is fenced, or whose sender has ended, is replaced in the same way.
    """

    def __init__(self, kafka: Kafka, **options: Any) -> None:
        """``options`` are those of aiokafka's producer, besides connection, idempotence and acknowledgements."""
        self._kafka = kafka
        self._options = options
        self._client: _Client | None = None
        self._clients: weakref.WeakSet[_Client] = weakref.WeakSet()
        """All that are still in use."""
        self._connecting = asyncio.Lock()

    @property
    def current(self) -> aiokafka.AIOKafkaProducer | None:
        """The producer that the next write gets; None if it will connect first."""
        return None if self._client is None else self._client.producer

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncIterator[aiokafka.AIOKafkaProducer]:
        """Lend the producer for one write. After an error the next write gets another, and the last one stops this."""
        client = self._client or await self._connected()
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
                await client.stop()

    async def discard(self, producer: aiokafka.AIOKafkaProducer, error: errors.KafkaError) -> None:
        """Stop a producer now: nothing is written by it afterwards, and its writes under way fail with ``error``."""
        client = next((each for each in self._clients if each.producer is producer), None)
        if client is None:
            return
        if self._client is client:
            self._client = None
        await client.stop()  # first, as its sender knows nothing of batches that others have ended
        producer._message_accumulator.fail_all(error)

    async def close(self) -> None:
        """Stop the producer; writes under way are given up."""
        if self._client is not None:
            await self._client.stop()

    async def _connected(self) -> _Client:
        async with self._connecting:
            if self._client is None:
                self._client = _Client(await self._connect())
                self._clients.add(self._client)
            return self._client

    async def _connect(self) -> aiokafka.AIOKafkaProducer:
        producer = aiokafka.AIOKafkaProducer(
            **connection_options(await dial(self._kafka)),
            enable_idempotence=True,
            acks="all",
            max_request_size=LARGEST,
            **self._options,
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await producer.start()
        except BaseException:
            await stop(producer)
            raise
        return producer


async def stop(producer: aiokafka.AIOKafkaProducer) -> None:
    """Stop a producer within a time limit; else it would wait for unreachable brokers to take its records."""
    with contextlib.suppress(Exception):  # whatever ended its sender: it is of no use any more
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()
            return
    for close in (producer._sender.close, producer.client.close):
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await close()
