"""Memory of a partition: everything that is kept counts, and what counts is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer import Record, Reject
from consumer.delivery.collecting import MANY, Collecting
from consumer.partition.chunk import HEADER_BYTES, Chunk
from consumer.partition.state import Partition
from consumer.routes.route import Route
from consumer.settings.sections import Delivery
from tests.unit.delivery.batches import a_batch_route
from tests.unit.delivery.engines import Bench, a_route, an_engine_on
from tests.unit.delivery.fetches import Fetches
from tests.unit.delivery.handlers import Gate, Letters
from tests.unit.delivery.observer import NO_FUSE
from tests.unit.delivery.source import KEY, MemorySource, RawRecord
from tests.unit.delivery.waiting import rounds, until

MANY_RECORDS: dict[str, Any] = {"max_in_flight_records": 1_000_000, "max_in_flight_bytes": 1_000_000_000}


def is_wanted(event: bytes, _raw: Any) -> bool:
    return event == b"yes"


def wanting(route: Route, matches: Callable[[bytes, Any], bool] | None = is_wanted) -> Route:
    return msgspec.structs.replace(route, matches=matches)


def no_call(_events: list[bytes]) -> None:
    """A batch handler."""


class Shut:
    """Handlers of batches whose calls wait until they are opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.called: list[int] = []

    def route(self, name: str = "r0", **cut: Any) -> Route:
        async def handle(events: list[bytes]) -> None:
            self.called.append(len(events))
            await self.opened.wait()

        return a_batch_route(handle, name, **{"max_records": 1_000_000} | cut)


async def in_flight_at_rest(bench: Bench) -> tuple[int, int]:
    """Return what is in flight once nothing moves any more; fail when it was more before."""
    await rounds(300)
    return bench.engine.partitions[KEY].in_flight


async def test_a_batch_of_few_records_keeps_no_fetch() -> None:
    """A batch that takes few records of each chunk keeps these, and not what they were read from."""
    source, fetches = MemorySource(), Fetches()
    route = wanting(a_batch_route(no_call, max_records=1000))
    async with an_engine_on(source, route, **MANY_RECORDS) as bench:
        bench.engine.assign([KEY])
        for _ in range(50):
            source.give(fetches.chunk([b"yes", *[b"no"] * 200], size=1_000_000))
            await until(lambda: bench.engine.partitions[KEY].position == fetches.end)
        fetches.forget()
        assert fetches.fetch_bytes <= 1_000_000
        assert bench.engine.partitions[KEY].in_flight == (50, 50 * len(b"yes"))


async def test_a_batch_of_most_records_keeps_fetches_that_count_once() -> None:
    """Batches that take most records keep their fetches; each counts once, however many chunks and routes keep it."""
    source, fetches = MemorySource(), Fetches()
    routes = [a_batch_route(no_call, name, max_records=100_000) for name in ("r0", "r1")]
    async with an_engine_on(source, *routes, **MANY_RECORDS) as bench:
        bench.engine.assign([KEY])
        for number in range(6):
            source.give(fetches.chunk([b"12345"] * 2 * MANY, size=10_000, shared=number % 2 == 1))
        await until(lambda: bench.engine.partitions[KEY].position == fetches.end)
        fetches.forget()
        assert fetches.fetch_bytes == 30_000
        events = 2 * 6 * 2 * MANY
        assert bench.engine.partitions[KEY].in_flight == (events, 5 * events + 20_000)  # the fetch in work counts not
        await bench.engine.revoke(lost=False)
        assert fetches.fetch_bytes == 0


async def test_fetches_that_a_batch_keeps_use_up_the_room() -> None:
    """A batch is called before it is full when the fetches that it keeps use up the partition's bytes."""
    source, fetches, shut = MemorySource(), Fetches(), Shut()
    async with an_engine_on(source, shut.route(), max_in_flight_bytes=50_000, max_in_flight_records=100_000) as bench:
        bench.engine.assign([KEY])
        source.give(*[fetches.chunk([b"v"] * 2 * MANY, size=10_000) for _ in range(40)])
        fetches.forget()
        _, size = await in_flight_at_rest(bench)
        given = sum(len(chunk.fetch) for chunk in source.chunks[KEY] if chunk.fetch is not None)
        called, alive = len(shut.called), fetches.fetch_bytes
        shut.opened.set()
        await until(lambda: bench.engine.partitions[KEY].position == fetches.end)
    assert called == 1
    assert 50_000 <= size <= 62_000
    assert alive - given <= size + 10_000


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("limit", [1, 2, 5, 9, 100])
async def test_records_of_batches_are_bounded_together(count: int, limit: int) -> None:
    """``max_in_flight_records`` bounds the records of all batches together, whatever ``max_records`` is."""
    source, shut = MemorySource(), Shut()
    source.give(*[Chunk(n, iter([RawRecord(n + i, b"v") for i in range(100)]), n + 100) for n in range(0, 2000, 100)])
    async with an_engine_on(source, *map(shut.route, map(str, range(count))), max_in_flight_records=limit) as bench:
        bench.engine.assign([KEY])
        records, _ = await in_flight_at_rest(bench)
        called = len(shut.called)
        shut.opened.set()
        await until(lambda: bench.engine.partitions[KEY].position == 2000)
    assert limit - count <= records <= max(limit, count)
    assert called == count


@pytest.mark.parametrize("count", [1, 4])
async def test_bytes_of_batches_are_bounded_together(count: int) -> None:
    """``max_in_flight_bytes`` bounds all batches of a partition together, but for one record."""
    source, shut = MemorySource(), Shut()
    for first in range(0, 2000, 10):
        records = [RawRecord(first + i, b"v" * 900, b"k" * 36, headers=(("h", b""),)) for i in range(10)]
        source.give(Chunk(first, iter(records), first + 10))
    async with an_engine_on(source, *map(shut.route, map(str, range(count))), max_in_flight_bytes=100_000) as bench:
        bench.engine.assign([KEY])
        _, size = await in_flight_at_rest(bench)
        shut.opened.set()
        await until(lambda: bench.engine.partitions[KEY].position == 2000)
    assert 100_000 - count * 1001 < size < 100_000 + count * 1001


async def test_letters_and_batches_share_the_room() -> None:
    """Dead letters that are being written take room from the batches beside them."""
    source, shut, letters = MemorySource(), Shut(), Letters()
    letters.gate.clear()
    route = wanting(
        shut.route(), lambda event, _raw: not event[0] or 1 // 0 == 0
    )  # what begins with another byte has none
    values = [b"\1" if number < 15 else b"\0" for number in range(200)]
    source.give(Chunk(0, iter([RawRecord(offset, value) for offset, value in enumerate(values)]), 200))
    async with an_engine_on(source, route, letters=letters, max_in_flight_records=20) as bench:
        bench.engine.assign([KEY])
        records, _ = await in_flight_at_rest(bench)
        letters.gate.set()
        shut.opened.set()
        await until(lambda: bench.engine.partitions[KEY].position == 200)
    assert records == 20


async def test_records_of_a_batch_that_become_letters_count_once() -> None:
    """A rejected record counts as a letter and no longer as a record of its batch."""
    source, letters = MemorySource(), Letters()
    letters.gate.clear()
    most: list[tuple[int, int]] = []

    async def handle(events: list[bytes]) -> None:
        most.append(bench.engine.partitions[KEY].in_flight)
        raise Reject("some", indexes=range(len(events) // 2 + 1))

    source.give(Chunk(0, iter([RawRecord(offset, b"v" * 10) for offset in range(8)]), 8))
    async with an_engine_on(source, a_batch_route(handle, max_records=8), letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(most) == 3)
        assert await in_flight_at_rest(bench) == (8, 80)
        assert most == [(8, 80)] * 3
        letters.gate.set()
        await until(lambda: bench.engine.partitions[KEY].in_flight == (0, 0))


async def test_a_record_counts_once_beside_its_letter() -> None:
    """A record whose letter is being written while its next route runs counts once."""
    source, letters, gate = MemorySource(), Letters(), Gate()
    letters.gate.clear()

    async def fail(_event: bytes) -> None:
        await asyncio.sleep(0)
        raise ValueError

    source.give(Chunk(0, iter([RawRecord(0, b"value", b"key")]), 1))
    async with an_engine_on(source, a_route(fail, "r0"), a_route(gate, "r1"), letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: gate.running == [0])
        assert bench.engine.partitions[KEY].in_flight == (1, 8)
        gate.open()
        await until(lambda: gate.ended == [0])
        assert await in_flight_at_rest(bench) == (1, 8)
        letters.gate.set()
        await until(lambda: bench.engine.partitions[KEY].in_flight == (0, 0))


@pytest.mark.parametrize("ordering", ["key", "unordered"])
async def test_a_waiting_call_keeps_its_record_alone(ordering: str) -> None:
    """A record whose call waits keeps neither its fetch nor the records beside it, once its chunk was pulled."""
    source, fetches, gate = MemorySource(), Fetches(), Gate()
    gate.let(*(n for n in range(400) if n % 100))
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=64) as bench:
        bench.engine.assign([KEY])
        for number in range(4):
            source.give(fetches.chunk([b"v" * 50] * 100, key=b"%d" % number if ordering == "key" else None))
            await until(lambda: bench.engine.partitions[KEY].position == fetches.end)
        fetches.forget()
        gate.let(*(n for n in range(1, 400) if n % 100))
        await rounds()
        counted = bench.engine.partitions[KEY].in_flight[1]
        assert fetches.fetch_bytes == 0
        assert fetches.record_bytes <= counted + 60  # and the record that was pulled last
        gate.open()


@given(st.data())
def test_a_batch_finds_its_records_again(data: st.DataObject) -> None:
    """Whatever a batch keeps of its chunks, it finds the raw record of each event again, in order."""
    fetches, partition = Fetches(), Partition(KEY, 1)
    partition.start(0)
    route = a_batch_route(no_call)
    collecting = Collecting(partition, route.handler, Delivery())
    partition.batches = []
    expected: list[int] = []
    left: list[tuple[Any, list[int]]] = []
    for _ in range(data.draw(st.integers(1, 6))):
        few = data.draw(st.booleans())
        values = [b"yes" if not few or number % 20 == 0 else b"no" for number in range(data.draw(st.integers(0, 200)))]
        cuts = data.draw(st.sets(st.integers(0, 200), max_size=2))
        chunk = fetches.chunk(values)
        collecting.begin_chunk(chunk)
        for raw in chunk.records:
            if raw.value == b"yes":
                collecting.add(raw.value, raw)
                expected.append(raw.offset)
            if expected and raw.offset - chunk.first_offset in cuts:
                left.append((collecting.complete(), expected))
                expected = []
        collecting.end_chunk()
    left.append((collecting.complete(), expected))
    for collected, offsets in left:
        assert [raw.offset for raw in collected.reread(lambda raw: raw.value == b"yes")] == offsets
        collecting.let_go(collected)
    assert partition.kept_bytes == 0


class Schedule(msgspec.Struct):
    """What happens in one run of the random test."""

    ordering: str
    limit: int
    limit_bytes: int
    kinds: list[str]
    sizes: list[tuple[int, int, bool]]
    """Records of each chunk, bytes of each value, and whether it shares its fetch with the chunk before."""
    every: int
    """Every how many records a batch route wants one; 1 for all."""
    wait: int


SCHEDULES = st.builds(
    Schedule,
    ordering=st.sampled_from(["partition", "key", "unordered"]),
    limit=st.integers(4, 300),
    limit_bytes=st.integers(2000, 60_000),
    kinds=st.lists(st.sampled_from(["batch", "records", "waits", "fails"]), min_size=1, max_size=3),
    sizes=st.lists(st.tuples(st.integers(1, 200), st.integers(4, 60), st.booleans()), min_size=1, max_size=8),
    every=st.sampled_from([1, 1, 2, 50]),
    wait=st.integers(1, 9),
)
FETCH_BYTES = 3000


@settings(max_examples=60, deadline=None)
@given(SCHEDULES)
async def test_what_is_kept_counts_and_what_counts_is_bounded(schedule: Schedule) -> None:
    """At each moment no more is kept than counts, but for the chunk in work, and no more counts than the limits say."""
    fetches, source, letters = Fetches(), MemorySource(), Letters()
    rest = len(b"key") + len("h") + len(b"1234") + HEADER_BYTES
    largest = 63 + rest
    for count, size, shared in schedule.sizes:
        values = [b"%d" % (number % 1000) + b"v" * size for number in range(count)]
        chunk = fetches.chunk(values, size=FETCH_BYTES, key=b"key", headers=(("h", b"1234"),), shared=shared)
        source.give(chunk)
    fetches.forget()
    del chunk
    routes = [_route(kind, f"r{index}", schedule) for index, kind in enumerate(schedule.kinds)]
    limits: dict[str, Any] = {
        "max_in_flight_records": schedule.limit,
        "max_in_flight_bytes": schedule.limit_bytes,
        "ordering": schedule.ordering,
        "concurrency": 4,
    }
    async with an_engine_on(source, *routes, letters=letters, dead_letter=NO_FUSE, **limits) as bench:
        bench.engine.assign([KEY])
        partition, looks = bench.engine.partitions[KEY], 0
        while partition.position != fetches.end or partition.in_flight[0]:
            await asyncio.sleep(0)
            looks += 1
            records, size = partition.in_flight
            assert records <= schedule.limit
            late = rest * records  # keys and headers of a failed batch count when it is read again
            assert size - late < schedule.limit_bytes + 2 * largest * len(routes) + FETCH_BYTES
            if looks % 50 == 0:
                waiting = sum({id(chunk.fetch): FETCH_BYTES for chunk in source.chunks[KEY]}.values())
                assert fetches.fetch_bytes - waiting - FETCH_BYTES <= partition.kept_bytes
                assert fetches.record_bytes <= size + 6 * largest  # the last of each worker, and of all
            assert partition.halt is None
            assert looks < 100_000
        assert bench.failures == []


def _route(kind: str, name: str, schedule: Schedule) -> Route:
    handlers = Handlers(schedule.wait)
    if kind == "waits":
        return a_route(handlers.waits, name)
    if kind == "fails":
        return a_route(handlers.fails, name)
    handler, most = (handlers.of_events, 150) if kind == "batch" else (handlers.with_records, 30)
    route = a_batch_route(handler, name, max_records=most, max_seconds=0.001)
    return wanting(route, lambda event, _raw: event[0] % schedule.every == 0)


class Handlers:
    """The handlers of one route of a schedule."""

    def __init__(self, wait: int) -> None:
        self._wait = wait

    async def with_records(self, events: list[bytes], records: list[Record]) -> None:
        assert [record.value for record in records] == events
        await rounds(self._wait)

    async def of_events(self, events: list[bytes]) -> None:
        await rounds(self._wait)
        if len(events) % 5 == 0:
            raise Reject("the first", indexes=[0])

    async def waits(self, event: bytes) -> None:
        await rounds(event[-1] % self._wait)

    async def fails(self, event: bytes) -> None:
        await asyncio.sleep(0)
        if event.startswith(b"1"):
            raise ValueError
