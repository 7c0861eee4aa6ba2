"""A batch while it is collected: its events, and what finds its raw records again. Pure: no calls, no clock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from consumer.partition.chunk import Chunk
from consumer.partition.state import Partition
from consumer.record import RawRecord
from consumer.routes.handler import Handler

Reader = Callable[[], Iterable[RawRecord]]


class Collected(NamedTuple):
    """A batch that is complete."""

    length: int
    """Number of events: the handler may change the list."""
    events: list[Any]
    raws: list[RawRecord]
    """Raw records of the events, if the handler takes Records; else empty."""
    first: int
    """Offset of its first record."""
    size: int
    """Bytes of the records' values."""
    readers: list[Reader]
    """Read the batch's chunks a second time."""

    def reread(self, belongs: Callable[[RawRecord], bool]) -> list[RawRecord]:
        """Return the raw records; if they were not kept, read the chunks again and take what ``belongs``."""
        if self.raws:
            return self.raws
        found: list[RawRecord] = []
        for raw in chain.from_iterable(map(_read_until_error, self.readers)):
            last = found[-1].offset if found else self.first - 1
            if raw.offset > last and len(found) < self.length and belongs(raw):
                found.append(raw)
        if len(found) != self.length:
            raise RuntimeError(f"a batch of {self.length} events had {len(found)} when it was read again")
        return found


class Collecting:
    """Collects the events of one route and one partition; as long-lived as the partition's workers.

    It holds the watermark at its first record until the caller of the batch releases that. The flat loop
    (``dispatch.py``) fills ``events``, ``raws`` and ``size`` inline, which saves a call for each event.
    """

    def __init__(self, partition: Partition, handler: Handler, max_bytes: int, most: int) -> None:
        """``most`` bounds the handler's ``max_records``: one batch is collected while another is called."""
        self.max_records = min(handler.max_records, most)
        self.max_bytes = max_bytes
        self.keeps_raws = handler.wants_record
        self.events: list[Any] = []
        """Replaced by a new list at each ``complete``."""
        self.raws: list[RawRecord] = []
        self.size = 0
        self.first = -1
        self._partition = partition
        self._readers: list[Reader] = []
        self._chunk_reader: list[Reader] = []
        """Reads the current chunk a second time; empty if the chunk cannot be read again."""

    @property
    def is_full(self) -> bool:
        """Whether the batch is to be called before another event is added."""
        return len(self.events) >= self.max_records or self.size >= self.max_bytes

    def begin(self, offset: int) -> None:
        """Begin a batch with the record at ``offset``."""
        self._partition.watermark.hold(offset)
        self.first = offset

    def add(self, event: Any, raw: RawRecord) -> None:
        """Add one event; its record is done when the batch is."""
        if not self.events:
            self.begin(raw.offset)
        self.events.append(event)
        if self.keeps_raws:
            self.raws.append(raw)
        value: Any = raw.value  # never None: batch routes take no tombstones
        self.size += len(value)

    def begin_chunk(self, chunk: Chunk) -> None:
        """Note the chunk of the next records: raw records are not kept, so a failed batch reads its chunks again."""
        self._chunk_reader = [chunk.reread] if chunk.reread is not None else []
        self._readers = [*self._readers, *self._chunk_reader] if self.events else self._chunk_reader

    def end_chunk(self) -> None:
        """Drop the reference to a chunk when no collected event came from it."""
        self._chunk_reader = []
        if not self.events:
            self._readers = []

    def complete(self) -> Collected:
        """Return what was collected, and begin with nothing."""
        collected = Collected(len(self.events), self.events, self.raws, self.first, self.size, self._readers)
        self.events, self.raws, self._readers, self.size = [], [], self._chunk_reader, 0
        return collected


def _read_until_error(reader: Reader) -> Iterator[RawRecord]:
    """Yield the records of a chunk up to one that cannot be read; records salvaged behind it are another chunk."""
    with contextlib.suppress(Exception):
        yield from reader()
