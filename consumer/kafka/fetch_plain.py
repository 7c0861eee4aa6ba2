"""The plain fetch path: chunks from aiokafka's public ``getmany``, at three times the cost of the raw path.

The fallback when aiokafka's private parts that ``fetch_raw.py`` reads have changed, and a reference in tests.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import aiokafka

from consumer.errors import CorruptBatchError, KafkaError
from consumer.kafka.client import position_of
from consumer.kafka.failures import ClientError
from consumer.kafka.plain_batch import MAX_HEADER_BYTES, BadHeaderRecord, PlainRecord
from consumer.partition.chunk import Chunk, size_of
from consumer.record import RawRecord, TopicPartition

NOWHERE = aiokafka.TopicPartition("", 0)
"""A partition that is never assigned, because ``getmany()`` without partitions means all of them."""
MAX_RECORDS = 500
BUSY_SECONDS = 0.02


class _Fetched:
    """Records that ``getmany`` returned at once, as long-lived as what reads them again."""

    def __init__(self, records: Sequence[RawRecord]) -> None:
        sizes = list(map(size_of, records))
        self.records = [
            _refused(raw) if size > MAX_HEADER_BYTES else raw for raw, size in zip(records, sizes, strict=True)
        ]
        self._size = sum(sizes)

    def __len__(self) -> int:
        return self._size

    def reread(self) -> Sequence[RawRecord]:
        """Return the same records again."""
        return self.records


def _refused(raw: RawRecord) -> RawRecord:
    """Return a record, or what stands for it if its headers are too large."""
    size = encoded_size(raw.headers)
    if size <= MAX_HEADER_BYTES:
        return raw
    return BadHeaderRecord.of_size(PlainRecord(raw.offset, raw.timestamp, raw.key, raw.value, list(raw.headers)), size)


def encoded_size(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Return the size of the encoding of headers that were parsed, with their number in front."""
    fields = (field for key, value in headers for field in (key.encode(), value))
    sizes = (_varint_size(-1) if field is None else _varint_size(len(field)) + len(field) for field in fields)
    return _varint_size(len(headers)) + sum(sizes)


def _varint_size(number: int) -> int:
    return 1 if number < 0 else max(1, -(-(2 * number).bit_length() // 7))


class PlainFetch:
    """Keeps the records of ``getmany`` until they are taken; owned by the source, as long-lived as its client."""

    fetches_per_partition = 1

    def __init__(self, consumer: Any, bytes_consumed: dict[str, int]) -> None:
        self._consumer = consumer
        self._bytes_consumed = bytes_consumed
        self._chunks: dict[TopicPartition, Chunk] = {}
        self._positions: dict[TopicPartition, int] = {}

    def clear(self) -> None:
        """Forget all fetched records: their partitions are revoked."""
        self._chunks.clear()
        self._positions.clear()

    def forget(self, key: TopicPartition) -> None:
        """Forget the records and the position of a partition whose position was set."""
        self._chunks.pop(key, None)
        self._positions.pop(key, None)

    def has_records(self) -> bool:
        """Whether records of any partition were fetched that are not taken yet."""
        return bool(self._chunks)

    def holds(self, key: TopicPartition) -> bool:
        """Whether records of a partition were fetched that are not pulled yet."""
        return key in self._chunks

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Fetch for the wanted partitions; raises aiokafka's errors.

        After an error, except for those that concern one partition, the client may have lost records of others: their
        position moved and they were not returned. The caller must not use this client again.

        A partition that wants records after this began waits for its end, so it is short while some partitions want
        none. The call is never cancelled: aiokafka would lose count of its polls.
        """
        missing = [aiokafka.TopicPartition(*key) for key in wanted if key not in self._chunks]
        assigned = len(self._consumer.assignment())
        wait_seconds = seconds if len(missing) == assigned else BUSY_SECONDS
        try:
            found = await self._consumer.getmany(
                *(missing or [NOWHERE]), timeout_ms=int(wait_seconds * 1000), max_records=MAX_RECORDS
            )
        except ClientError:
            raise
        except Exception as error:  # from a codec's library, from our limit, or for a header key that is not UTF-8
            why = f"a batch cannot be uncompressed ({type(error).__name__}); only the raw fetch path can skip it"
            raise KafkaError(why) from error
        for key in wanted:
            position = position_of(self._consumer, key)
            if position is not None and (found.get(key) or position != self._positions.get(key)):
                self._keep(key, found.get(key, ()), position)

    def _keep(self, key: TopicPartition, records: Sequence[RawRecord], position: int) -> None:
        start = self._positions.get(key, records[0].offset if records else position)
        self._positions[key] = position
        fetched = _Fetched(records)
        timestamp = records[0].timestamp if records else None
        self._chunks[key] = Chunk(start, iter(fetched.records), position, fetched.reread, fetched, timestamp)
        self._bytes_consumed[key.topic] += sum(len(r.key or b"") + len(r.value or b"") for r in records)

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return something."""
        return key in self._chunks

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the chunk of a partition, once."""
        return self._chunks.pop(key, None)

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Raise CorruptBatchError for the record at ``position``.

        It is never called: ``getmany`` uncompresses the records before a chunk is taken, and on an error ``wait``
        raises. It exists because both fetch paths have the same methods.
        """
        explanation = f"the record at offset {position} of {key} cannot be read: {type(error).__name__}"
        raise CorruptBatchError(position, explanation, position + 1) from error
