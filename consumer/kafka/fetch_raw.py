"""Chunks straight from aiokafka's fetch buffer: compiled records, pulled in place.

``getmany`` spends most of its time turning each record into a Python object. Beneath it the fetcher keeps, for each
partition, the bytes of its last fetch behind a compiled parser; this takes them there, and keeps aiokafka's own books
(position, aborted transactions, buffer) as ``getmany`` would. It reads private attributes of the pinned version:
``supported`` looks whether they are as expected, and the daemon falls back to ``fetch_plain.py`` when they are not.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Collection
from itertools import chain, dropwhile
from typing import Any

import aiokafka
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.memory_records import MemoryRecords

from consumer.errors import CorruptBatchError
from consumer.kafka.client import position_of
from consumer.partition import Chunk
from consumer.record import TopicPartition

MADE_FOR = "0.14.0"
FETCHER_ATTRIBUTES = ("_records", "_create_fetch_waiter", "_notify", "_wait_consume_future")
RECORDS_ATTRIBUTES = ("_consume_aborted_up_to", "_contains_abort_marker")


def supported() -> bool:
    """Whether this aiokafka has the private surface that ``RawFetch`` was written for, compiled parser included."""
    parts = [(aiokafka_fetcher, name) for name in ("FetchResult", "FetchError", "PartitionRecords")]
    if aiokafka.__version__ != MADE_FOR or not all(hasattr(where, name) for where, name in parts):
        return False
    source = inspect.getsource(aiokafka_fetcher.Fetcher)
    return (
        all(name in source for name in FETCHER_ATTRIBUTES)
        and all(hasattr(aiokafka_fetcher.PartitionRecords, name) for name in RECORDS_ATTRIBUTES)
        and "_crecords" in MemoryRecords.__module__
    )


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
        return key in self._fetcher._records or key in self._begun or self._starts(key) is not None

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the next batch with records, or only the position where batches without any moved it; None: nothing.

        Raises CorruptBatchError when a checksum is wrong; nothing of another partition is touched.
        """
        subscription = self._consumer._subscription
        if subscription.reassignment_in_progress:
            return None
        start = self._starts(key)
        if start is not None:
            self._positions.add(key)
            return Chunk(start, iter(()), start)
        fetch = self._begun.get(key) or self._begin(key)
        if fetch is None:
            return None
        start = fetch.position
        batch = fetch.next_batch()
        if not fetch.batches:
            del self._begun[key]
        if batch is None:
            return Chunk(start, iter(()), fetch.position)
        if batch.base_offset < start:  # a commit, or a seek, into the middle of a batch
            return Chunk(start, dropwhile(lambda record: record.offset < start, batch), fetch.position)
        # Several runners pull from the same chunk in turn, each with a loop of its own, and the compiled batch refuses
        # to be asked for an iterator twice: `chain` asks once.
        return Chunk(start, chain(batch), fetch.position)

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
        fetch = self._begun[key] = _Fetch(found._partition_records)
        self._bytes_consumed[key.topic] += fetch.size
        # From here the client fetches on behind this fetch, while this one is worked on.
        assignment = self._consumer._subscription.subscription.assignment
        assignment.state_value(partition).consumed_to(fetch.end)
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
        self.size = memory.size_in_bytes()
        self.position: int = records.next_fetch_offset
        self.batches: deque[Any] = deque()
        while memory.has_next():
            self.batches.append(memory.next_batch())
        self.end = self.batches[-1].next_offset if self.batches else self.position

    def next_batch(self) -> Any:
        """Step over what holds no records for this reader, as aiokafka's generator does; None when only that is left.

        The rules are Kafka's: control batches are never shown; under read_committed a batch of an aborted transaction
        is not either, from the first offset of that transaction to its abort marker.
        """
        records = self._records
        while self.batches:
            batch = self.batches.popleft()
            if records._check_crcs and not batch.validate_crc():
                where = batch.base_offset
                raise CorruptBatchError(where, f"the checksum of the batch at offset {where} is wrong")
            self.position = batch.next_offset
            if self._committed_only and batch.producer_id is not None and self._aborted(batch):
                continue
            if not batch.is_control_batch:
                return batch
        return None

    def _aborted(self, batch: Any) -> bool:
        records = self._records
        records._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and records._contains_abort_marker(batch):
            records._aborted_producers.discard(batch.producer_id)
        return batch.is_transactional and batch.producer_id in records._aborted_producers
