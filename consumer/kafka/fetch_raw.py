"""The raw fetch path: chunks from aiokafka's fetch buffer, whose compiled records are pulled in place.

``getmany`` spends most of its time on making a Python object of each record. Below it the fetcher keeps the bytes of
the last fetch of each partition behind a compiled parser. This module takes them from there, and updates aiokafka's
state (position, aborted transactions, buffer) as ``getmany`` would. It reads private attributes of the pinned version:
``supported`` checks that they are as expected, and otherwise the daemon uses ``fetch_plain.py``.

A batch is uncompressed when its first record is pulled, long after it was taken. If the parser fails then, ``salvage``
parses the batch again (``plain_batch.py``) or raises an error that says what is wrong with it.
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
from consumer.kafka.plain_batch import (
    CODEC,
    HEADER,
    MAX_HEADER_BYTES,
    LargeHeadersError,
    parse_batch,
    refuse_large_headers,
)
from consumer.partition.chunk import Chunk
from consumer.record import RawRecord, TopicPartition

MADE_FOR = "0.14.0"
FETCHER_ATTRIBUTES = ("_records", "_create_fetch_waiter", "_notify", "_wait_consume_future", "MemoryRecords(")
RECORDS_ATTRIBUTES = ("_consume_aborted_up_to", "_contains_abort_marker")


def supported() -> bool:
    """Whether this aiokafka has the private attributes and the compiled parser that ``RawFetch`` needs."""
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
    """A fetch that keeps its bytes; the fetcher makes one of each answer, as long-lived as its batches."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw
        self._unreadable = bool(raw) and not super().has_next()

    def has_next(self) -> bool:
        """Whether there is a batch, or a first batch whose length is wrong.

        Kafka always sends the first batch as a whole, so an incomplete one has a wrong length. The fetcher would skip
        one offset and end the client with an error; so this batch is passed to ``take``, as all others.
        """
        return self._unreadable or super().has_next()


class RawFetch:
    """Takes the fetches of each partition by record batch; owned by the source, as long-lived as its client.

    A fetch that is begun leaves the client's buffer, so that the client fetches the next one: one in work and one
    ahead, each of half of ``kafka.fetch_bytes``.
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
                self._drop(key)  # its bytes were not kept; it is fetched again

    def clear(self) -> None:
        """Forget all begun fetches: their partitions are revoked."""
        self._begun.clear()
        self._positions.clear()

    def forget(self, key: TopicPartition) -> None:
        """Forget the fetch and the position of a partition whose position was set."""
        self._begun.pop(key, None)
        self._positions.discard(key)

    def has_records(self) -> bool:
        """Whether records of any partition were fetched that are not pulled yet."""
        return bool(self._begun)

    def holds(self, key: TopicPartition) -> bool:
        """Whether records of a partition were fetched that are not pulled yet."""
        return key in self._begun

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Return when a wanted partition has a fetch, when any fetch arrives, or after ``seconds``.

        Raises the errors that aiokafka keeps for its user about wanted partitions: one without a usable offset, a
        refusal. An error that is not wanted stays: taken, it would come again with the next fetch, for ever. We never
        cancel it. The clock of the poll interval is set here: a cancellation would leave aiokafka's context manager
        open, and the member would never count as idle again.
        """
        consumer, fetcher = self._consumer, self._fetcher
        consumer._subscription._last_fetch_ended = time.monotonic()
        consumer._coordinator.check_errors()
        for key, found in list(fetcher._records.items()):
            if type(found) is aiokafka_fetcher.FetchError and key in wanted:
                self._drop(key)
                found.check_raise()
        if any(self.ready(key) for key in wanted):
            await asyncio.sleep(0)  # the task that takes it needs the loop
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
        """Return the next batch with records, or an empty chunk if batches without records moved the position.

        Returns None when there is nothing to take. Raises CorruptBatchError when a length or a checksum is wrong;
        other partitions are not affected. Pulling from the chunk may raise any error; pass it to ``salvage``.
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
        start, begun = fetch.position, len(fetch.batches)
        batch = fetch.next_batch()
        self._bytes_consumed[key.topic] += fetch.share_of(begun - len(fetch.batches))
        if batch is None:
            del self._begun[key]
            return Chunk(start, iter(()), fetch.position)
        try:
            fetch.refuse_large_headers()
        except LargeHeadersError as error:
            return self.salvage(key, start, error)
        # Several runners pull from one chunk in turn, each in its own loop, and the compiled batch refuses a second
        # iterator: `chain` makes one. It makes it when the first record is pulled: this uncompresses the batch, and
        # an error of that must not be raised here.
        records: Iterator[RawRecord] = chain(batch, () if fetch.batches else self._let_go(key, fetch))
        if _base_of(batch) < start:  # a commit, or a seek, into the middle of a batch
            records = dropwhile(lambda record: record.offset < start, records)
        reread = partial(fetch.reread, fetch.handed_out())
        return Chunk(start, records, fetch.position, reread, fetch, _timestamp_of(batch))

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return the readable records of the batch taken last, after pulling from it raised ``error``.

        ``position`` is the next offset that was not delivered; the chunk starts there and replaces the failed one. For
        a header key that is not UTF-8, or for large headers, only the value of their record raises (DecodeError).
        Raises BatchTooLargeError for a batch over the limit, and CorruptBatchError for any other error: the partition
        cannot be read from here on.
        """
        fetch = self._begun.get(key)
        if fetch is None:
            raise CorruptBatchError(position, f"the batch at offset {position} is no longer kept", position + 1)
        # Its frames keep the batch uncompressed, and the chunk may be kept for long.
        salvage = partial(fetch.salvage, fetch.handed_out(), position, error.with_traceback(None))
        records = salvage()
        behind = () if fetch.batches else self._let_go(key, fetch)
        return Chunk(position, chain(records, behind), fetch.position, salvage, fetch)

    def _let_go(self, key: TopicPartition, fetch: _Fetch) -> Iterator[RawRecord]:
        """Forget a fetch after its last record, so that an idle partition keeps no bytes."""
        if self._begun.get(key) is fetch:
            del self._begun[key]
        yield from ()

    def _starts(self, key: TopicPartition) -> int | None:
        """Return the start of a partition, if it is known and was not returned before."""
        return None if key in self._positions else position_of(self._consumer, key)

    def _begin(self, key: TopicPartition) -> _Fetch | None:
        """Take a partition's fetch from the buffer, if it still belongs to the assignment and the position."""
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
        # From here on the client fetches what follows this fetch.
        state.consumed_to(fetch.end)
        self._drop(key)
        return fetch

    def _drop(self, key: TopicPartition) -> None:
        del self._fetcher._records[key]
        self._fetcher._notify(self._fetcher._wait_consume_future)


class _Fetch:
    """One fetch of one partition, its batches still compressed; ``position`` moves as they are handed out."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._committed_only = records._isolation_level == aiokafka_fetcher.READ_COMMITTED
        memory = records._records
        self._raw: bytes = memory.raw
        self.size = len(self._raw)
        self.position: int = records.next_fetch_offset
        self.batches: deque[Any] = deque()
        # Only the batches that are complete: the broker cuts the last one at any byte. A wrong length, or another
        # format, is rarer. What follows such a batch is fetched again, and is then the first of its fetch.
        with contextlib.suppress(Exception):
            self.batches.extend(iter(memory.next_batch, None))
        self._count = len(self.batches)
        # A smaller fetch has no batch whose headers could be too large.
        self._large = {
            index: raw
            for index, raw in enumerate(_slices_of(self._raw) if self.size > MAX_HEADER_BYTES else ())
            if len(raw) > MAX_HEADER_BYTES and index < self._count
        }
        self.end = self.batches[-1].next_offset if self.batches else self.position

    def __len__(self) -> int:
        return self.size

    def require_batch(self) -> None:
        """Raise CorruptBatchError when not even the first batch is complete."""
        if not self.batches:
            where = self.position
            raise CorruptBatchError(where, f"the length of the batch at offset {where} is wrong", where + 1)

    def end_within(self, highwater: int) -> None:
        """Bound the end offset that the last batch states, if it lies beyond the end of the log and is wrong.

        A wrong end would make the client fetch from an offset that does not exist, and the partition would be reset to
        its beginning before the batch is read and its checksum verified. Records beyond the end that came with the
        fetch may be right: a broker notes the end of the log and then reads, so records written in between are read as
        well. To stop before those would fetch them twice. So the checksum is verified here.
        """
        if self.end > highwater and not self.batches[-1].validate_crc():
            self.end = highwater
        self.end = max(self.position, self.end)

    def next_batch(self) -> Any:
        """Return the next batch with records for this reader, or None; skips the others as aiokafka's generator does.

        By Kafka's rules control batches are never shown. Under read_committed batches of an aborted transaction are not
        shown either, from the first offset of the transaction to its abort marker.
        """
        records = self._records
        while self.batches:
            batch = self.batches[0]
            if records._check_crcs and not batch.validate_crc():
                raise self._wrong_checksum(batch)
            try:
                aborted = self._committed_only and batch.producer_id is not None and self._aborted(batch)
            except Exception as error:  # a marker that cannot be read
                raise self._not_uncompressed(max(self.position, _base_of(batch)), batch.next_offset, error) from error
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
        """Make the error; the end offset that the corrupt batch states is trusted only up to the next batch."""
        where = max(self.position, _base_of(batch))
        behind = _base_of(self.batches[1]) if len(self.batches) > 1 else self.end
        next_offset = max(where + 1, min(batch.next_offset, behind))
        return CorruptBatchError(where, f"the checksum of the batch at offset {where} is wrong", next_offset)

    def refuse_large_headers(self) -> None:
        """Raise LargeHeadersError for the batch handed out last; one that is compressed is refused by its decoder."""
        raw = self._large.get(self.handed_out())
        if raw is not None and raw[16] >= 2 and not raw[22] & CODEC:
            refuse_large_headers(raw[HEADER.size :])

    def share_of(self, batches: int) -> int:
        """Return the bytes of the last ``batches`` handed out, as if all batches of the fetch were of one size."""
        before = self._count - len(self.batches) - batches
        return self.size * (before + batches) // self._count - self.size * before // self._count

    def handed_out(self) -> int:
        """Return the index of the batch handed out last."""
        return self._count - len(self.batches) - 1

    def reread(self, index: int) -> Iterator[RawRecord]:
        """Return the records of a batch that was handed out, parsed again."""
        batch: Any = MemoryRecords(bytes(self._bytes_of(index))).next_batch()
        return iter(batch)

    def salvage(self, index: int, position: int, error: Exception) -> Iterator[RawRecord]:
        """Return the records of a batch that was handed out, from ``position`` on; raises as ``RawFetch.salvage``."""
        raw = self._bytes_of(index)
        if isinstance(error, UnicodeDecodeError | LargeHeadersError):
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
        raise self._not_uncompressed(where, self.position, error) from error

    def _too_large(self, where: int, error: TooLargeError) -> BatchTooLargeError:
        explanation = (
            f"the batch at offset {where} is larger than kafka.max_batch_bytes ({error.max_bytes}) when uncompressed;"
            " set a higher limit, or move the group past the batch"
        )
        return BatchTooLargeError(where, explanation, self.position)

    @staticmethod
    def _not_uncompressed(where: int, next_offset: int, error: Exception) -> CorruptBatchError:
        explanation = f"the batch at offset {where} cannot be uncompressed: {type(error).__name__}"
        return CorruptBatchError(where, explanation, next_offset)

    def _bytes_of(self, index: int) -> memoryview:
        return next(islice(_slices_of(self._raw), index, None))


def _slices_of(raw: bytes) -> Iterator[memoryview]:
    """Yield the bytes of each batch, which begins with eight bytes of offset and four of the remaining length."""
    view, at = memoryview(raw), 0
    while at + 12 <= len(raw):
        end = at + 12 + struct.unpack_from(">i", raw, at + 8)[0]
        if end < at + 12:  # a wrong length: there is nothing behind it
            return
        yield view[at:end]
        at = end


def _timestamp_of(batch: Any) -> int | None:
    """Return the timestamp of a batch's first record; the oldest formats do not state it."""
    return getattr(batch, "max_timestamp" if getattr(batch, "timestamp_type", 0) else "first_timestamp", None)


def _base_of(batch: Any) -> int:
    """Return a batch's first offset; -1 for the oldest formats, which state only the last one."""
    return getattr(batch, "base_offset", -1)
