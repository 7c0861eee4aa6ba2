"""Lanes on random schedules: each record is handled once, in order, and no commit runs ahead."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer import Record
from consumer.routes.route import Route
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.log_source import LogSource, check_commits_never_fall
from tests.unit.delivery.source import KEY, RawRecord
from tests.unit.delivery.waiting import rounds, until


class Work(SimpleNamespace):
    """A drawn schedule: records with gaps, how often each call yields, chunk sizes and limits."""

    records: list[RawRecord]
    yields: dict[int, int]
    ordering: str
    concurrency: int
    room: int
    cut: int
    kind: str


@st.composite
def schedules(draw: st.DrawFn) -> Work:
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from([None, b"", b"a", b"b", b"c", b"d"]), st.integers(0, 4), st.integers(1, 3)),
            min_size=1,
            max_size=40,
        )
    )
    records, yields, offset = [], {}, -1
    for key, times, step in drawn:
        offset += step
        records.append(RawRecord(offset, b"x" * (offset % 5), key))
        yields[offset] = times
    return Work(
        records=records,
        yields=yields,
        ordering=draw(st.sampled_from(["partition", "key", "unordered"])),
        concurrency=draw(st.integers(1, 5)),
        room=draw(st.integers(1, 12)),
        cut=draw(st.integers(1, 12)),
        kind=draw(st.sampled_from(["async", "plain", "routes"])),
    )


class Worker:
    """A handler that checks a schedule's calls for overlaps and order.

    Its kinds take the different ways through the lanes: an async function; a plain one that returns a coroutine when it
    has to wait; an async one between two plain routes.
    """

    def __init__(self, work: Work, source: LogSource, failing: int | None = None) -> None:
        self.work, self.source, self.failing = work, source, failing
        self.running: dict[int, object] = {}
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most = 0
        self.wrong: list[str] = []
        self._last: dict[object, int] = {}

    def routes(self) -> list[Route]:
        if self.work.kind == "plain":
            return [a_route(self.plain)]
        if self.work.kind == "async":
            return [a_route(self.waits)]
        return [a_route(self.first, "first"), a_route(self.waits_only), a_route(self.last, "last")]

    def new_epoch(self) -> None:
        self._last.clear()

    def plain(self, _event: bytes, record: Record) -> Any:
        self._begin(record)
        if self.work.yields[record.offset]:
            return self._later(record, ends=True)
        self._end(record)
        return None

    async def waits(self, _event: bytes, record: Record) -> None:
        self._begin(record)
        await self._later(record, ends=True)

    def first(self, _event: bytes, record: Record) -> None:
        self._begin(record)

    async def waits_only(self, _event: bytes, record: Record) -> None:
        await self._later(record, ends=False)

    def last(self, _event: bytes, record: Record) -> None:
        self._end(record)

    async def _later(self, record: Record, *, ends: bool) -> None:
        try:
            for _ in range(self.work.yields[record.offset]):
                await asyncio.sleep(0)
        except BaseException:
            del self.running[record.offset]
            raise
        if ends:
            self._end(record)

    def _lane(self, record: Record) -> object:
        return {"partition": 0, "key": (record.key,), "unordered": record.offset}[self.work.ordering]

    def _begin(self, record: Record) -> None:
        lane = self._lane(record)
        if lane in self.running.values():
            self.wrong.append(f"{record.offset} overlaps with its lane")
        if self._last.get(lane, -1) >= record.offset:
            self.wrong.append(f"{record.offset} after {self._last[lane]}")
        self._last[lane] = record.offset
        self.begun.append(record.offset)
        self.running[record.offset] = lane
        self.most = max(self.most, len(self.running))

    def _end(self, record: Record) -> None:
        del self.running[record.offset]
        if record.offset == self.failing:
            raise ValueError
        self.ended.append(record.offset)
        self.source.done.add(record.offset)

    def check(self) -> None:
        assert self.wrong == []
        assert self.most <= (1 if self.work.ordering == "partition" else self.work.concurrency)
        assert self.source.ahead == []


def delivery_of(work: Work) -> dict[str, Any]:
    return {"ordering": work.ordering, "concurrency": work.concurrency, "max_in_flight_records": work.room}


@given(schedules())
@settings(max_examples=150, deadline=None)
def test_every_record_once_in_order_and_never_ahead(work: Work) -> None:
    """Whenever calls suspend: each record is handled once, each lane in order, and no commit runs ahead."""

    async def scenario() -> None:
        source = LogSource(work.records, work.cut)
        worker = Worker(work, source)
        async with an_engine_on(source, *worker.routes(), **delivery_of(work)) as bench:
            bench.engine.assign([KEY])
            await until(lambda: source.committed == source.end)
            partition = bench.engine.partitions[KEY]
            assert partition.in_flight == (0, 0)
        worker.check()
        assert sorted(worker.ended) == [record.offset for record in work.records]
        check_commits_never_fall(source)
        assert bench.counters.routes["r0"].handled == len(work.records)
        assert bench.counters.records_consumed["t"] == len(work.records)

    asyncio.run(scenario())


@given(schedules(), st.lists(st.integers(0, 60), max_size=3))
@settings(max_examples=150, deadline=None)
def test_revokes_in_the_middle_lose_and_repeat_nothing(work: Work, revokes: list[int]) -> None:
    """A partition that is revoked at any moment and assigned again handles each record once."""

    async def scenario() -> None:
        source = LogSource(work.records, work.cut)
        worker = Worker(work, source)
        async with an_engine_on(source, *worker.routes(), **delivery_of(work)) as bench:
            bench.engine.assign([KEY])
            for after in revokes:
                await rounds(after)
                await bench.engine.revoke(lost=False)
                assert worker.running == {}
                begun = list(worker.begun)
                await rounds(5)
                assert worker.begun == begun
                source.rewind()
                worker.new_epoch()
                bench.engine.assign([KEY])
            await until(lambda: source.committed == source.end)
        worker.check()
        assert sorted(worker.ended) == [record.offset for record in work.records]
        check_commits_never_fall(source)

    asyncio.run(scenario())


@given(schedules(), st.integers(0, 39))
@settings(max_examples=150, deadline=None)
def test_a_failure_is_never_passed(work: Work, index: int) -> None:
    """Whichever record fails: the partition halts, running calls end, and no commit lies above that record."""

    async def scenario() -> None:
        failing = work.records[index % len(work.records)].offset
        source = LogSource(work.records, work.cut)
        worker = Worker(work, source, failing)
        async with an_engine_on(source, *worker.routes(), **delivery_of(work)) as bench:
            bench.engine.assign([KEY])
            await until(lambda: bench.engine.partitions[KEY].halt)
            begun = list(worker.begun)
            await until(lambda: not bench.engine._workers[KEY].tasks)
            assert worker.running == {}
            assert all(
                offset < failing for offset in set(worker.begun) - set(begun)
            )  # queued, and the commit needs them
        worker.check()
        assert source.committed <= failing
        assert set(worker.begun) - set(worker.ended) == {failing}
        assert len(set(worker.begun)) == len(worker.begun)

    asyncio.run(scenario())
