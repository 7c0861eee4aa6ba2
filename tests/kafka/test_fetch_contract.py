"""What both fetch paths promise, on real Kafka: what is taken is what was produced, from where the group was, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiokafka
import msgspec
import pytest
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.codec import zstd_encode
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.util import calc_crc32c
from structlog.testing import capture_logs

from consumer import Record
from consumer.delivery.decoding import Decoder
from consumer.delivery.engine import Engine
from consumer.errors import BatchTooLargeError, CorruptBatchError, DecodeError, KafkaError
from consumer.kafka import fetch_raw
from consumer.kafka.client import make_consumer
from consumer.kafka.fetch_plain import PlainFetch
from consumer.kafka.fetch_raw import RawFetch, supported
from consumer.kafka.probe import group_offsets
from consumer.kafka.source import KafkaSource
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from consumer.settings.sections import Delivery
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


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """Which of the two paths the source takes."""
    return str(request.param)


# -- producing ---------------------------------------------------------------------------------------------------------


def some(first: int, count: int, size: int = 20) -> list[Given]:
    """Records of every shape: with and without key, value and headers, with timestamps out of order."""
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
    """Put records on a partition as one batch."""
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
    """Put records on partition 0 as one batch; brokers let pass that the header key of the one at ``bad`` is no UTF-8.

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
    """Say where the group goes on, as another member would have."""
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


# -- taking ------------------------------------------------------------------------------------------------------------


class Reader:
    """Takes from a source as the engine would, record by record, and commits at a revoke where it is.

    A chunk may be left half taken: its records are pulled one at a time and it is kept until its last.
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
        self.owned = set(keys)
        self.epochs += 1

    async def revoke(self, *, lost: bool) -> None:
        if self.positions and not lost:
            assert await self.source.commit(self.positions) == "ok"
        self.owned.clear()
        self.positions.clear()
        self._chunks.clear()

    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None:
        self.halts.append((key.partition, reason, offset))
        self.owned.discard(key)

    def position(self, partition: int = 0) -> int | None:
        return self.positions.get(TopicPartition(self.topic, partition))

    def offsets(self, partition: int = 0) -> list[int]:
        return [record.offset for record in self.taken.get(partition, ())]

    async def take(self, *partitions: int, records: int = 1_000_000) -> None:
        """Wait for the named partitions (all when none is), and take up to so many records of each."""
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


# -- what arrives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
async def test_what_is_taken_is_what_was_produced(cluster: Cluster, path: str, codec: str | None) -> None:
    """Offset, key, value, headers and timestamp arrive byte for byte, each record once, whatever the codec."""
    await cluster.create()
    records = some(0, 900, size=60)
    await produce_batches(cluster, records[:1], records[1:700], records[700:], codec=codec)
    async with a_reader(cluster, path) as reader:
        await reader.take_until(900)
    assert reader.taken[0] == records
    assert reader.counters.bytes_consumed[cluster.topic] > 0


@pytest.mark.parametrize("codec", [None, "zstd"])
@pytest.mark.parametrize("start", [0, 1, 499, 500, 777, 999])
async def test_a_start_in_the_middle_of_a_batch(cluster: Cluster, path: str, codec: str | None, start: int) -> None:
    """Where the group has committed is where it goes on, though the broker sends whole batches."""
    await cluster.create()
    records = some(0, 1000)
    await produce_batches(cluster, records[:500], records[500:], codec=codec)
    await commit_for_the_group(cluster, {0: start})
    async with a_reader(cluster, path) as reader:
        await reader.take_until(1000)
        assert reader.starts == [(0, start)]
    assert reader.taken[0] == records[start:]


async def test_a_batch_larger_than_a_fetch_arrives(cluster: Cluster, path: str) -> None:
    """A batch over ``fetch_bytes`` still comes, whole; and many fetches in a row lose nothing between them."""
    await cluster.create()
    records = some(0, 3000, size=100)
    await produce_batches(cluster, *(records[at : at + 300] for at in range(0, 3000, 300)), codec=None)
    async with a_reader(cluster, path, fetch_bytes=4096) as reader:
        await reader.take_until(3000)
    assert reader.taken[0] == records


async def test_a_chunk_is_pulled_in_several_goes(cluster: Cluster, path: str) -> None:
    """Who pulls may stop anywhere, and another goes on in a loop of its own where the first stopped."""
    await cluster.create()
    await produce_batches(cluster, some(0, 100))
    taken: list[int] = []
    async with a_reader(cluster, path) as reader:
        key = TopicPartition(cluster.topic, 0)

        async def a_chunk() -> Chunk | None:
            await reader.source.wait([key], 0.2)
            while (chunk := reader.source.take(key)) and chunk.next_offset == chunk.first_offset:
                pass
            return chunk

        chunk = await eventually(a_chunk)
        for limit in (1, 2, 30, 100):
            for raw in chunk.records:
                taken.append(raw.offset)
                if len(taken) >= limit:
                    break
        assert taken == list(range(100))
        assert list(chunk.records) == []


# -- offsets without records -------------------------------------------------------------------------------------------


async def test_records_deleted_below(cluster: Cluster, path: str) -> None:
    """Where the beginning was deleted, in the middle of a batch too, the earliest that is left comes first."""
    await cluster.create()
    records = some(0, 100)
    await produce_batches(cluster, records[:60], records[60:])
    await delete_below(cluster, 42)
    async with a_reader(cluster, path) as reader:
        await reader.take_until(100)
        assert reader.starts == [(0, 42)]
    assert reader.taken[0] == records[42:]


async def test_a_compacted_range(cluster: Cluster) -> None:
    """Compaction leaves gaps between and within batches: what is left arrives, and the position passes what is gone."""
    configs = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    async with cluster.admin() as admin:
        await admin.create_topics([NewTopic(cluster.topic, 1, 1, topic_configs=configs)])
    keys = [b"%d" % (offset if offset % 10 == 0 else offset % 4) for offset in range(60)]
    records = [Given(offset, key, b"v%d" % offset, (), 1_700_000_000_000) for offset, key in enumerate(keys)]
    await produce_batches(cluster, records[:20], records[20:40], records[40:])
    kept = sorted({record.key: record for record in records}.values())
    end = len(records)

    async def compacted() -> bool:
        # The segment that is written to is never cleaned: a later record begins a new one, until the cleaner has come.
        nonlocal end
        end += 1
        await produce_batches(cluster, [Given(0, b"last", b"", (), 1_700_000_000_000 + end * 1000)])
        return await is_gone(cluster, 1)

    await eventually(compacted, seconds=90.0)
    for path in PATHS:
        cluster.kafka = msgspec.structs.replace(cluster.kafka, group_id=f"{cluster.topic}-{path}")
        async with a_reader(cluster, path) as reader:
            await reader.take_until(end)
        assert [record for record in reader.taken[0] if record.key != b"last"] == kept
        assert reader.offsets()[-1] == end - 1


async def is_gone(cluster: Cluster, offset: int) -> bool:
    """Whether reading from an offset finds a later one."""
    client = aiokafka.AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers)
    await client.start()
    try:
        key = aiokafka.TopicPartition(cluster.topic, 0)
        client.assign([key])
        client.seek(key, offset)
        return bool((await client.getone()).offset > offset)
    finally:
        await client.stop()


@asynccontextmanager
async def a_transaction_of(cluster: Cluster, name: str) -> AsyncIterator[aiokafka.AIOKafkaProducer]:
    async with cluster.producer(transactional_id=f"{cluster.topic}-{name}", max_batch_size=1 << 20) as producer:
        yield producer


async def marker_written(cluster: Cluster, offset: int) -> None:
    """Wait for a transaction's marker: the coordinator writes it after it has answered the producer."""
    kafka = msgspec.structs.replace(cluster.kafka, isolation_level="read_uncommitted")

    async def written() -> bool:
        ((_committed, end),) = (await group_offsets(kafka)).values()
        return end == offset + 1

    await eventually(written)


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_transactions(cluster: Cluster, path: str, isolation: str) -> None:
    """Committed alone (or all, uncommitted) records are shown; an open transaction ends what read_committed may read.

    Two transactions overlap, one is aborted; markers and aborted batches move the position and are never seen.
    """
    await cluster.create()
    topic = cluster.topic
    async with (
        a_transaction_of(cluster, "a") as first,
        a_transaction_of(cluster, "b") as second,
        cluster.producer() as free,
    ):
        await first.begin_transaction()
        await second.begin_transaction()
        await produce_batch(first, topic, some(0, 10))
        await produce_batch(second, topic, some(10, 10))
        await produce_batch(free, topic, some(20, 5))
        await produce_batch(first, topic, some(25, 5))
        await second.abort_transaction()
        await marker_written(cluster, 30)
        await produce_batch(first, topic, some(31, 5))
        await first.commit_transaction()
        await marker_written(cluster, 36)
        await second.begin_transaction()
        await produce_batch(second, topic, some(37, 3))
        await second.commit_transaction()
        await marker_written(cluster, 40)
        await first.begin_transaction()
        await produce_batch(first, topic, some(41, 4))
        await produce_batch(free, topic, some(45, 5))
        aborted, committed = some(10, 10), [*some(0, 10), *some(20, 10), *some(31, 5), *some(37, 3)]
        async with a_reader(cluster, path, isolation_level=isolation) as reader:
            if isolation == "read_committed":
                await reader.take_until(41)
                for _ in range(3):
                    await reader.take()
                assert reader.position() == 41
                assert reader.taken[0] == committed
                await first.abort_transaction()
                await marker_written(cluster, 50)
                await reader.take_until(51)
                assert reader.taken[0] == [*committed, *some(45, 5)]
            else:
                await reader.take_until(50)
                assert reader.taken[0] == sorted([*committed, *aborted, *some(41, 9)])
                await first.abort_transaction()
                await reader.take_until(51)


async def test_markers_at_the_end_move_the_position(cluster: Cluster, path: str) -> None:
    """Behind the last record lie only markers and aborted batches: the position reaches the end, to be committed."""
    await cluster.create()
    async with a_transaction_of(cluster, "a") as producer:
        await producer.begin_transaction()
        await produce_batch(producer, cluster.topic, some(0, 3))
        await producer.commit_transaction()
        await marker_written(cluster, 3)
        for at in range(4, 24, 5):
            await producer.begin_transaction()
            await produce_batch(producer, cluster.topic, some(at, 4))
            await producer.abort_transaction()
            await marker_written(cluster, at + 4)
        async with a_reader(cluster, path) as reader:
            await reader.take_until(24)
            assert reader.taken[0] == some(0, 3)
            key = TopicPartition(cluster.topic, 0)
            assert await reader.source.end_offsets([key]) == {key: 24}


async def test_a_start_inside_an_aborted_transaction(cluster: Cluster, path: str) -> None:
    """Committed into the middle of an aborted transaction, the group goes on behind it and sees nothing of it."""
    await cluster.create()
    async with a_transaction_of(cluster, "a") as producer:
        await producer.begin_transaction()
        await produce_batch(producer, cluster.topic, some(0, 10))
        await produce_batch(producer, cluster.topic, some(10, 10))
        await producer.abort_transaction()
        await marker_written(cluster, 20)
        await producer.begin_transaction()
        await produce_batch(producer, cluster.topic, some(21, 5))
        await producer.commit_transaction()
        await marker_written(cluster, 26)
    await commit_for_the_group(cluster, {0: 13})
    async with a_reader(cluster, path) as reader:
        await reader.take_until(27)
    assert reader.taken[0] == some(21, 5)


# -- where it starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "start"), [("earliest", 0), ("latest", 30)])
async def test_a_group_without_an_offset(cluster: Cluster, path: str, rule: str, start: int) -> None:
    """The first position is what ``offset_reset`` says, and it is committed before the first record."""
    await cluster.create()
    await produce_batches(cluster, some(0, 30))
    async with a_reader(cluster, path, offset_reset=rule) as reader:
        await reader.take_until(30)
        assert await cluster.committed() == {0: start}
        await produce_batches(cluster, some(30, 5))
        await reader.take_until(35)
    assert reader.taken[0] == some(0, 35)[start:]


@pytest.mark.parametrize(("rule", "start"), [("earliest", 40), ("latest", 50), ("halt", None)])
async def test_an_offset_that_is_gone(cluster: Cluster, path: str, rule: str, start: int | None) -> None:
    """At an offset that the broker deleted the source does what ``out_of_range`` says: go on, or halt."""
    await cluster.create(partitions=2)
    await produce_batches(cluster, some(0, 50))
    await produce_batches(cluster, some(0, 20), partition=1)
    await commit_for_the_group(cluster, {0: 5, 1: 0})
    await delete_below(cluster, 40)
    async with a_reader(cluster, path, out_of_range=rule) as reader:
        if start is None:

            async def halted() -> bool:
                await reader.take()
                return bool(reader.halts)

            await eventually(halted)
            assert reader.halts == [(0, HaltReason.OUT_OF_RANGE, 5)]
        else:
            await reader.take_until(50)
            assert reader.taken.get(0, []) == some(start, 50 - start)
        await reader.take_until(20, partition=1)
    assert reader.taken[1] == some(0, 20)


# -- partitions --------------------------------------------------------------------------------------------------------


async def test_partitions_that_are_left_lose_nothing(cluster: Cluster, path: str) -> None:
    """What nobody takes stays buffered, round after round; taken later it is all there, from its beginning."""
    await cluster.create(partitions=3)
    for partition in range(3):
        await produce_batches(cluster, *(some(at, 100) for at in range(0, 1000, 100)), partition=partition)
    async with a_reader(cluster, path, fetch_bytes=16_384) as reader:
        await reader.take_until(1000, partition=0)
        assert set(reader.taken) == {0}
        for _ in range(5):
            await reader.take(0)
        await reader.take_until(1000, partition=2)
        await reader.take_until(1000, partition=1)
    assert reader.taken == dict.fromkeys(range(3), some(0, 1000))


async def test_partitions_are_taken_in_small_portions_in_turn(cluster: Cluster, path: str) -> None:
    """Taken a few records at a time, now here, now there, every partition stays in order and whole."""
    await cluster.create(partitions=3)
    for partition in range(3):
        await produce_batches(cluster, *(some(at, 50) for at in range(0, 300, 50)), partition=partition)
    async with a_reader(cluster, path) as reader:

        async def all_taken() -> bool:
            for turn in range(12):
                await reader.take(turn % 3, records=7 + turn)
            return all(len(reader.taken.get(partition, ())) == 300 for partition in range(3))

        await eventually(all_taken)
    assert reader.taken == dict.fromkeys(range(3), some(0, 300))


async def test_a_rebalance_in_the_middle_of_chunks(cluster: Cluster, path: str) -> None:
    """A member joins while chunks are half taken: ownerships begin at the committed offset, each record comes once."""
    await cluster.create(partitions=4)
    for partition in range(4):
        await produce_batches(cluster, *(some(at, 200) for at in range(0, 1000, 200)), partition=partition)
    await commit_for_the_group(cluster, dict.fromkeys(range(4), 150))
    async with a_reader(cluster, path) as first:

        async def half_way() -> bool:
            await first.take(records=100)
            return all(len(first.taken.get(partition, ())) >= 100 for partition in range(4))

        await eventually(half_way)
        before = {partition: first.position(partition) for partition in range(4)}
        assert all(position is not None and position % 200 for position in before.values())
        async with a_reader(cluster, path) as second:
            await eventually(lambda: first.epochs >= 2 and len(first.owned) == len(second.owned) == 2)
            assert await cluster.committed() == before

            async def all_taken() -> bool:
                await first.take(records=37)
                await second.take(records=41)
                return sum(len(each) for reader in (first, second) for each in reader.taken.values()) >= 4 * 850

            await eventually(all_taken)
            assert first.starts[4:] + second.starts == [
                (key.partition, before[key.partition]) for reader in (first, second) for key in sorted(reader.owned)
            ]
    together = [
        (partition, record)
        for reader in (first, second)
        for partition, records in reader.taken.items()
        for record in records
    ]
    assert sorted(together) == [(partition, record) for partition in range(4) for record in some(0, 1000)[150:]]


async def test_a_member_that_leaves_hands_over(cluster: Cluster, path: str) -> None:
    """What a member has left half taken is taken by the next from the committed offset on."""
    await cluster.create()
    await produce_batches(cluster, some(0, 300), some(300, 300))
    async with a_reader(cluster, path) as first:

        async def begun() -> int:
            await first.take(records=123)
            return len(first.taken.get(0, ()))

        await eventually(begun)
        await first.revoke(lost=False)
    async with a_reader(cluster, path) as second:
        await second.take_until(600)
    assert first.taken[0] + second.taken[0] == some(0, 600)


# -- what cannot be read -----------------------------------------------------------------------------------------------


class Flipped:
    """A compiled batch whose checksum is found to be wrong."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        return False


def flip(monkeypatch: pytest.MonkeyPatch, partition: int, offset: int) -> None:
    """Have the raw path find a wrong checksum in the batch at an offset of one partition."""
    init = fetch_raw._Fetch.__init__

    def flipping(self: Any, records: Any) -> None:
        init(self, records)
        if records._tp.partition == partition:
            for index, batch in enumerate(self.batches):
                if batch.base_offset == offset:
                    self.batches[index] = Flipped(batch)

    monkeypatch.setattr(fetch_raw._Fetch, "__init__", flipping)


async def corrupt_at_take(reader: Reader, partition: int = 0) -> CorruptBatchError:
    """Take from a partition until that raises."""
    found: list[CorruptBatchError] = []

    async def raised() -> bool:
        try:
            await reader.take(partition)
        except CorruptBatchError as error:
            found.append(error)
        return bool(found)

    await eventually(raised)
    return found[0]


async def test_a_wrong_checksum_stops_its_partition_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking from the partition raises with the batch's offset, after all before it; the other partition is whole."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await produce_batches(cluster, some(0, 50), some(50, 50), some(100, 50), partition=partition)
    flip(monkeypatch, partition=0, offset=50)
    async with a_reader(cluster, "raw") as reader:
        error = await corrupt_at_take(reader)
        assert (error.offset, error.next_offset) == (50, 100)
        assert reader.taken[0] == some(0, 50)
        await reader.take_until(150, partition=1)
    assert reader.taken[1] == some(0, 150)


@pytest.mark.parametrize(("zstd", "start"), [(False, 0), (True, 0), (True, 15)])
async def test_a_bad_header_is_one_records_trouble(cluster: Cluster, zstd: bool, start: int) -> None:
    """All records but the one with the key that is no UTF-8 arrive, compressed or not, from wherever the group is."""
    await cluster.create()
    async with cluster.producer(compression_type=None, max_batch_size=1 << 20, enable_idempotence=False) as producer:
        await produce_batch(producer, cluster.topic, some(0, 10))
        await produce_with_a_bad_key(producer, cluster.topic, some(10, 10), bad=13, zstd=zstd)
        await produce_batch(producer, cluster.topic, some(20, 10))
    await commit_for_the_group(cluster, {0: start})
    async with a_reader(cluster, "raw") as reader:
        await reader.take_until(30)
    there = [record for record in some(0, 30) if record.offset >= start]
    assert reader.offsets() == [record.offset for record in there if record.offset != 13]
    assert [record.value for record in reader.taken[0]] == [record.value for record in there if record.offset != 13]
    assert [error.reason for error in reader.undecodable] == ["bad_header"] * (start <= 13)
    for error in reader.undecodable:
        headers = (("%FFad-key", b""), ("session-consumer.escaped", b"%FFad-key"))
        assert arrived(error.record) == some(13, 1)[0]._replace(headers=headers)


@pytest.mark.parametrize("codec", CODECS[1:])
async def test_a_batch_over_the_limit_stops_its_partition_alone(cluster: Cluster, codec: str) -> None:
    """Pulling from it raises, with where it begins and ends, after all before it; the other partition is whole."""
    await cluster.create(partitions=2)
    large = [Given(offset, None, bytes(1_500_000), (), 1_700_000_000_000) for offset in (50, 51)]
    async with cluster.producer(compression_type=codec, max_batch_size=1 << 22, max_request_size=1 << 23) as producer:
        for partition in range(2):
            await produce_batch(producer, cluster.topic, some(0, 50), partition)
        await produce_batch(producer, cluster.topic, large)
        await produce_batch(producer, cluster.topic, some(52, 8))
    async with a_reader(cluster, "raw", max_batch_bytes=1_000_000) as reader:
        error = await corrupt_at_take(reader)
        assert (type(error), error.offset, error.next_offset) == (BatchTooLargeError, 50, 52)
        assert "kafka.max_batch_bytes (1000000)" in str(error)
        assert reader.taken[0] == some(0, 50)
        await reader.take_until(50, partition=1)
    assert reader.taken[1] == some(0, 50)
    async with a_reader(cluster, "plain", max_batch_bytes=1_000_000) as reader:
        with pytest.raises(KafkaError, match="a batch cannot be uncompressed"):
            await reader.take_until(60)
    async with a_reader(cluster, "raw", max_batch_bytes=4_000_000) as reader:
        await reader.take_until(60)
    assert reader.taken[0] == [*some(0, 50), *large, *some(52, 8)]


# -- with the engine ---------------------------------------------------------------------------------------------------


class Handled:
    """A handler that gives the loop back now and then, and notes what it got."""

    def __init__(self) -> None:
        self.offsets: dict[int, list[int]] = {}
        self.by_key: dict[tuple[int, bytes | None], list[int]] = {}
        self.running: Counter[tuple[int, bytes | None]] = Counter()
        self.overlapped = False

    async def __call__(self, _event: Any, record: Record) -> None:
        lane = (record.partition, record.key)
        self.running[lane] += 1
        self.overlapped |= self.running[lane] > 1
        for _ in range(record.offset % 3):
            await asyncio.sleep(0)
        self.running[lane] -= 1
        self.offsets.setdefault(record.partition, []).append(record.offset)
        self.by_key.setdefault(lane, []).append(record.offset)


@asynccontextmanager
async def an_engine(cluster: Cluster, path: str, handler: Any, **delivery: Any) -> AsyncIterator[Engine]:
    counters, failures = Counters([cluster.topic], ["r"]), list[Exception]()
    kafka = msgspec.structs.replace(cluster.kafka, fetch_path=path)
    source = KafkaSource(kafka, counters, failures.append)
    async with asyncio.TaskGroup() as tasks:
        engine = Engine(
            source=source,
            decoder=Decoder(lambda value: value, lambda value: value, 1 << 20),
            routes=[Route("r", None, bind_handler(handler, "test"), tombstones=True)],
            delivery=Delivery(**{"commit_interval_seconds": 0.05} | delivery),
            counters=counters,
            tasks=tasks,
            fail=failures.append,
        )
        await source.start(engine)
        loops = [tasks.create_task(engine.poll_forever()), tasks.create_task(engine.commit_forever())]
        try:
            yield engine
            await engine.stop()
        finally:
            for loop in loops:
                loop.cancel()
            await source.stop()
    assert failures == []


@pytest.mark.parametrize("codec", [None, "lz4"])
@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_handlers_that_wait(cluster: Cluster, path: str, ordering: str, codec: str | None) -> None:
    """With calls that wait, in every ordering, each record is handled once, each key in order, and all is committed."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await produce_batches(cluster, *(some(at, 100) for at in range(0, 500, 100)), partition=partition, codec=codec)
    handled = Handled()
    async with an_engine(cluster, path, handled, ordering=ordering, concurrency=8):

        async def committed() -> bool:
            return await cluster.committed() == {0: 500, 1: 500}

        await eventually(committed)
    assert {partition: sorted(offsets) for partition, offsets in handled.offsets.items()} == {
        partition: list(range(500)) for partition in range(2)
    }
    if ordering != "unordered":
        assert not handled.overlapped
        assert all(offsets == sorted(offsets) for offsets in handled.by_key.values())


@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_a_wrong_checksum_halts_its_partition_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, ordering: str
) -> None:
    """The partition halts at the batch with all before it committed; the other one goes on to its end."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await produce_batches(cluster, some(0, 50), some(50, 50), partition=partition)
    flip(monkeypatch, partition=0, offset=50)
    handled = Handled()
    async with an_engine(cluster, "raw", handled, ordering=ordering) as engine:

        async def committed() -> bool:
            return await cluster.committed() == {0: 50, 1: 100}

        await eventually(committed)
        halt = engine.partitions[TopicPartition(cluster.topic, 0)].halt
        assert halt is not None
        assert (halt.reason, halt.offset) == (HaltReason.CORRUPT_BATCH, 50)
    assert sorted(handled.offsets[0]) == list(range(50))


@pytest.mark.parametrize("codec", [None, "lz4"])
async def test_a_header_that_is_not_text_halts_its_partition_alone(cluster: Cluster, codec: str | None) -> None:
    """A record with a header key that is no UTF-8, and without a place to go, halts its partition; the rest goes on."""
    await cluster.create(partitions=2)
    async with cluster.producer(compression_type=None, max_batch_size=1 << 20, enable_idempotence=False) as producer:
        for partition in range(2):
            await produce_batch(producer, cluster.topic, some(0, 10), partition)
        await produce_with_a_bad_key(producer, cluster.topic, some(10, 10), bad=13)
        await produce_batch(producer, cluster.topic, some(10, 10), partition=1)
    handled = Handled()
    async with an_engine(cluster, "raw", handled) as engine:

        async def committed() -> bool:
            return await cluster.committed() == {0: 13, 1: 20}

        await eventually(committed)
        halt = engine.partitions[TopicPartition(cluster.topic, 0)].halt
        assert halt is not None
        assert (halt.reason, halt.offset) == (HaltReason.NO_DEAD_LETTER, 13)
    assert handled.offsets == {0: list(range(13)), 1: list(range(20))}


# -- which path --------------------------------------------------------------------------------------------------------


def test_the_raw_path_is_supported_here() -> None:
    """The aiokafka that is pinned is the one that the raw path was written for."""
    assert supported()


@pytest.fixture(params=["version", "records", "module", "fetcher", "compiled"])
def changed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Change one thing of aiokafka that the raw path relies on."""
    if request.param == "version":
        monkeypatch.setattr(aiokafka, "__version__", "0.15.0")
    elif request.param == "records":
        monkeypatch.delattr(aiokafka_fetcher.PartitionRecords, "_contains_abort_marker")
    elif request.param == "module":
        monkeypatch.delattr(aiokafka_fetcher, "FetchError")
    elif request.param == "fetcher":
        monkeypatch.setattr(fetch_raw, "FETCHER_ATTRIBUTES", (*fetch_raw.FETCHER_ATTRIBUTES, "_no_such_attribute"))
    else:
        interpreted = type("MemoryRecords", (), {"__module__": "aiokafka.record.memory_records"})
        monkeypatch.setattr(fetch_raw, "MemoryRecords", interpreted)
    return str(request.param)


def test_a_changed_aiokafka_is_not_supported(changed: str) -> None:
    """Another version, a private name that is gone, or a parser that is not compiled: each is noticed."""
    assert not supported(), changed


def test_a_changed_aiokafka_is_read_the_plain_way(cluster: Cluster, changed: str) -> None:
    """Unless told otherwise the source then takes the plain path, and says so; told to take the raw one it refuses."""
    with capture_logs() as logs:
        assert Reader(cluster, "auto").source._choose_fetch() is PlainFetch
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "raw_fetch_unsupported")], changed
    with pytest.raises(KafkaError):
        Reader(cluster, "raw").source._choose_fetch()


async def test_the_fallback_works(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another version of aiokafka a source left to choose reads everything the plain way."""
    await cluster.create()
    await produce_batches(cluster, some(0, 100))
    async with a_reader(cluster, "auto") as reader:
        assert isinstance(reader.source._fetch, RawFetch)
        await reader.take_until(100)
        await reader.revoke(lost=False)
    monkeypatch.setattr(aiokafka, "__version__", "0.15.0")
    await produce_batches(cluster, some(100, 100))
    async with a_reader(cluster, "auto") as reader:
        assert isinstance(reader.source._fetch, PlainFetch)
        await reader.take_until(200)
    assert reader.taken[0] == some(100, 100)
