"""Kafka's place in a test: a source of given records, and a taker of commits, dead letters and written records."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.letter import Writer
from consumer.partition.chunk import Chunk
from consumer.record import NewRecord, RawRecord, Record, TopicPartition

Headers = tuple[tuple[str, bytes | None], ...]


class GivenRecord(msgspec.Struct, eq=False):
    """A record that a test gave, as the engine takes it, and what became of it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    outcomes: dict[str, str] = {}
    """Outcome by route, of every route that it has; ``waiting`` without one yet."""

    @property
    def record(self) -> Record:
        """The Record that a handler gets."""
        return Record(self.topic, self.partition, self.offset, self.timestamp, self.key, self.value, self.headers)


class DeadLetter(NamedTuple):
    """A dead letter as it would have been written."""

    reason: str
    route: str
    """``none`` when the record reached no route."""
    code: str
    """Code of the handler's Reject; empty without one."""
    attempts: int
    error_class: str
    message: str
    """Class and place of the last error; nothing of the event."""
    record: Record
    """The record that failed."""
    topic: str
    """The topic that the letter would have been written to."""
    headers: Headers
    """Headers of the letter: the record's own, and those with the cause."""


class GivenSource:
    """Delivers records in the order in which they were given; takes every commit and every dead letter."""

    def __init__(self, writer: Writer) -> None:
        self.committed: dict[TopicPartition, int] = {}
        """Next offset to read, by partition."""
        self.dead_letters: list[DeadLetter] = []
        self.written: list[NewRecord] = []
        self._writer = writer
        self._chunks: dict[TopicPartition, list[Chunk]] = {}
        self._next: dict[TopicPartition, int] = {}
        self._given = asyncio.Event()

    def next_offset(self, key: TopicPartition, wanted: int = 0) -> int:
        """Take the next offset of a partition, or ``wanted`` if that is higher."""
        offset = max(self._next.get(key, 0), wanted)
        self._next[key] = offset + 1
        return offset

    def give(self, records: list[GivenRecord]) -> None:
        """Deliver records of one partition, in their order, as one record batch."""
        key = TopicPartition(records[0].topic, records[0].partition)
        chunk = Chunk(records[0].offset, iter(records), records[-1].offset + 1, lambda: records)
        self._chunks.setdefault(key, []).append(chunk)
        self._given.set()

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:  # noqa: ARG002
        """Return when one of these partitions has a record."""
        if not any(map(self.ready, wanted)):
            self._given.clear()
            await self._given.wait()
        await asyncio.sleep(0)  # the woken worker takes it

    def ready(self, key: TopicPartition) -> bool:
        """Whether a partition has a record."""
        return bool(self._chunks.get(key))

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the next record of a partition."""
        return self._chunks[key].pop(0) if self.ready(key) else None

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:  # noqa: ARG002
        """Raise the error: records in memory can all be read."""
        raise error

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Take a commit."""
        self.committed |= offsets
        return "ok"

    async def write(self, key: TopicPartition, raw: RawRecord, cause: Cause) -> None:
        """Take a dead letter."""
        given: Any = raw
        letter = self._writer.letter(key, raw, cause)
        given.outcomes[cause.route] = "dead_lettered"
        self.dead_letters.append(
            DeadLetter(
                cause.reason,
                cause.route,
                cause.code,
                cause.attempts,
                cause.error_class,
                cause.message,
                given.record,
                letter.topic,
                tuple(letter.headers),
            )
        )

    async def look(self) -> None:
        """Do nothing: every letter is taken at once."""


class GivenWriter:
    """Takes every record that a handler writes to another topic."""

    def __init__(self, written: list[NewRecord]) -> None:
        self._written = written

    async def write(self, records: Sequence[NewRecord]) -> Sequence[None]:
        """Take records."""
        self._written += records
        return [None] * len(records)

    async def close(self) -> None:
        """Do nothing."""
