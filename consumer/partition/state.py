"""The state of one owned partition: its position, watermark, commits, limits, halt and holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Sized
from enum import Enum
from typing import Protocol

from consumer.partition.chunk import Chunk
from consumer.partition.hold import Halt, Hold
from consumer.partition.lag import Lag
from consumer.partition.watermark import Watermark
from consumer.record import TopicPartition


class Phase(Enum):
    """What may start in a partition; only its gate changes it, and only downwards."""

    OPEN = "every call may start"
    CLOSING = "the drain has begun: only what was collected or queued may start"
    HALTED = "as CLOSING, and then a person is waited for"
    OVER = "the drain has ended: calls that still run have no owner, and their results change nothing"


class InFlight(Protocol):
    """An owner of records in flight: a batch, or the workers."""

    @property
    def in_flight(self) -> tuple[int, int]:
        """Number of records and bytes."""


class Partition:
    """The state of one partition in one epoch; made when it is assigned, dropped when it is revoked.

    Invariants, with offsets meaning "next to read":
    - ``committed`` ≤ ``done`` ≤ ``position``
    - every record that was delivered below ``done`` has its outcome
    - ``held_records`` and ``held_bytes`` count records held one by one, each once: their calls wait, they queue, or
      their letters are written
    - ``kept_bytes`` counts the fetches that batches keep, each once, but for the fetch in work
    """

    def __init__(self, key: TopicPartition, epoch: int) -> None:
        self.key = key
        self.epoch = epoch
        self.started = False
        """Whether the offset at which this epoch begins is known."""
        self.watermark = Watermark(-1)
        self.committed = -1
        self.fenced = False
        """Whether the epoch has ended: nothing is committed any more."""
        self.lag = Lag()
        self.held_records = 0
        self.held_bytes = 0
        self.kept_bytes = 0
        self._fetches: Counter[Sized] = Counter()
        """How often each fetch is kept."""
        self._in_work = 0
        """Identity of the fetch that the current chunk, or the last one, is of."""
        self.batches: Sequence[InFlight] = ()
        self.pulled: InFlight | None = None
        """The record that is worked on and that nothing holds, as with ordering ``partition``."""
        self.halt: Halt | None = None
        self.phase = Phase.OPEN
        self.pauses: set[Hold] = set()
        """Holds that pause the partition: no other call starts until they end."""
        self.holds: set[Hold] = set()

    def start(self, offset: int) -> None:
        """Note the first offset of this epoch; records below it were done in earlier ones."""
        self.watermark = Watermark(offset)
        self.committed = offset
        self.started = True

    @property
    def position(self) -> int | None:
        """Next offset to be delivered; None until the start is known."""
        return self.watermark.position if self.started else None

    @property
    def done(self) -> int:
        """Offset below which every record is done; -1 until the start is known."""
        return self.watermark.done

    @property
    def known_committed(self) -> int | None:
        """Committed offset; None until the start is known, which is before the first record."""
        return self.committed if self.started else None

    @property
    def to_commit(self) -> int | None:
        """Offset to commit now; None if the group has committed it already."""
        done = self.done
        return done if done > self.committed else None

    def commit(self, offset: int) -> None:
        """Note the offset that was committed."""
        self.committed = offset
        self.lag.ages.forget_below(offset)
        self.lag.ends.forget_below(offset)

    @property
    def lag_records(self) -> int | None:
        """Offsets between the committed one and the end; None until both are known."""
        return self.lag.records(self.known_committed, self.position)

    @property
    def position_lag_records(self) -> int | None:
        """Offsets between the position and the end; None until both are known."""
        return self.lag.records(self.position, None)

    def lag_seconds(self, wall: float) -> float | None:
        """Return the age of the oldest record that is not committed; 0 without any, None while that is not known."""
        return self.lag.seconds(self.known_committed, self.position, wall)

    @property
    def ended(self) -> bool:
        """Whether no call may start for the first time, because the partition is closing, halted or over."""
        return self.phase is not Phase.OPEN

    @property
    def occupied(self) -> tuple[int, int]:
        """Room in use: records that are held or in batches, once for each batch, and bytes of what these keep."""
        records, size = self.held_records, self.held_bytes + self.kept_bytes
        for batch in self.batches:
            more_records, more_bytes = batch.in_flight
            records, size = records + more_records, size + more_bytes
        return records, size

    @property
    def in_flight(self) -> tuple[int, int]:
        """Number and bytes of records that are delivered and not done; one in work counts although nothing holds it."""
        records, size = self.occupied
        return self.pulled.in_flight if not records and self.pulled is not None else (records, size)

    @property
    def held(self) -> list[Hold]:
        """Holds without a time limit: they wait for something outside this daemon."""
        return [hold for hold in list(self.holds) if hold.kind in ("retry", "pause", "dead_letter", "group")]

    def hold(self, offset: int, size: int) -> None:
        """Count a record as in flight; the watermark stays at or below ``offset`` until it is released."""
        if self.watermark.hold(offset):
            self.held_records += 1
            self.held_bytes += size

    def release(self, offset: int, size: int) -> None:
        """Count a held record as done."""
        if self.watermark.release(offset):
            self.held_records -= 1
            self.held_bytes -= size

    def begin_chunk(self, chunk: Chunk) -> None:
        """Note the fetch in work. It does not count: a partition always may have one, however small its room is."""
        self._in_work = id(chunk.fetch)
        self._count_fetches()

    def keep(self, fetch: Sized | None, times: int) -> None:
        """Count a fetch that a batch keeps, or with -1 one that it no longer keeps."""
        if fetch is not None:
            self._fetches[fetch] += times
            self._fetches += Counter()  # without those that are no longer kept
            self._count_fetches()

    def _count_fetches(self) -> None:
        self.kept_bytes = sum(len(fetch) for fetch in self._fetches if id(fetch) != self._in_work)
