"""Chunks straight from aiokafka's fetch buffer: compiled records, pulled in place.

``getmany`` spends most of its time turning each record into a Python object. Beneath it the fetcher keeps, for each
partition, the bytes of its last fetch behind a compiled parser; this takes them there, and keeps aiokafka's own books
(position, aborted transactions, buffer) as ``getmany`` would. It reads private attributes of the pinned version:
``supported`` looks whether they are as expected, and the daemon falls back to ``fetch_plain.py`` when they are not.

A batch is unpacked when its first record is pulled, long after it was taken. What the parser then gives up on comes
back to ``salvage``, which parses the batch once more (``plain_batch.py``) or says what is wrong with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import struct
import time
from collections import deque
from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain, dropwhile, islice
from typing import Any

import aiokafka
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.memory_records import MemoryRecords

from consumer.errors import BatchTooLargeError, CorruptBatchError
from consumer.kafka.client import position_of
from consumer.kafka.codecs import TooLargeError
from consumer.kafka.plain_batch import parse_batch
from consumer.partition.chunk import Chunk
from consumer.record import RawRecord, TopicPartition

MADE_FOR = "0.14.0"
FETCHER_ATTRIBUTES = ("_records", "_create_fetch_waiter", "_notify", "_wait_consume_future", "MemoryRecords(")
RECORDS_ATTRIBUTES = ("_consume_aborted_up_to", "_contains_abort_marker")


def supported() -> bool:
    """Whether this aiokafka has the private surface that ``RawFetch`` was written for, compiled parser included."""
    parts = [(aiokafka_fetcher, name) for name in ("FetchResult", "FetchError", "PartitionRecords", "MemoryRecords")]
    if aiokafka.__version__ != MADE_FOR or not all(hasattr(where, name) for where, name in parts):
        return False
    source = inspect.getsource(aiokafka_fetcher.Fetcher)
    return (
        all(name in source for name in FETCHER_ATTRIBUTES)
        and all(hasattr(aiokafka_fetcher.PartitionRecords, name) for name in RECORDS_ATTRIBUTES)
        and "_crecords" in MemoryRecords.__module__
    )


class _KeptRecords(MemoryRecords):  # type: ignore[misc, valid-type]
    """A fetch that shows its bytes; the fetcher makes one of each answer, and they live as long as its batches do."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw
        self._unreadable = bool(raw) and not super().has_next()

    def has_next(self) -> bool:
        """Whether there is a batch, or a first one that cannot be told from what follows.

        Kafka sends the first batch whole: where it is not, its length is wrong. The fetcher would step over one offset
        and end the client with an error; so it goes to ``take``, as everything else.
        """
        return self._unreadable or super().has_next()


class RawFetch:
    """Takes one partition's fetch after the other, a record batch at a time; owned by the source, dies with its client.

    A fetch that is begun leaves the client's buffer, so that the next one is fetched meanwhile: one in work, one ahead,
    half of ``kafka.fetch_bytes`` each.
    """

    fetches_per_partition = 2

    def __init__(self, consumer: Any, bytes_consumed: dict[str, int]) -> None:
        self._consumer = consumer
        self._fetcher = consumer._fetcher
        self._bytes_consumed = bytes_consumed
        self._begun: dict[TopicPartition, _Fetch] = {}
        self._positions: set[TopicPartition] = set()
        aiokafka_fetcher.MemoryRecords = _KeptRecords  # type: ignore[attr-defined]
        for key, found in list(self._fetcher._records.items()):
            if type(found) is aiokafka_fetcher.FetchResult:
                self._drop(key)  # it was not kept; it comes again

    def clear(self) -> None:
        """Forget what was begun: its partitions are revoked."""
        self._begun.clear()
        self._positions.clear()

    def forget(self, key: TopicPartition) -> None:
        """Say anew where a partition starts: its position was set."""
        self._begun.pop(key, None)
        self._positions.discard(key)

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Return when a fetch arrives, or there is one already for a wanted partition, or after ``seconds``.

        Raises what aiokafka holds for its user: a partition without a usable offset, a refusal. It is never cancelled
        by us; the poll interval's clock is set here, as a context manager of aiokafka's would be left open by a
        cancellation, and the member would never be found idle again.
        """
        consumer, fetcher = self._consumer, self._fetcher
        consumer._subscription._last_fetch_ended = time.monotonic()
        consumer._coordinator.check_errors()
        for key, found in list(fetcher._records.items()):
            if type(found) is aiokafka_fetcher.FetchError:
                self._drop(key)
                found.check_raise()
        if any(self.ready(key) for key in wanted):
            await asyncio.sleep(0)  # whoever takes it needs the loop
            return
        waiter = fetcher._create_fetch_waiter()
        await asyncio.wait([waiter], timeout=seconds)
        if waiter.done():
            waiter.result()
        else:
            waiter.cancel()

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return something."""
        if self._consumer._subscription.reassignment_in_progress:
            return False
        begun = self._begun.get(key)
        if begun is not None and begun.batches:
            return True
        return key in self._fetcher._records or self._starts(key) is not None

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the next batch with records, or only the position where batches without any moved it; None: nothing.

        Raises CorruptBatchError when a length or a checksum is wrong; nothing of another partition is touched. Pulling
        from the chunk may raise anything, which is to be given to ``salvage``.
        """
        subscription = self._consumer._subscription
        if subscription.reassignment_in_progress:
            return None
        start = self._starts(key)
        if start is not None:
            self._positions.add(key)
            return Chunk(start, iter(()), start)
        fetch = self._begun.get(key)
        if fetch is None or not fetch.batches:
            fetch = self._begin(key)
            if fetch is None:
                return None
        start = fetch.position
        batch = fetch.next_batch()
        if batch is None:
            del self._begun[key]
            return Chunk(start, iter(()), fetch.position)
        # Several runners pull from the same chunk in turn, each with a loop of its own, and the compiled batch refuses
        # to be asked for an iterator twice: `chain` asks once. It asks when the first record is pulled: a batch is
        # unpacked when it is asked, and what that raises must not be raised here.
        records: Iterator[RawRecord] = chain(batch, () if fetch.batches else self._let_go(key, fetch))
        if _base_of(batch) < start:  # a commit, or a seek, into the middle of a batch
            records = dropwhile(lambda record: record.offset < start, records)
        return Chunk(start, records, fetch.position, partial(fetch.reread, fetch.handed_out()))

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return what can be had of the batch taken last, when pulling from it raised ``error``.

        ``position`` is the next offset that was not delivered; the chunk starts there and replaces the one that failed.
        For a header key that is not UTF-8 only the value of its record raises, DecodeError. Raises BatchTooLargeError
        for a batch over the limit, and CorruptBatchError for any other: the partition is not to be read on from here.
        """
        fetch = self._begun.get(key)
        if fetch is None:
            raise CorruptBatchError(position, f"nothing is known of the batch at offset {position}", position + 1)
        salvage = partial(fetch.salvage, fetch.handed_out(), position, error)
        records = salvage()
        behind = () if fetch.batches else self._let_go(key, fetch)
        return Chunk(position, chain(records, behind), fetch.position, salvage)

    def _let_go(self, key: TopicPartition, fetch: _Fetch) -> Iterator[RawRecord]:
        """Run behind the last record of a fetch: its bytes are not held while the partition is idle."""
        if self._begun.get(key) is fetch:
            del self._begun[key]
        yield from ()

    def _starts(self, key: TopicPartition) -> int | None:
        """Where a partition starts, if it has not been said yet and is known."""
        return None if key in self._positions else position_of(self._consumer, key)

    def _begin(self, key: TopicPartition) -> _Fetch | None:
        """Take a partition's fetch out of the buffer, if it still belongs to the assignment and to the position."""
        found = self._fetcher._records.get(key)
        if type(found) is not aiokafka_fetcher.FetchResult:
            return None
        partition = aiokafka.TopicPartition(*key)
        if not found.check_assignment(partition):
            self._drop(key)
            return None
        state = self._consumer._subscription.subscription.assignment.state_value(partition)
        fetch = _Fetch(found._partition_records)
        fetch.require_batch()
        fetch.end_within(state.highwater)
        self._begun[key] = fetch
        self._bytes_consumed[key.topic] += fetch.size
        # From here the client fetches on behind this fetch, while this one is worked on.
        state.consumed_to(fetch.end)
        self._drop(key)
        return fetch

    def _drop(self, key: TopicPartition) -> None:
        del self._fetcher._records[key]
        self._fetcher._notify(self._fetcher._wait_consume_future)


class _Fetch:
    """One partition's fetch, its batches still compressed; ``position`` moves as they are handed out."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._committed_only = records._isolation_level == aiokafka_fetcher.READ_COMMITTED
        memory = records._records
        self._raw: bytes = memory.raw
        self.size = len(self._raw)
        self.position: int = records.next_fetch_offset
        self.batches: deque[Any] = deque()
        # As far as they can be told apart: the broker cuts off the last one anywhere. That a length is wrong, or that
        # another format begins, is rarer; what is behind is fetched again, and comes first then.
        with contextlib.suppress(Exception):
            self.batches.extend(iter(memory.next_batch, None))
        self._count = len(self.batches)
        self.end = self.batches[-1].next_offset if self.batches else self.position

    def require_batch(self) -> None:
        """Raise CorruptBatchError when not even the first batch can be told from the next."""
        if not self.batches:
            where = self.position
            raise CorruptBatchError(where, f"the length of the batch at offset {where} is wrong", where + 1)

    def end_within(self, highwater: int) -> None:
        """Bound what the last batch says of its end, when that lies beyond the log's.

        A wrong end would have the client fetch from where there is nothing, and the partition would be set back to its
        beginning before anybody had looked at the batch, whose checksum comes with its turn. But records beyond the end
        that came with them are no lie by themselves: a broker notes the end of the log, then reads, and what was
        written in between is read as well. Stopping short of those would fetch them twice. So here the checksum tells.
        """
        if self.end > highwater and not self.batches[-1].validate_crc():
            self.end = highwater
        self.end = max(self.position, self.end)

    def next_batch(self) -> Any:
        """Step over what holds no records for this reader, as aiokafka's generator does; None when only that is left.

        The rules are Kafka's: control batches are never shown; under read_committed a batch of an aborted transaction
        is not either, from the first offset of that transaction to its abort marker.
        """
        records = self._records
        while self.batches:
            batch = self.batches[0]
            if records._check_crcs and not batch.validate_crc():
                raise self._wrong_checksum(batch)
            try:
                aborted = self._committed_only and batch.producer_id is not None and self._aborted(batch)
            except Exception as error:  # a marker that cannot be read
                raise self._not_unpacked(max(self.position, _base_of(batch)), batch.next_offset, error) from error
            self.batches.popleft()
            self.position = max(self.position, batch.next_offset)
            if not aborted and not batch.is_control_batch:
                return batch
        return None

    def _aborted(self, batch: Any) -> bool:
        records = self._records
        records._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and records._contains_abort_marker(batch):
            records._aborted_producers.discard(batch.producer_id)
        return batch.is_transactional and batch.producer_id in records._aborted_producers

    def _wrong_checksum(self, batch: Any) -> CorruptBatchError:
        """Make the error; what the batch says of its own end is believed as far as the next batch, which says more."""
        where = max(self.position, _base_of(batch))
        behind = _base_of(self.batches[1]) if len(self.batches) > 1 else self.end
        next_offset = max(where + 1, min(batch.next_offset, behind))
        return CorruptBatchError(where, f"the checksum of the batch at offset {where} is wrong", next_offset)

    def handed_out(self) -> int:
        """Say which batch was handed out last, by how many are before it."""
        return self._count - len(self.batches) - 1

    def reread(self, index: int) -> Iterator[RawRecord]:
        """Return the records of a batch that was handed out, parsed once more."""
        batch: Any = MemoryRecords(bytes(self._bytes_of(index))).next_batch()
        return iter(batch)

    def salvage(self, index: int, position: int, error: Exception) -> Iterator[RawRecord]:
        """Return the records of a batch that was handed out, from ``position`` on; raises as ``RawFetch.salvage``."""
        raw = self._bytes_of(index)
        if isinstance(error, UnicodeDecodeError):
            try:
                records = parse_batch(raw)
            except (ValueError, TooLargeError) as worse:
                error = worse
            else:
                return (record for record in records if record.offset >= position)
        base = int.from_bytes(raw[:8], "big", signed=True) if raw[16] >= 2 else -1
        where = max(position, base)
        if isinstance(error, TooLargeError):
            raise self._too_large(where, error) from error
        raise self._not_unpacked(where, self.position, error) from error

    def _too_large(self, where: int, error: TooLargeError) -> BatchTooLargeError:
        explanation = (
            f"the batch at offset {where} is larger than kafka.max_batch_bytes ({error.max_bytes}) when it is unpacked;"
            " set it higher, or go on behind the batch"
        )
        return BatchTooLargeError(where, explanation, self.position)

    @staticmethod
    def _not_unpacked(where: int, next_offset: int, error: Exception) -> CorruptBatchError:
        explanation = f"the batch at offset {where} cannot be unpacked: {type(error).__name__}"
        return CorruptBatchError(where, explanation, next_offset)

    def _bytes_of(self, index: int) -> memoryview:
        return next(islice(_slices_of(self._raw), index, None))


def _slices_of(raw: bytes) -> Iterator[memoryview]:
    """Yield each batch's bytes: eight of its offset, four of the length of what follows."""
    view, at = memoryview(raw), 0
    while at < len(raw):
        end = at + 12 + struct.unpack_from(">i", raw, at + 8)[0]
        yield view[at:end]
        at = end


def _base_of(batch: Any) -> int:
    """Return a batch's first offset; -1 for the oldest formats, which say only their last."""
    return getattr(batch, "base_offset", -1)
