"""One partition as a broker keeps it: it can be read again from the committed offset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from consumer.partition.chunk import Chunk
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from tests.unit.delivery.handlers import Gate
from tests.unit.delivery.source import KEY, MemorySource, RawRecord


def keyed(keys: Iterable[bytes | None], value: bytes = b"x", first: int = 0) -> list[RawRecord]:
    return [RawRecord(offset, value, key) for offset, key in enumerate(keys, first)]


class LogSource(MemorySource):
    """A partition that is read again from the committed offset; it notes commits that run ahead."""

    def __init__(
        self, records: Iterable[RawRecord], chunk_records: int = 1000, *, gate: Gate | None = None, serving: bool = True
    ) -> None:
        super().__init__()
        self.records = list(records)
        self.end = self.records[-1].offset + 3 if self.records else 0
        self.position = 0
        self.serving = serving
        self.done: set[int] = gate.done if gate is not None else set()
        self.ahead: list[tuple[int, list[int]]] = []
        """Commits, each with the records below it that were not done."""
        self._chunk_records = chunk_records

    def ready(self, key: TopicPartition) -> bool:
        return self.serving and key == KEY and self.position < self.end

    def take(self, key: TopicPartition) -> Chunk | None:
        if not self.ready(key):
            return None
        left = [record for record in self.records if record.offset >= self.position]
        taken, rest = left[: self._chunk_records], left[self._chunk_records :]
        first, self.position = self.position, rest[0].offset if rest else self.end
        return Chunk(first, iter(taken), self.position, lambda: taken)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        undone = [each.offset for each in self.records if each.offset < offsets[KEY] and each.offset not in self.done]
        if undone:
            self.ahead.append((offsets[KEY], undone))
        return await super().commit(offsets)

    @property
    def committed(self) -> int:
        return self.commits[-1][KEY] if self.commits else 0

    def rewind(self) -> None:
        """Go back to what is committed, as a new owner would."""
        self.position = self.committed


def is_at(partition: Partition, position: int) -> bool:
    return partition.position == position


def is_committed(source: LogSource, offset: int) -> bool:
    return source.committed == offset


def check_commits_never_fall(source: LogSource) -> None:
    offsets = [commit[KEY] for commit in source.commits]
    assert offsets == sorted(set(offsets))
