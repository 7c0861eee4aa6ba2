"""Parts of a redrive: where its source ends, its rate, and what it refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer import Retry
from consumer.dead_letters.cause import Cause
from consumer.dead_letters.headers import write_context
from consumer.dead_letters.letter import Letter, Writer
from consumer.errors import LetterDelayedError, LetterRefusedError, SettingsError
from consumer.instructions import Pause
from consumer.partition.chunk import Chunk
from consumer.record import Position, Record, TopicPartition
from consumer.redrive.bounded_source import BoundedSource, ends_of
from consumer.redrive.handlers import as_consumed, republishing
from consumer.redrive.rate import RateLimit
from consumer.redrive.selection import require_routes
from consumer.settings.sections import DeadLetterSettings
from tests.unit.delivery.source import KEY, MemorySource, a_chunk, a_record

OTHER = TopicPartition("t", 1)


class Recording(MemorySource):
    """A source that notes which partitions were waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[list[TopicPartition]] = []

    async def wait(self, wanted: Any, seconds: float) -> None:
        self.wanted.append(list(wanted))


class FakeEngine:
    """What a source calls of an engine."""

    def __init__(self) -> None:
        self.assigned: list[Any] = []

    def assign(self, keys: Any) -> None:
        self.assigned.append(keys)

    async def revoke(self, *_: Any, lost: bool) -> None: ...
    def doubt(self, *, doubtful: bool) -> None: ...

    def settles(self, *_: Any) -> bool:
        return True

    def halt(self, *_: Any) -> None: ...


def bounded(end: int | None, *chunks: Chunk) -> BoundedSource:
    source: Any = Recording()
    source.give(*chunks)
    return BoundedSource(source, {} if end is None else {KEY: end})


def taken(source: BoundedSource) -> tuple[list[int], int]:
    chunk = source.take(KEY)
    assert chunk is not None
    return [raw.offset for raw in chunk.records], chunk.next_offset


def test_below_the_end_all_is_taken() -> None:
    """A chunk that lies below the end is passed on unchanged."""
    source = bounded(10, a_chunk(0, 5), a_chunk(5, 3))
    assert (taken(source), taken(source)) == (([0, 1, 2, 3, 4], 5), ([5, 6, 7], 8))


def test_the_last_chunk_is_cut() -> None:
    """Records at or above the end are not delivered, and the chunk's next offset is the end."""
    source = bounded(3, a_chunk(0, 5), a_chunk(5, 5))
    assert taken(source) == ([0, 1, 2], 3)
    assert not source.ready(KEY)
    assert source.take(KEY) is None


def test_a_partition_without_letters() -> None:
    """Nothing of a partition without letters is delivered or counted as done."""
    source = bounded(None, a_chunk(7, 5))
    assert taken(source) == ([], 7)
    assert source.take(KEY) is None


def test_records_behind_the_end_are_not_read() -> None:
    """A record behind the end that cannot be read raises nothing."""

    def records() -> Iterator[Any]:
        yield a_record(0)
        raise ValueError("cannot be read")

    source = bounded(1, Chunk(0, records(), 9))
    assert taken(source) == ([0], 1)


def test_a_gap_at_the_end() -> None:
    """Where the last letters are compacted away, or are markers, the chunk still ends at the end."""
    source = bounded(8, Chunk(0, iter([a_record(2), a_record(9)]), 12))
    assert taken(source) == ([2], 8)


@given(end=st.integers(0, 30), sizes=st.lists(st.integers(1, 6), max_size=8))
def test_the_end_is_exact(end: int, sizes: list[int]) -> None:
    """With any chunks all records below the end are delivered, and no offset beyond it is reached."""
    chunks, first = [], 0
    for size in sizes:
        chunks.append(a_chunk(first, size))
        first += size
    source, found, reached = bounded(end, *chunks), list[int](), 0
    while source.ready(KEY):
        offsets, reached = taken(source)
        found += offsets
    assert found == list(range(min(end, first)))
    assert reached == (min(end, first) if sizes else 0)


async def test_a_new_epoch_begins_again() -> None:
    """After a rebalance a partition may go back to its last commit."""
    source, engine = bounded(1, a_chunk(0, 3), a_chunk(0, 3)), FakeEngine()

    async def start(_listener: Any) -> None: ...

    source._source.start = start  # type: ignore[method-assign, assignment]
    await source.start(engine)  # type: ignore[arg-type]
    assert taken(source) == ([0], 1)
    source.assign([KEY])
    assert engine.assigned == [[KEY]]
    assert taken(source) == ([0], 1)


async def test_a_finished_partition_is_not_waited_for() -> None:
    """A finished partition is always ready, so waiting for it would keep the event loop busy."""
    source = bounded(1, a_chunk(0, 3), a_chunk(3, 3))
    taken(source)
    await source.wait([KEY, OTHER], 1.0)
    assert source._source.wanted == [[OTHER]]  # type: ignore[attr-defined]


def test_ends() -> None:
    """A partition ends behind its last letter to run, whatever lies behind that."""
    assert ends_of([Position(*KEY, 3), Position(*OTHER, 0), Position(*KEY, 1)]) == {KEY: 4, OTHER: 1}


async def test_pace_is_even() -> None:
    """The first letter goes at once, each next one after its interval."""
    pace, began = RateLimit(50.0, asyncio.Event()), time.monotonic()
    times = []
    for _ in range(6):
        await pace.wait(1)
        times.append(time.monotonic() - began)
    assert times[0] < 0.02
    assert times[5] >= 0.1


async def test_pace_of_many_at_once() -> None:
    """Letters that wait at the same time share the rate; a batch counts for its number of letters."""
    pace, began = RateLimit(100.0, asyncio.Event()), time.monotonic()
    await asyncio.gather(*(pace.wait(2) for _ in range(6)))
    assert time.monotonic() - began >= 0.1
    assert pace.burst == 100


async def test_a_stop_ends_all_waits() -> None:
    """A stop ends all waits at once, and the next redrive runs those letters; no new wait begins."""
    stopping = asyncio.Event()
    pace = RateLimit(0.001, stopping)
    assert pace.burst == 1
    await pace.wait(1)
    waiting = [asyncio.ensure_future(pace.wait(1)) for _ in range(3)]
    await asyncio.sleep(0)
    stopping.set()
    async with asyncio.timeout(1):
        found = await asyncio.gather(*waiting, pace.wait(1), return_exceptions=True)
    assert [type(each) for each in found] == [Retry] * 4


CAUSE = Cause("exhausted", "a", 5, "builtins.ValueError", "")


def a_letter_record(offset: int = 5, **fields: Any) -> Record:
    block = write_context("connect", Position("t", 3, 77), 1000, "g", CAUSE, 0)
    given = {"key": b"k", "value": b"v", "headers": (("trace", b"7"), *block)} | fields
    return Record("t.dlq", 0, offset, 1000, **given)


def test_a_handler_sees_the_original_record() -> None:
    """A handler sees the record's own headers, and its original place as ``origin``."""
    record = as_consumed(a_letter_record())
    assert record.headers == (("trace", b"7"),)
    assert record.origin == Position("t", 3, 77)
    assert (record.topic, record.offset) == ("t.dlq", 5)


def test_routes_that_are_gone() -> None:
    """All missing routes are named; letters without a route need none."""
    to_run = {Position(*KEY, n): name for n, name in enumerate(["b", "none", "a", "c", "b"])}
    require_routes(to_run, ["a", "b", "c"])
    with pytest.raises(SettingsError, match="there are dead letters of 'b', 'c', and the settings have no such route"):
        require_routes(to_run, ["a"])


class Box:
    """A dead-letter writer that takes letters, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.sent: list[Letter] = []

    async def send(self, letter: Letter) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(letter)


@pytest.mark.parametrize("value", [b"v", b"", None])
async def test_republish_sends_the_original(value: bytes | None) -> None:
    """The original key, value, headers and timestamp are sent."""
    box: Any = Box()
    route = republishing(box, "again", lambda _: None)
    await route.handler.call(None, as_consumed(a_letter_record(value=value)))
    assert box.sent == [Letter("again", b"k", value, [("trace", b"7")], 1000)]
    assert route.tombstones


async def test_republish_waits_for_kafka() -> None:
    """While Kafka cannot take a letter the redrive waits, and writes no new letter."""
    box: Any = Box(LetterDelayedError("away"))
    failures: list[Exception] = []
    with pytest.raises(Pause):
        await republishing(box, "again", failures.append).handler.call(None, a_letter_record())
    assert failures == []


async def test_republish_ends_when_it_is_refused() -> None:
    """What the topic refuses ends the redrive, with the letter's place; it stays what it is."""
    box: Any = Box(LetterRefusedError("topic 'again' does not accept it: too large"))
    failures: list[Exception] = []
    with pytest.raises(Retry):
        await republishing(box, "again", failures.append).handler.call(None, a_letter_record())
    assert [str(each) for each in failures] == [
        "t.dlq-0@5: topic 'again' does not accept it: too large; it stays a dead letter, and so do those after it"
    ]


def test_the_letter_of_a_letter_stays_in_its_topic() -> None:
    """The letter of a letter goes to the same dead-letter topic, not to one of that topic."""
    record: Any = a_letter_record()

    class Raw:
        offset, timestamp, key, value, headers = 5, 1000, b"k", b"v", record.headers

    letter = Writer(DeadLetterSettings(), "g", of_letters=True).letter(TopicPartition("t.dlq", 0), Raw(), CAUSE)
    assert letter.topic == "t.dlq"
