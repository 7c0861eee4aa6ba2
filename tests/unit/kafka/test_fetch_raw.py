"""The raw fetch path without a broker: batches that cannot be read, and the memory it holds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from consumer.errors import BatchTooLargeError, CorruptBatchError, DecodeError
from consumer.kafka.codecs import limit_decompression
from consumer.kafka.fetch_plain import PlainFetch
from consumer.kafka.fetch_raw import RawFetch
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from tests.unit.kafka.batches import PLACEHOLDER, Raw, a_bad_batch, a_batch, with_checksum
from tests.unit.kafka.conftest import decoders

__all__ = ["decoders"]

KEY = TopicPartition("topic", 0)
OTHER = TopicPartition("topic", 1)


class State:
    """The position of one partition in aiokafka."""

    paused = False
    has_valid_position = True

    def __init__(self, position: int, highwater: int) -> None:
        self.position = position
        self.highwater = highwater

    def consumed_to(self, position: int) -> None:
        self.position = position


class Client:
    """Stands for aiokafka's consumer; its fetches are made as aiokafka's fetcher makes them."""

    def __init__(self) -> None:
        self.states: dict[Any, State] = {}
        self.active = True
        self._fetcher: Any = SimpleNamespace(_records={}, _notify=lambda future: None, _wait_consume_future=None)
        self._subscription = SimpleNamespace(
            reassignment_in_progress=False, subscription=SimpleNamespace(assignment=self)
        )

    def state_value(self, partition: Any) -> State | None:
        return self.states.get(partition)

    def fetched(
        self,
        *batches: bytes,
        key: TopicPartition = KEY,
        position: int | None = None,
        committed_only: bool = False,
        aborted: Sequence[tuple[int, int]] = (),
        highwater: int = 1 << 40,
    ) -> None:
        """Put the answer to a fetch into the buffer, from the partition's position or from a new one."""
        partition = aiokafka.TopicPartition(*key)
        state = self.states.setdefault(partition, State(position or 0, highwater))
        records = aiokafka_fetcher.MemoryRecords(b"".join(batches))  # type: ignore[attr-defined]
        assert records.has_next()
        isolation = aiokafka_fetcher.READ_COMMITTED if committed_only else aiokafka_fetcher.READ_UNCOMMITTED
        self._fetcher._records[partition] = aiokafka_fetcher.FetchResult(
            partition,
            assignment=self,
            partition_records=aiokafka_fetcher.PartitionRecords(
                partition, records, list(aborted), state.position, None, None, True, isolation
            ),
            backoff=0,
        )


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def fetch(client: Client) -> Iterator[RawFetch]:
    """Install a raw fetch on the client, and restore aiokafka's fetcher afterwards."""
    found = aiokafka_fetcher.MemoryRecords  # type: ignore[attr-defined]
    yield RawFetch(client, {KEY.topic: 0})
    aiokafka_fetcher.MemoryRecords = found  # type: ignore[attr-defined]


def taken(fetch: RawFetch, key: TopicPartition = KEY) -> Chunk:
    """Take the next chunk that holds more than a position."""
    while True:
        chunk = fetch.take(key)
        assert chunk is not None
        if chunk.next_offset > chunk.first_offset:
            return chunk


def pulled(chunk: Chunk) -> tuple[list[int], Exception | None]:
    """Pull records until the end or an error."""
    offsets = []
    try:
        for raw in chunk.records:
            offsets.append(raw.offset)  # noqa: PERF401 - what came before an error is kept
    except Exception as error:
        return offsets, error
    return offsets, None


def some(count: int) -> list[Raw]:
    return [Raw(delta) for delta in range(count)]


def with_bad_key(count: int, *bad: int) -> list[Raw]:
    return [Raw(each, headers=((PLACEHOLDER, b""),) if each in bad else ()) for each in range(count)]


BAD_KEY = b"bad-key-\xff"


def bad_batch(count: int, *bad: int, base: int) -> bytes:
    return a_bad_batch(with_bad_key(count, *bad), BAD_KEY, base=base)


def read(records: Iterator[Any]) -> dict[int, Any]:
    """Return each record's value by its offset, or the reason why it cannot be decoded."""
    found: dict[int, Any] = {}
    for raw in records:
        try:
            found[raw.offset] = raw.value
        except DecodeError as error:
            found[raw.offset] = error.reason
    return found


def test_records_around_a_bad_header_are_read(client: Client, fetch: RawFetch) -> None:
    """A batch with a bad header is parsed again from where it broke off; other batches are unaffected."""
    client.fetched(a_batch(some(3)), bad_batch(5, 1, 3, base=3), a_batch(some(2), base=8))
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    chunk = taken(fetch)
    offsets, error = pulled(chunk)
    assert (offsets, type(error)) == ([3], UnicodeDecodeError)
    assert error is not None
    salvaged = fetch.salvage(KEY, 4, error)
    assert (salvaged.first_offset, salvaged.next_offset) == (4, 8)
    assert read(salvaged.records) == {4: "bad_header", 5: b"value", 6: "bad_header", 7: b"value"}
    assert pulled(taken(fetch)) == ([8, 9], None)


def test_a_salvaged_chunk_is_pulled_in_several_goes(client: Client, fetch: RawFetch) -> None:
    """A salvaged chunk has one iterator, which goes on where it was left."""
    client.fetched(bad_batch(4, 0, base=0))
    chunk = taken(fetch)
    _, error = pulled(chunk)
    assert error is not None
    records = fetch.salvage(KEY, 0, error).records
    offsets = []
    for raw in records:
        offsets.append(raw.offset)
        if len(offsets) == 2:
            break
    assert offsets + [raw.offset for raw in records] == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_a_start_in_the_middle_of_a_bad_batch(client: Client, fetch: RawFetch, bad: int) -> None:
    """Records below the position are not delivered, even where the bad header is one of them."""
    client.fetched(bad_batch(5, bad, base=10), position=12)
    offsets, error = pulled(taken(fetch))
    assert error is not None
    salvaged = fetch.salvage(KEY, 12 + len(offsets), error)
    assert {*offsets, *read(salvaged.records)} == {12, 13, 14}


def test_the_right_batch_is_parsed(client: Client, fetch: RawFetch) -> None:
    """Batches that are skipped count when the bytes of the current batch are located."""
    aborted = a_batch(some(4), base=0, attributes=0x10)
    aborted = with_checksum(aborted[:43] + (7).to_bytes(8, "big") + aborted[51:])
    marker = a_batch([Raw(0, key=b"\0\0\0\0")], base=4, attributes=0x30)
    marker = with_checksum(marker[:43] + (7).to_bytes(8, "big") + marker[51:])
    client.fetched(
        aborted, marker, bad_batch(3, 1, base=5), bad_batch(3, 2, base=8), committed_only=True, aborted=[(7, 0)]
    )
    for position in (5, 8):
        offsets, error = pulled(taken(fetch))
        assert error is not None
        salvaged = fetch.salvage(KEY, position + len(offsets), error)
        assert offsets + list(read(salvaged.records)) == [position, position + 1, position + 2]


def test_a_bad_header_in_a_malformed_batch(client: Client, fetch: RawFetch) -> None:
    """If the plain parser fails too, the batch is corrupt."""
    broken = with_checksum(bad_batch(3, 1, base=5) + b"\0")
    broken = broken[:8] + (len(broken) - 12).to_bytes(4, "big") + broken[12:]
    client.fetched(broken, position=5)
    offsets, error = pulled(taken(fetch))
    assert offsets == [5]
    assert error is not None
    assert refused(fetch, 6, error) == (CorruptBatchError, 6, 8)


def refused(fetch: RawFetch, position: int, error: Exception) -> tuple[type[CorruptBatchError], int, int]:
    with pytest.raises(CorruptBatchError) as raised:
        fetch.salvage(KEY, position, error)
    return raised.type, raised.value.offset, raised.value.next_offset


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_over_the_limit(client: Client, fetch: RawFetch, codec: int) -> None:
    """A batch over the limit is refused at its first record, with its place and the setting; the next is read."""
    limit_decompression(100_000)
    large = a_batch([Raw(0, value=b"x" * 60_000), Raw(1, value=b"x" * 60_000)], base=3, codec=codec)
    client.fetched(a_batch(some(3)), large, a_batch(some(2), base=5, codec=codec))
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    offsets, error = pulled(taken(fetch))
    assert offsets == []
    assert error is not None
    assert refused(fetch, 3, error) == (BatchTooLargeError, 3, 5)
    with pytest.raises(BatchTooLargeError, match=r"offset 3 .*kafka\.max_batch_bytes \(100000\)"):
        fetch.salvage(KEY, 3, error)
    assert pulled(taken(fetch)) == ([5, 6], None)


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5])
def test_a_batch_that_cannot_be_unpacked(client: Client, fetch: RawFetch, codec: int) -> None:
    """The batch is corrupt from its start or the position to its end; the message names the class of error."""
    client.fetched(a_batch(some(4), base=10, attributes=codec), position=12)
    offsets, error = pulled(taken(fetch))
    assert offsets == []
    assert error is not None
    assert refused(fetch, 12, error) == (CorruptBatchError, 12, 14)
    with pytest.raises(CorruptBatchError, match=rf"offset 12 cannot be uncompressed: {type(error).__name__}$"):
        fetch.salvage(KEY, 12, error)


def test_a_batch_that_is_malformed_in_its_middle(client: Client, fetch: RawFetch) -> None:
    """Records before the bad one are delivered; the batch is corrupt from the next offset."""
    batch = a_batch([Raw(delta, value=b"value-%d" % delta) for delta in range(5)], base=20)
    at = batch.index(b"value-2") - 1
    client.fetched(with_checksum(batch[:at] + b"\x7e" + batch[at + 1 :]), position=20)
    offsets, error = pulled(taken(fetch))
    assert offsets == [20, 21]
    assert error is not None
    assert refused(fetch, 22, error) == (CorruptBatchError, 22, 25)


@pytest.mark.parametrize(("last_delta", "next_offset"), [(2, 6), (1000, 6), (-50, 4)])
def test_a_wrong_checksum(client: Client, fetch: RawFetch, last_delta: int, next_offset: int) -> None:
    """The error holds the batch's first offset and the next batch's, whatever the batch claims, and persists."""
    flipped = bytearray(a_batch(some(3), base=3, last_delta=last_delta))
    flipped[-1] ^= 1
    client.fetched(a_batch(some(3)), bytes(flipped), a_batch(some(3), base=6))
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    for _ in range(2):
        assert fetch.ready(KEY)
        with pytest.raises(CorruptBatchError) as raised:
            fetch.take(KEY)
        assert (raised.value.offset, raised.value.next_offset) == (3, next_offset)


@pytest.mark.parametrize("last_delta", [2**31 - 1, -(2**31)])
def test_a_last_batch_with_a_wrong_end(client: Client, fetch: RawFetch, last_delta: int) -> None:
    """The client stays within the log, whatever a batch with an unchecked checksum claims."""
    flipped = bytearray(a_batch(some(3), base=3, last_delta=last_delta))
    flipped[-1] ^= 1
    client.fetched(a_batch(some(3)), bytes(flipped), highwater=6)
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    assert 0 <= client.states[KEY].position <= 6
    with pytest.raises(CorruptBatchError) as raised:
        fetch.take(KEY)
    assert (raised.value.offset, 4 <= raised.value.next_offset <= 6) == (3, True)


@pytest.mark.parametrize("highwater", [0, 2, 4])
def test_records_beyond_the_end_offset_of_their_answer(client: Client, fetch: RawFetch, highwater: int) -> None:
    """A broker that is written to may answer with an older end; the client goes on behind all records it got.

    Else it would fetch the same records again, and they would be handled twice.
    """
    client.fetched(a_batch(some(3)), a_batch(some(3), base=3), highwater=highwater)
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    assert client.states[KEY].position == 6
    assert pulled(taken(fetch)) == ([3, 4, 5], None)


@pytest.mark.parametrize("length", [0, 13, -1, -12, -(2**31), 2**31 - 13])
def test_a_wrong_length(client: Client, fetch: RawFetch, length: int) -> None:
    """A batch whose end is unknown is fetched again, comes first then, and is corrupt; others are read."""
    broken = bytearray(a_batch(some(3), base=3))
    broken[8:12] = length.to_bytes(4, "big", signed=True)
    client.fetched(a_batch(some(3)), bytes(broken), a_batch(some(3), base=6))
    client.fetched(a_batch(some(3)), key=OTHER)
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    assert client.states[KEY].position == 3
    client.fetched(bytes(broken))
    for _ in range(2):
        assert fetch.ready(KEY)
        with pytest.raises(CorruptBatchError) as raised:
            taken(fetch)
        assert (raised.value.offset, raised.value.next_offset) == (3, 4)
    assert pulled(taken(fetch, OTHER)) == ([0, 1, 2], None)


def test_a_marker_that_cannot_be_read(client: Client, fetch: RawFetch) -> None:
    """A transaction marker without a key is a corrupt batch."""
    marker = a_batch([Raw(0)], base=3, attributes=0x30)
    client.fetched(a_batch(some(3)), with_checksum(marker[:43] + (7).to_bytes(8, "big") + marker[51:]))
    client.fetched(a_batch(some(3)), marker, committed_only=True)
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    with pytest.raises(CorruptBatchError) as raised:
        fetch.take(KEY)
    assert (raised.value.offset, raised.value.next_offset) == (3, 4)


def test_nothing_was_taken(client: Client, fetch: RawFetch) -> None:
    """Salvaging a partition without a batch in work, also after a revoke, gives only the position."""
    assert refused(fetch, 7, ValueError()) == (CorruptBatchError, 7, 8)
    client.fetched(bad_batch(5, 1, base=0))
    _, error = pulled(taken(fetch))
    assert error is not None
    fetch.clear()
    assert refused(fetch, 1, error) == (CorruptBatchError, 1, 2)


async def test_the_plain_path_has_nothing_to_salvage() -> None:
    """The plain path decompresses before it delivers, so that only single records can fail there."""
    with pytest.raises(CorruptBatchError) as raised:
        PlainFetch(None, {}).salvage(KEY, 7, ValueError())
    assert (raised.value.offset, raised.value.next_offset) == (7, 8)


@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize("start", [0, 2])
def test_the_oldest_formats_are_read(client: Client, fetch: RawFetch, codec: int, start: int) -> None:
    """Batches before version 2 hold only their last offset: records below the position are left out."""
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 20)
    for offset in range(4):
        assert builder.append(offset, 0, None, b"value" * 20)
    raw = bytes(builder.build())
    client.fetched((3).to_bytes(8, "big") + raw[8:] if codec else raw, position=start)
    found: list[int] = []
    while len(found) < 4 - start:
        offsets, error = pulled(taken(fetch))
        assert error is None
        found += offsets
    assert found == list(range(start, 4))


def test_an_answer_from_before_the_raw_path_is_fetched_again(client: Client) -> None:
    """An answer that came before its bytes could be kept is dropped and fetched again."""
    found = aiokafka_fetcher.MemoryRecords  # type: ignore[attr-defined]
    try:
        client.fetched(a_batch(some(3)))
        fetch = RawFetch(client, {KEY.topic: 0})
        position = fetch.take(KEY)
        assert position is not None
        assert (position.first_offset, position.next_offset) == (0, 0)
        assert fetch.take(KEY) is None
        assert client.states[KEY].position == 0
        client.fetched(a_batch(some(3)))
        assert pulled(taken(fetch)) == ([0, 1, 2], None)
    finally:
        aiokafka_fetcher.MemoryRecords = found  # type: ignore[attr-defined]


def test_an_idle_partition_holds_no_fetch(client: Client, fetch: RawFetch) -> None:
    """The bytes of a fetch are released with its last record, not with the next fetch."""
    client.fetched(a_batch(some(3)), a_batch(some(3), base=3))
    kept = client._fetcher._records[KEY]._partition_records._records.raw
    held = sys.getrefcount(kept)
    assert pulled(taken(fetch)) == ([0, 1, 2], None)
    chunk = taken(fetch)
    assert next(chunk.records).offset == 3
    assert sys.getrefcount(kept) >= held
    assert pulled(chunk) == ([4, 5], None)
    del chunk
    gc.collect()
    assert sys.getrefcount(kept) == 2
    assert not fetch.ready(KEY)
    assert fetch.take(KEY) is None
