"""The source of a redrive or a replay: it ends at the last record to run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import dropwhile

from consumer.delivery.engine import Engine
from consumer.kafka.client_source import ClientSource
from consumer.partition.chunk import Chunk
from consumer.record import Position, RawRecord, TopicPartition


class BoundedSource:
    """A source that ends at the last record to run: later ones are not delivered, so no commit passes them."""

    def __init__(
        self,
        source: ClientSource,
        ends: Mapping[TopicPartition, int],
        wanted: Callable[[RawRecord], bool] | None = None,
        begins: Mapping[TopicPartition, int] | None = None,
    ) -> None:
        """Bound a source; ``ends`` holds the offset after each partition's last record; without one, none is read.

        ``wanted`` leaves out the records for which it returns False, and ``begins`` those below a partition's offset.
        """
        self._source = source
        self._ends = ends
        self._wanted = wanted
        self._begins = begins or {}
        self._ended: set[TopicPartition] = set()
        self.commit = source.commit

    async def start(self, engine: Engine) -> None:
        """Join the group and forward its assignments to the engine."""
        self.revoke, self.settles, self.halt, self.doubt = engine.revoke, engine.settles, engine.halt, engine.doubt
        self._assign = engine.assign
        await self._source.start(self)

    def assign(self, keys: Collection[TopicPartition]) -> None:
        """Forget which partitions are read to their end, and pass the assignment on."""
        self._ended.difference_update(keys)
        self._assign(keys)

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Wait for partitions that have not reached their end: letters after an end would always count as ready."""
        await self._source.wait([key for key in wanted if key not in self._ended], seconds)

    def is_read(self, key: TopicPartition) -> bool:
        """Whether the last chunk of a partition was taken."""
        return key in self._ended

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return a chunk."""
        return key not in self._ended and self._source.ready(key)

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the next chunk below the end."""
        chunk = self._source.take(key) if key not in self._ended else None
        return self._cut(key, chunk) if chunk is not None else None

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return the readable records below the end of a chunk that raised ``error``."""
        return self._cut(key, self._source.salvage(key, position, error))

    def _cut(self, key: TopicPartition, chunk: Chunk) -> Chunk:
        end = self._ends.get(key, 0)
        records, next_offset = chunk.records, chunk.next_offset
        if next_offset >= end:
            self._ended.add(key)
            records, next_offset = _below(end, records), max(chunk.first_offset, end)
        begin = self._begins.get(key, 0)
        if chunk.first_offset < begin:
            records = dropwhile(lambda raw: raw.offset < begin, records)
        if self._wanted is not None:
            records = filter(self._wanted, records)
        return Chunk(chunk.first_offset, records, next_offset, chunk.reread, chunk.fetch, chunk.timestamp)


def _below(end: int, records: Iterable[RawRecord]) -> Iterator[RawRecord]:
    """Yield the records below an offset; do not read the records after it, which may be unreadable."""
    for raw in records:
        if raw.offset < end:
            yield raw
        if raw.offset + 1 >= end:
            return


def ends_of(to_run: Iterable[Position]) -> dict[TopicPartition, int]:
    """Return for each partition the offset after its last letter to run."""
    ends: dict[TopicPartition, int] = {}
    for topic, partition, offset in to_run:
        key = TopicPartition(topic, partition)
        ends[key] = max(ends.get(key, 0), offset + 1)
    return ends
