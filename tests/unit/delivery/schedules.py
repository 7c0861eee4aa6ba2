"""Random schedules of records that fail, and the source that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from consumer.errors import CorruptBatchError, DecodeError
from consumer.partition.chunk import Chunk
from consumer.record import RawRecord as AnyRecord
from consumer.record import TopicPartition
from tests.unit.delivery.log_source import LogSource
from tests.unit.delivery.source import RawRecord

SINGLE, BATCHED = ("plain", "wrapped", "at_once", "later"), ("batch", "batch_later", "batch_records")


class Work(SimpleNamespace):
    """One drawn schedule."""

    records: list[RawRecord]
    bad: dict[int, str]
    """Offsets of records that are no events: ``undecodable``, ``bad_header``, ``broken`` (pulling it raises, once)."""
    kinds: list[str]
    """How each route's handler is made; the routes are r0, r1…"""
    wants: dict[tuple[int, int], bool]
    scripts: dict[tuple[int, int], list[str]]
    """What the calls of a route with a record do, one after the other; the last one for ever."""
    yields: dict[int, int]
    letters: dict[int, list[str]]
    """What becomes of the writes of a record's letters before they are taken."""
    delivery: dict[str, Any]
    cut: int
    size: int
    revokes: list[int]
    eager: bool
    """Whether the loop is given back after each record, as if each took long."""


ANSWERS = ("error", "retry", "pause", "connection")


@st.composite
def schedules(draw: st.DrawFn, refused: bool = False) -> Work:
    records, bad, yields, offset = [], {}, {}, -1
    keys = st.sampled_from([None, b"", b"a", b"b", b"c"])
    for _ in range(draw(st.integers(1, 14))):
        offset += draw(st.sampled_from([1, 1, 1, 3]))
        tombstone = draw(st.integers(0, 11)) == 0
        records.append(RawRecord(offset, None if tombstone else b"%d" % offset, draw(keys)))
        yields[offset] = draw(st.sampled_from([0, 0, 1, 3, 30]))
        if not tombstone and draw(st.integers(0, 7)) == 0:
            bad[offset] = draw(st.sampled_from(["undecodable", "bad_header", "broken"]))
    if draw(st.integers(0, 2)):
        kinds = [draw(st.sampled_from(SINGLE + BATCHED))]
    else:
        kinds = [draw(st.sampled_from(SINGLE + BATCHED)) for _ in range(draw(st.integers(2, 3)))]
    numbers = [record.offset for record in records]
    wants, scripts = {}, {}
    for number in numbers:
        for route in range(len(kinds)):
            wants[number, route] = draw(st.integers(0, 4)) > 0
            steps = draw(
                st.lists(st.tuples(st.sampled_from(ANSWERS), st.integers(1, 4)), max_size=2)
                if draw(st.integers(0, 2)) == 0
                else st.just([])
            )
            end = draw(st.sampled_from(["", "", "reject", "reject_all", "error"])) if steps else ""
            scripts[number, route] = [step for step, times in steps for _ in range(times)] + [end]
    kinds_of_letters = ["delayed", "slow", "hang"] + ["refused"] * refused
    return Work(
        records=records,
        bad=bad,
        kinds=kinds,
        wants=wants,
        scripts=scripts,
        yields=yields,
        letters={each: draw(st.lists(st.sampled_from(kinds_of_letters), max_size=3)) for each in numbers},
        delivery={
            "ordering": draw(st.sampled_from(["partition", "key", "unordered"])),
            "concurrency": draw(st.integers(1, 4)),
            "max_in_flight_records": draw(st.integers(1, 12)),
        },
        cut=draw(st.integers(1, 10)),
        size=draw(st.integers(1, 5)),
        revokes=draw(st.lists(st.integers(0, 120), max_size=3)),
        eager=draw(st.booleans()),
    )


class Faulty:
    """A raw record with a header that cannot be read."""

    def __init__(self, whole: AnyRecord) -> None:
        self.offset, self.key, self.timestamp, self.headers = whole.offset, whole.key, 0, ()
        self._whole = whole

    @property
    def value(self) -> bytes:
        raise DecodeError("bad_header", "a header key is not UTF-8", self._whole)


class FaultySource(LogSource):
    """A partition in which some records cannot be read; the rest of a broken chunk is salvaged."""

    def __init__(self, work: Work) -> None:
        super().__init__(work.records, work.cut)
        self.work = work
        self.from_offset = 0
        """Where this epoch began."""
        self._last: list[AnyRecord] = []

    def take(self, key: TopicPartition) -> Chunk | None:
        chunk = super().take(key)
        if chunk is None:
            return None
        assert chunk.reread is not None
        taken = self._last = list(chunk.reread())
        return Chunk(chunk.first_offset, self._read(taken), chunk.next_offset, lambda: self._read(taken))

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        if not isinstance(error, UnicodeError):
            raise CorruptBatchError(position, "not what was expected", position + 1)
        rest = [record for record in self._last if record.offset >= position]
        return Chunk(position, self._salvaged(rest), self.position, lambda: self._salvaged(rest))

    def _read(self, records: list[AnyRecord]) -> Iterator[Any]:
        for record in records:
            if self.work.bad.get(record.offset) == "broken":
                raise UnicodeError
            yield Faulty(record) if self.work.bad.get(record.offset) == "bad_header" else record

    def _salvaged(self, records: list[AnyRecord]) -> Iterator[Any]:
        for record in records:
            yield Faulty(record) if self.work.bad.get(record.offset) in ("bad_header", "broken") else record
