"""A source that ends: what a redrive reads, up to its last letter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from consumer.delivery.engine import Engine
from consumer.kafka.source import KafkaSource
from consumer.partition.chunk import Chunk
from consumer.record import Position, RawRecord, TopicPartition


class BoundedSource:
    """A source that ends behind the last letter to run; what comes after it is not even delivered."""

    def __init__(self, source: KafkaSource, ends: Mapping[TopicPartition, int]) -> None:
        """Bound a source; ``ends`` are offsets to read next, and a partition without one delivers nothing."""
        self._source = source
        self._ends = ends
        self._over: set[TopicPartition] = set()
        self.commit = source.commit
        self.end_offsets = source.end_offsets

    async def start(self, engine: Engine) -> None:
        """Join the group, and pass its decisions on to the engine."""
        self.revoke, self.halt, self._assign = engine.revoke, engine.halt, engine.assign
        await self._source.start(self)

    def assign(self, keys: Collection[TopicPartition]) -> None:
        """Begin again in every partition."""
        self._over.clear()
        self._assign(keys)

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Wait for what is below the ends only: what lies behind is ready for ever, and no wait would end by it."""
        await self._source.wait([key for key in wanted if key not in self._over], seconds)

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return something."""
        return key not in self._over and self._source.ready(key)

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return what comes next below the end."""
        chunk = self._source.take(key) if key not in self._over else None
        return self._cut(key, chunk) if chunk is not None else None

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return what can still be read below the end."""
        return self._cut(key, self._source.salvage(key, position, error))

    def _cut(self, key: TopicPartition, chunk: Chunk) -> Chunk:
        end = self._ends.get(key, 0)
        if chunk.next_offset < end:
            return chunk
        self._over.add(key)
        return Chunk(chunk.first_offset, _below(end, chunk.records), max(chunk.first_offset, end), chunk.reread)


def _below(end: int, records: Iterable[RawRecord]) -> Iterator[RawRecord]:
    """Yield what lies below an offset, and do not even look at what is behind: it might be unreadable."""
    for raw in records:
        if raw.offset < end:
            yield raw
        if raw.offset + 1 >= end:
            return


def ends_of(to_run: Iterable[Position]) -> dict[TopicPartition, int]:
    """Return for each partition the offset behind its last letter to run."""
    ends: dict[TopicPartition, int] = {}
    for topic, partition, offset in to_run:
        key = TopicPartition(topic, partition)
        ends[key] = max(ends.get(key, 0), offset + 1)
    return ends
