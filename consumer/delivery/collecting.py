"""A batch while it is collected: its events, and what finds its raw records again. Pure: no calls, no clock.

A batch keeps its raw records when few of a chunk's records are in it. When most are, it keeps what reads the chunk
again, as the raw records are needed only if the batch fails. What it keeps counts in the partition's room.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from consumer.partition.chunk import Chunk, size_of
from consumer.partition.state import Partition
from consumer.record import RawRecord
from consumer.routes.handler import Handler
from consumer.settings.sections import Delivery

MANY = 64
"""Records of a chunk in one batch that make it worth while to keep the chunk instead of them."""


class Part(NamedTuple):
    """Records of a batch that are not kept: the first ``length`` from ``start`` on that are the route's."""

    reread: Callable[[], Iterable[RawRecord]]
    fetch: Sized | None
    start: int
    length: int


class Collected(msgspec.Struct):
    """A batch that is complete."""

    length: int
    """Number of events: the handler may change the list."""
    events: list[Any]
    raws: list[RawRecord]
    """Raw records of the events that are in no part."""
    parts: list[Part]
    first: int
    """Offset of its first record."""
    size: int
    """Bytes of the values, and of the rest of the raw records that are kept."""

    def reread(self, belongs: Callable[[RawRecord], bool]) -> list[RawRecord]:
        """Return the raw records; read those that were not kept again, and take what ``belongs``."""
        found = list(self.raws)
        for reread, _, start, length in self.parts:
            records = (raw for raw in _read_until_error(reread) if raw.offset >= start and belongs(raw))
            found += islice(records, length)
        if len(found) != self.length:
            raise RuntimeError(f"a batch of {self.length} events had {len(found)} when it was read again")
        return sorted(found, key=attrgetter("offset"))


class Collecting:
    """Collects the events of one route and one partition; as long-lived as the partition's workers.

    It holds the watermark at its first record until the caller of the batch releases that. The flat loop
    (``dispatch.py``) fills ``events``, ``raws`` and ``size`` inline, which saves a call for each event.
    """

    def __init__(self, partition: Partition, handler: Handler, limits: Delivery) -> None:
        """Half of the partition's room bounds a batch: one is collected while another is called."""
        self.max_records = min(handler.max_records, max(1, limits.max_in_flight_records // 2))
        self.max_bytes = max(1, limits.max_in_flight_bytes // 2)
        self.keeps_raws = True
        self.events: list[Any] = []
        """Replaced by a new list at each ``complete``."""
        self.raws: list[RawRecord] = []
        self.size = 0
        self.first = -1
        self._wants_record, self._wants_bytes = handler.wants_record, handler.wants_bytes
        self._limits = limits
        self._partition = partition
        self._parts: list[Part] = []
        self._chunk: Chunk | None = None
        self._span = 0
        """Offsets of this chunk."""
        self._noted = 0
        """Events whose chunk is noted in ``_parts``, or which need none."""
        self._matched = 0
        """Events of this chunk, in this batch and in those before."""
        self._most_match = False
        """Whether most records of the last chunk were the route's."""

    @property
    def is_full(self) -> bool:
        """Whether the batch is to be called before another event is added."""
        return len(self.events) >= self.max_records or self.size >= self.max_bytes

    @property
    def room(self) -> tuple[int, int]:
        """Events and bytes that the batch may have, as the partition's room is now."""
        records, size = self._partition.occupied
        left, left_bytes = self._limits.max_in_flight_records - records, self._limits.max_in_flight_bytes - size
        return min(self.max_records, len(self.events) + left), min(self.max_bytes, self.size + left_bytes)

    def begin(self, offset: int) -> None:
        """Begin a batch with the record at ``offset``."""
        self._partition.watermark.hold_batch(offset)
        self.first = offset

    def add(self, event: Any, raw: RawRecord) -> None:
        """Add one event; its record is done when the batch is."""
        if not self.events:
            self.begin(raw.offset)
        value: Any = raw.value  # never None: batch routes take no tombstones
        self.events.append(value if self._wants_bytes else event)
        self.size += size_of(raw) if self.keeps_raws else len(value)
        if self.keeps_raws:
            self.raws.append(raw)

    def begin_chunk(self, chunk: Chunk) -> None:
        """Note the chunk of the next records, and whether to keep these or the chunk."""
        self._note_part()
        self._chunk, self._span, self._matched = chunk, chunk.next_offset - chunk.first_offset, 0
        self.keeps_raws = self._wants_record or chunk.reread is None or not self._most_match

    def end_chunk(self) -> None:
        """Drop the chunk unless an event needs it; the next one is expected to be like it."""
        self._note_part()
        self._most_match = 2 * self._matched >= max(self._span, 2 * MANY)
        self._chunk = None

    def complete(self) -> Collected:
        """Return what was collected, and begin with nothing."""
        self._note_part()
        collected = Collected(len(self.events), self.events, self.raws, self._parts, self.first, self.size)
        self.events, self.raws, self._parts, self.size, self._noted = [], [], [], 0, 0
        return collected

    def let_go(self, collected: Collected) -> None:
        """Count the fetches of a batch as no longer kept."""
        for part in collected.parts:
            self._partition.keep(part.fetch, -1)
        collected.parts = []

    def _note_part(self) -> None:
        """Note what reads the events again that were added since the last time."""
        count, chunk = len(self.events) - self._noted, self._chunk
        if count and not self.keeps_raws and chunk is not None and chunk.reread is not None:
            self._parts.append(Part(chunk.reread, chunk.fetch, max(self.first, chunk.first_offset), count))
            self._partition.keep(chunk.fetch, 1)
        self._matched += count
        self._noted = len(self.events)


def _read_until_error(reader: Callable[[], Iterable[RawRecord]]) -> Iterator[RawRecord]:
    """Yield the records of a chunk up to one that cannot be read; records salvaged behind it are another chunk."""
    with contextlib.suppress(Exception):
        yield from reader()
