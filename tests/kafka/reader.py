"""Records produced for a fetch path, and a reader that takes them as the engine does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiokafka
import msgspec
import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.codec import zstd_encode
from aiokafka.record.util import calc_crc32c

from consumer.errors import DecodeError
from consumer.kafka import fetch_raw
from consumer.kafka.client import make_consumer
from consumer.kafka.source import KafkaSource
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from tests.cluster import Cluster, eventually

PATHS = ("raw", "plain")
CODECS = (None, "gzip", "snappy", "lz4", "zstd")


class Given(NamedTuple):
    """One record as it was produced or as it arrived."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


def arrived(raw: Any) -> Given:
    return Given(raw.offset, raw.key, raw.value, tuple(raw.headers), raw.timestamp)


def some(first: int, count: int, size: int = 20) -> list[Given]:
    """Make records of every shape: with and without key, value and headers, with timestamps out of order."""
    return [
        Given(
            offset,
            (None, b"", b"key-%d" % (offset % 7))[offset % 3],
            None if offset % 11 == 10 else b"%d:" % offset + b"v" * size,
            (("trace", b"%d" % offset), ("trace", b""), ("empty", None))[: offset % 4],
            1_700_000_000_000 + (offset * 7919) % 1000,
        )
        for offset in range(first, first + count)
    ]


async def produce_batch(
    producer: aiokafka.AIOKafkaProducer, topic: str, records: Iterable[Given], partition: int = 0
) -> None:
    """Produce records to a partition as one batch."""
    batch = producer.create_batch()
    for each in records:
        added = batch.append(timestamp=each.timestamp, key=each.key, value=each.value, headers=list(each.headers))
        assert added is not None, "the batch is full"
    await (await producer.send_batch(batch, topic, partition=partition))


async def produce_batches(
    cluster: Cluster, *batches: Iterable[Given], partition: int = 0, codec: str | None = "lz4"
) -> None:
    async with cluster.producer(compression_type=codec, max_batch_size=1 << 20) as producer:
        for batch in batches:
            await produce_batch(producer, cluster.topic, batch, partition)


async def produce_with_a_bad_key(
    producer: aiokafka.AIOKafkaProducer, topic: str, records: Iterable[Given], bad: int, *, zstd: bool = False
) -> None:
    """Produce one batch in which the record at ``bad`` has a header key that is not UTF-8, which brokers accept.

    The producer must not be idempotent, or it would change the batch again, nor compress what is compressed here.
    """
    batch = producer.create_batch()
    for each in records:
        batch.append(timestamp=each.timestamp, key=each.key, value=each.value, headers=[("bad-key", b"")])
    built = bytearray(batch._build())
    built[built.index(b"bad-key", built.index(b"%d:v" % bad))] = 0xFF
    if zstd:
        built[61:] = zstd_encode(bytes(built[61:]))
        built[22] |= 4
        built[8:12] = (len(built) - 12).to_bytes(4, "big")
    built[17:21] = calc_crc32c(bytes(built[21:])).to_bytes(4, "big")
    batch._buffer = built
    await (await producer.send_batch(batch, topic, partition=0))


async def commit_for_the_group(cluster: Cluster, offsets: dict[int, int]) -> None:
    """Commit where the group goes on, as another member would."""
    client = make_consumer(cluster.kafka)
    await client.start()
    try:
        keys = [aiokafka.TopicPartition(cluster.topic, partition) for partition in offsets]
        client.assign(keys)
        await client.commit({key: offsets[key.partition] for key in keys})
    finally:
        await client.stop()


async def delete_below(cluster: Cluster, offset: int) -> None:
    async with cluster.admin() as admin:
        await admin.delete_records(
            {aiokafka.TopicPartition(cluster.topic, 0): RecordsToDelete(before_offset=offset)}, timeout_ms=10_000
        )


class Reader:
    """Takes from a source as the engine does, record by record, and commits its position on revoke.

    A chunk may be left half taken: its records are pulled one at a time, and it is kept until its last.
    """

    def __init__(self, cluster: Cluster, path: str, **kafka: Any) -> None:
        self.topic = cluster.topic
        self.kafka = msgspec.structs.replace(cluster.kafka, fetch_path=path, start_timeout_seconds=20.0, **kafka)
        self.counters = Counters([cluster.topic], [])
        self.failures: list[Exception] = []
        self.source = KafkaSource(self.kafka, self.counters, self.failures.append)
        self.taken: dict[int, list[Given]] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.starts: list[tuple[int, int]] = []
        """(partition, first offset) of each ownership."""
        self.owned: set[TopicPartition] = set()
        self.halts: list[tuple[int, HaltReason, int]] = []
        self.undecodable: list[DecodeError] = []
        self.epochs = 0
        self._chunks: dict[TopicPartition, Chunk] = {}

    def assign(self, keys: Collection[TopicPartition]) -> None:
        self.owned |= set(keys)
        self.epochs += 1

    async def revoke(self, keys: Collection[TopicPartition] | None = None, *, lost: bool) -> None:
        ended = list(self.positions) if keys is None else list(keys)
        done = {key: position for key, position in self.positions.items() if key in ended}
        if done and not lost:
            assert await self.source.commit(done) == "ok"
        for key in ended:
            self.owned.discard(key)
            self.positions.pop(key, None)
            self._chunks.pop(key, None)

    def doubt(self, *, doubtful: bool) -> None: ...

    def settles(self, key: TopicPartition) -> bool:
        return key not in self._chunks

    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None:
        self.halts.append((key.partition, reason, offset))
        self.owned.discard(key)

    def position(self, partition: int = 0) -> int | None:
        return self.positions.get(TopicPartition(self.topic, partition))

    def offsets(self, partition: int = 0) -> list[int]:
        return [record.offset for record in self.taken.get(partition, ())]

    async def take(self, *partitions: int, records: int = 1_000_000) -> None:
        """Wait for the named partitions, or for all, and take up to ``records`` records of each."""
        wanted = [key for key in sorted(self.owned) if not partitions or key.partition in partitions]
        if any(key not in self._chunks for key in wanted):
            await self.source.wait([key for key in wanted if key not in self._chunks], 0.2)
        for key in wanted:
            left = records
            while left and key in self.owned and (chunk := self._chunks.get(key) or self._next(key)):
                left = self._pull(key, chunk, left)

    def _next(self, key: TopicPartition) -> Chunk | None:
        chunk = self.source.take(key)
        if chunk is None:
            return None
        if key not in self.positions:
            self.positions[key] = chunk.first_offset
            self.starts.append((key.partition, chunk.first_offset))
        assert self.positions[key] <= chunk.first_offset <= chunk.next_offset
        self._chunks[key] = chunk
        return chunk

    def _pull(self, key: TopicPartition, chunk: Chunk, left: int) -> int:
        while left:
            try:
                raw = next(chunk.records, None)
            except Exception as error:
                chunk = self._chunks[key] = self.source.salvage(key, self.positions[key], error)
                continue
            if raw is None:
                del self._chunks[key]
                self.positions[key] = chunk.next_offset
                break
            assert self.positions[key] <= raw.offset < chunk.next_offset
            self.positions[key] = raw.offset + 1
            try:
                self.taken.setdefault(key.partition, []).append(arrived(raw))
            except DecodeError as error:
                self.undecodable.append(error)
            left -= 1
        return left

    async def take_until(self, position: int, partition: int = 0) -> None:
        async def reached() -> bool:
            await self.take(partition)
            return self.position(partition) == position

        await eventually(reached)


@asynccontextmanager
async def a_reader(cluster: Cluster, path: str, **kafka: Any) -> AsyncIterator[Reader]:
    reader = Reader(cluster, path, **kafka)
    await reader.source.start(reader)
    try:
        yield reader
    finally:
        await reader.source.stop()
    assert reader.failures == []


class Flipped:
    """A compiled batch whose checksum does not fit."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        return False


def flip(monkeypatch: pytest.MonkeyPatch, partition: int, offset: int) -> None:
    """Make the raw path find a wrong checksum in the batch at an offset of one partition."""
    init = fetch_raw._Fetch.__init__

    def flipping(self: Any, records: Any) -> None:
        init(self, records)
        if records._tp.partition == partition:
            for index, batch in enumerate(self.batches):
                if batch.base_offset == offset:
                    self.batches[index] = Flipped(batch)

    monkeypatch.setattr(fetch_raw._Fetch, "__init__", flipping)
