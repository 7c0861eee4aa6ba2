"""A source in memory for the tests of the engine; it can fail in ways that a real broker cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from consumer.errors import CorruptBatchError
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition

KEY = TopicPartition("t", 0)


class RawRecord(NamedTuple):
    """One record as the Kafka client delivers it."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def a_record(offset: int, value: bytes | None = b"x") -> RawRecord:
    return RawRecord(offset, value)


def a_chunk(first: int, count: int, next_offset: int | None = None) -> Chunk:
    records = [a_record(offset) for offset in range(first, first + count)]
    return Chunk(first, iter(records), first + count if next_offset is None else next_offset, lambda: records)


class MemorySource:
    """A source that delivers the chunks it was given and answers commits as a test asks."""

    def __init__(self) -> None:
        self.chunks: dict[TopicPartition, list[Chunk]] = {}
        self.commits: list[dict[TopicPartition, int]] = []
        self.answers: list[Literal["ok", "failed", "fenced"]] = []
        self.hold_commits: asyncio.Event | None = None
        self.commits_under_way = 0
        self.most_commits_under_way = 0

    def give(self, *chunks: Chunk, key: TopicPartition = KEY) -> None:
        self.chunks.setdefault(key, []).extend(chunks)

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        await asyncio.sleep(0 if any(map(self.ready, wanted)) else 0.001)

    def ready(self, key: TopicPartition) -> bool:
        return bool(self.chunks.get(key))

    def take(self, key: TopicPartition) -> Chunk | None:
        return self.chunks[key].pop(0) if self.ready(key) else None

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        raise CorruptBatchError(
            position, f"the batch at offset {position} is broken: {type(error).__name__}", position + 1
        )

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        self.commits_under_way += 1
        self.most_commits_under_way = max(self.most_commits_under_way, self.commits_under_way)
        try:
            if self.hold_commits is not None:
                await self.hold_commits.wait()
            self.commits.append(dict(offsets))
            return self.answers.pop(0) if self.answers else "ok"
        finally:
            self.commits_under_way -= 1
