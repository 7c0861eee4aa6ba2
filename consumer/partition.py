"""One owned partition: what was delivered, what is done, what may be committed, and how much room is left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from consumer.outcome import HaltReason
from consumer.record import TopicPartition


class Chunk(msgspec.Struct, gc=False):
    """A slice of one partition's fetch: raw records in offset order, and the offset to read after them.

    ``next_offset`` may lie past the last record + 1: transaction markers and compacted ranges hold no records. A chunk
    without records only says that the position moved.
    """

    key: TopicPartition
    records: Sequence[Any]
    next_offset: int


class Halt(NamedTuple):
    """Why and where a partition waits for a person."""

    reason: HaltReason
    offset: int
    explanation: str


class Partition:
    """The state of one partition in one epoch: made when it is assigned, dropped when it is revoked.

    Invariants, with offsets meaning "next to read":
    - ``committed`` ≤ ``done`` ≤ ``position``
    - every record that was delivered below ``done`` has its outcome
    - ``in_flight_records`` and ``in_flight_bytes`` count what was delivered and is not below ``done``
    """

    def __init__(self, key: TopicPartition, epoch: int) -> None:
        self.key = key
        self.epoch = epoch
        self.position: int | None = None
        self.done = -1
        self.committed = -1
        self.end_offset: int | None = None
        self.in_flight_records = 0
        self.in_flight_bytes = 0
        self.halt: Halt | None = None
        self.closing = False
        self.chunks: deque[Chunk] = deque()
        self.wake = asyncio.Event()
        self.current_route: str | None = None

    def start(self, offset: int) -> None:
        """Note where this epoch begins: what lies below was done by others."""
        self.position = self.done = self.committed = offset

    def deliver(self, chunk: Chunk) -> None:
        """Take a chunk in; its records are in flight from here on."""
        if self.position is None:
            self.start(chunk.records[0].offset if chunk.records else chunk.next_offset)
        self.position = chunk.next_offset
        self.in_flight_records += len(chunk.records)
        self.in_flight_bytes += sum(map(size_of, chunk.records))
        self.chunks.append(chunk)
        self.wake.set()

    def finish(self, raw: Any) -> None:
        """Note that a record has its outcome; called in offset order."""
        self.done = raw.offset + 1
        self.in_flight_records -= 1
        self.in_flight_bytes -= size_of(raw)

    def finish_chunk(self, chunk: Chunk) -> None:
        """Note that all of a chunk is done, and with it the markers and gaps behind its last record."""
        self.done = chunk.next_offset

    def close(self) -> None:
        """Start nothing more; what was delivered and not started is forgotten here and read again by its next owner."""
        self.closing = True
        self.chunks.clear()
        self.wake.set()

    def stop_at(self, halt: Halt) -> None:
        """Halt: wait for a person, with nothing delivered past the record that has no outcome."""
        self.halt = halt
        self.chunks.clear()
        self.in_flight_records = self.in_flight_bytes = 0

    def room(self, max_records: int, max_bytes: int) -> int:
        """Count the records that may still be delivered; 0 when either budget is used up."""
        if self.closing or self.halt is not None or self.in_flight_bytes >= max_bytes:
            return 0
        return max(0, max_records - self.in_flight_records)


def size_of(raw: Any) -> int:
    """Bytes of a raw record's key and value."""
    return (len(raw.key) if raw.key is not None else 0) + (len(raw.value) if raw.value is not None else 0)
