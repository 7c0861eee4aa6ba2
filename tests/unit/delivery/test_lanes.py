"""Lanes: what may overlap and what may not, how much is taken in, and that nothing is lost or committed ahead."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import contains, eq
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer import Record
from consumer.outcome import HaltReason
from consumer.partition.chunk import Chunk
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.source import KEY, MemorySource, RawRecord

OVERLAPPING = ("key", "unordered")


# -- what these tests, and those of batches and calls, are made of ---------------------------------------------------


async def until(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    """Go round the event loop until something holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0)


async def rounds(count: int = 100) -> None:
    """Let the event loop go round: whatever could begin without waiting for anything has begun afterwards."""
    for _ in range(count):
        await asyncio.sleep(0)


def keyed(keys: Iterable[bytes | None], value: bytes = b"x", first: int = 0) -> list[RawRecord]:
    return [RawRecord(offset, value, key) for offset, key in enumerate(keys, first)]


class Gate:
    """A handler whose calls wait until they are let through; it notes which began, run and ended."""

    def __init__(self, *passing: int) -> None:
        self.begun: list[int] = []
        self.running: list[int] = []
        self.ended: list[int] = []
        self.done: set[int] = set()
        self._gates: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._open = False
        self.let(*passing)

    async def __call__(self, _event: bytes, record: Record) -> None:
        self.begun.append(record.offset)
        self.running.append(record.offset)
        try:
            if not self._open:
                await self._gates[record.offset].wait()
        finally:
            self.running.remove(record.offset)
        self.ended.append(record.offset)
        self.done.add(record.offset)

    def let(self, *offsets: int) -> None:
        for offset in offsets:
            self._gates[offset].set()

    def open(self) -> None:
        self._open = True
        self.let(*self._gates)


class LogSource(MemorySource):
    """One partition as a broker keeps it: read again from what was committed; it notes commits that run ahead."""

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


# -- which calls overlap ---------------------------------------------------------------------------------------------


async def test_keys_overlap_up_to_concurrency() -> None:
    """Different keys are handled at once, as many as ``concurrency`` and never one more."""
    gate = Gate()
    source = LogSource(keyed(b"%d" % number for number in range(9)), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key", concurrency=3) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 3)
        await rounds()
        assert gate.running == [0, 1, 2]
        gate.let(1)
        await until(lambda: len(gate.running) == 3)
        await rounds()
        assert gate.running == [0, 2, 3]
        gate.open()
        await until(lambda: len(gate.ended) == 9)
    assert gate.begun == list(range(9))


async def test_a_plain_function_that_returns_coroutines_overlaps_too() -> None:
    """A wrapper or a lambda around an async function is held to ``concurrency`` like the function itself."""
    gate = Gate()
    source = LogSource(keyed(b"%d" % number for number in range(6)), gate=gate)

    def wrapper(event: bytes, record: Record) -> Any:
        return gate(event, record)

    route = a_route(wrapper)
    async with an_engine_on(source, route, ordering="key", concurrency=3) as bench:
        bench.engine.assign([KEY])
        try:
            await until(lambda: len(gate.running) == 3, seconds=1)
        finally:
            gate.open()
        await until(lambda: len(gate.ended) == 6)


async def test_a_key_is_handled_one_record_at_a_time() -> None:
    """The records of a key wait for each other, in order, while those of other keys pass."""
    gate = Gate(1, 4)
    source = LogSource(keyed([b"a", b"b", b"a", b"a", b"c"]), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key", concurrency=8) as bench:
        bench.engine.assign([KEY])
        await until(lambda: gate.ended == [1, 4])
        await rounds()
        assert gate.running == [0]
        for offset in (0, 2, 3):
            gate.let(offset)
            await until(partial(contains, gate.ended, offset))
    assert gate.ended == [1, 4, 0, 2, 3]


async def test_keyless_records_share_a_lane_and_an_empty_key_has_its_own() -> None:
    """A missing key is one lane of the partition; an empty key is not a missing one."""
    gate = Gate()
    source = LogSource(keyed([None, None, b"", b"", b"a"]), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key", concurrency=8) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 3)
        await rounds()
        assert gate.running == [0, 2, 4]
        gate.open()
        await until(lambda: len(gate.ended) == 5)


async def test_unordered_records_of_one_key_overlap() -> None:
    """Without an order the key does not matter: only ``concurrency`` bounds what runs at once."""
    gate = Gate()
    source = LogSource(keyed([b"a"] * 6), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="unordered", concurrency=4) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 4)
        await rounds()
        assert gate.running == [0, 1, 2, 3]
        gate.open()
        await until(lambda: len(gate.ended) == 6)


async def test_a_partition_in_order_is_handled_one_record_at_a_time() -> None:
    """With ordering ``partition`` neither keys nor ``concurrency`` let two calls overlap."""
    gate = Gate()
    source = LogSource(keyed([b"a", b"b", b"c"]), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="partition", concurrency=64) as bench:
        bench.engine.assign([KEY])
        for offset in range(3):
            await until(partial(eq, gate.running, [offset]))
            await rounds()
            assert gate.running == [offset]
            gate.let(offset)
        await until(lambda: gate.ended == [0, 1, 2])


async def test_lanes_are_dropped_with_their_last_record() -> None:
    """A key is remembered only while one of its records is in work: a hundred keys leave nothing behind."""
    gate = Gate()
    source = LogSource(keyed(b"%d" % (number % 100) for number in range(500)), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key", concurrency=8) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 8)
        gate.open()
        await until(lambda: len(gate.ended) == 500)
        lanes = bench.engine._lanes[KEY]
        await until(lambda: not lanes._busy)
        assert lanes.partition.in_flight == (0, 0)
        await until(lambda: len(lanes.tasks) == 1)


# -- room --------------------------------------------------------------------------------------------------------------


async def test_a_slow_key_holds_back_nobody_while_there_is_room() -> None:
    """Behind a hanging call its own key waits; everything else goes on, over chunks, until room is used up."""
    keys = [b"slow" if number % 10 == 0 else b"%d" % number for number in range(400)]
    gate = Gate()
    source = LogSource(keyed(keys), chunk_records=7, gate=gate)
    gate.let(*(offset for offset, key in enumerate(keys) if key != b"slow"))
    async with an_engine_on(source, a_route(gate), ordering="key", concurrency=2, max_in_flight_records=41) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.ended) == 360)
        assert gate.running == [0]
        assert bench.engine.partitions[KEY].in_flight[0] == 40
        gate.open()
        await until(lambda: source.committed == source.end)
    assert not source.ahead


@pytest.mark.parametrize(
    ("limits", "most"),
    [({"max_in_flight_records": 4}, 4), ({"max_in_flight_bytes": 250, "max_in_flight_records": 50}, 3)],
)
@pytest.mark.parametrize("ordering", OVERLAPPING)
async def test_intake_stops_without_room_and_resumes(ordering: str, limits: dict[str, Any], most: int) -> None:
    """What is in flight, in records and in bytes, bounds what is taken in; what is done makes room again."""
    gate = Gate()
    source = LogSource(keyed([b"a"] * 20, value=b"v" * 99), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=8, **limits) as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        for turn in range(5):
            await until(partial(is_at, partition, turn + most))
            await rounds()
            assert (partition.in_flight[0], partition.position) == (most, turn + most)
            gate.let(turn)
        gate.open()
        await until(lambda: source.committed == source.end)
        assert partition.in_flight == (0, 0)


async def test_one_full_partition_leaves_the_others_their_room() -> None:
    """Room is counted by partition: one that has none takes nothing from another."""
    other = TopicPartition("t", 1)
    gate, source = Gate(), MemorySource()

    async def handle(event: bytes, record: Record) -> None:
        if record.partition == 0:
            await gate(event, record)

    async with an_engine_on(source, a_route(handle), ordering="key", max_in_flight_records=2) as bench:
        bench.engine.assign([KEY, other])
        source.give(Chunk(0, iter(keyed([b"a"] * 9)), 9))
        source.give(Chunk(0, iter(keyed([b"a"] * 50)), 50), key=other)
        await until(lambda: {other: 50} in source.commits)
        assert bench.engine.partitions[KEY].position == 2
        gate.open()


# -- the watermark -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", OVERLAPPING)
async def test_the_first_that_is_not_done_is_what_is_committed(ordering: str) -> None:
    """Calls end out of order; the commit stays at the first record whose call has not ended."""
    gate = Gate()
    source = LogSource(keyed(b"%d" % number for number in range(5)), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=8) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 5)
        for offset, committed in ((3, 0), (1, 0), (0, 2), (4, 2), (2, source.end)):
            gate.let(offset)
            await until(partial(contains, gate.ended, offset))
            await until(partial(is_committed, source, committed))
            assert bench.engine.partitions[KEY].done == committed
    assert not source.ahead


# -- failures and ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_failure_in_one_lane_halts_the_partition(suspends: bool) -> None:
    """The failed record's queue never starts, calls under way end, and nothing is committed past the failed record."""
    go, gate = asyncio.Event(), Gate()

    async def handle(event: bytes, record: Record) -> None:
        if record.key == b"bad":
            if suspends:
                await go.wait()
            raise ValueError
        await gate(event, record)

    source = LogSource(keyed([b"a", b"b", b"bad", b"bad", b"c", b"a"] if suspends else [b"a", b"b", b"bad"]), gate=gate)
    async with an_engine_on(source, a_route(handle), ordering="key", concurrency=8) as bench:
        bench.engine.assign([KEY])
        await until(lambda: gate.running == ([0, 1, 4] if suspends else [0, 1]))
        go.set()
        await until(lambda: bench.engine.partitions[KEY].halt)
        gate.let(0)
        await until(lambda: source.committed == 1)
        gate.open()
        await until(lambda: source.committed == 2)
        await rounds()
        halt = bench.engine.partitions[KEY].halt
        assert halt is not None
        assert (halt.reason, halt.offset) == (HaltReason.NO_DEAD_LETTER, 2)
    assert sorted(gate.ended) == ([0, 1, 4] if suspends else [0, 1])
    assert not source.ahead
    assert source.committed == 2


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_a_call_that_cancels_its_own_task_halts(ordering: str) -> None:
    """A handler that has its own task cancelled ends its call, never its partition's work in silence."""

    async def handle(_event: bytes, record: Record) -> None:
        if record.offset == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)

    source = LogSource(keyed([b"a", b"b", b"c"]))
    async with an_engine_on(source, a_route(handle), ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end or bench.engine.partitions[KEY].halt, seconds=2)


async def test_a_revoke_repeats_nothing_that_was_handled() -> None:
    """What queued behind a busy key was taken in before later records were done: the drain finishes it too."""
    gate = Gate(2)
    source = LogSource(keyed([b"a", b"a", b"b"]), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key") as bench:
        bench.engine.assign([KEY])
        await until(lambda: gate.ended == [2])
        revoking = asyncio.create_task(bench.engine.revoke(lost=False))
        await rounds()
        assert not revoking.done()
        gate.open()
        await revoking
        source.rewind()
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    assert Counter(gate.ended) == Counter([0, 1, 2])


@pytest.mark.parametrize("ordering", OVERLAPPING)
async def test_a_drain_starts_nothing_that_was_not_taken_in(ordering: str) -> None:
    """Calls under way end and are committed; records still in the chunk are left to the next owner."""
    gate = Gate()
    source = LogSource(keyed(b"%d" % number for number in range(9)), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=3) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 3)
        revoking = asyncio.create_task(bench.engine.revoke(lost=False))
        await rounds()
        gate.open()
        await revoking
        assert (gate.begun, source.committed, source.ahead) == ([0, 1, 2], 3, [])


async def test_calls_that_will_not_end_are_cancelled_and_not_committed() -> None:
    """When the drain's time is up, calls are cancelled and counted; the commit stops at the first of them."""
    gate = Gate(0, 2)
    source = LogSource(keyed(b"%d" % number for number in range(3)), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key", drain_seconds=0.02) as bench:
        bench.engine.assign([KEY])
        await until(lambda: sorted(gate.ended) == [0, 2])
        await bench.engine.revoke(lost=False)
        assert (source.committed, source.ahead, bench.counters.routes["r0"].abandoned) == (1, [], 1)
        assert gate.running == []


async def test_a_call_that_outlives_its_epoch_starts_nothing() -> None:
    """A call that would not end ends after the revoke: what queued behind its key is left to the next owner."""
    begun: list[int] = []
    release = asyncio.Event()

    async def stubborn(_event: bytes, record: Record) -> None:
        begun.append(record.offset)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    source = LogSource(keyed([b"a", b"a", b"a"]))
    async with an_engine_on(source, a_route(stubborn), ordering="key", drain_seconds=0.02) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].position == source.end)
        await bench.engine.revoke(lost=False)
        release.set()
        await rounds()
        assert begun == [0]
        assert source.commits == []


@pytest.mark.parametrize("kind", ["plain", "async", "routes", "batches"])
@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_a_match_that_raises_halts_at_its_record(ordering: str, kind: str) -> None:
    """An error of ours between decoding and handling is no outcome: nothing is committed past its record."""
    handled: list[bytes] = []

    async def waits(event: bytes) -> None:
        handled.append(event)

    def takes(events: list[bytes]) -> None:
        handled.extend(events)

    def matches(event: bytes) -> bool:
        if event == b"2":
            raise TypeError
        return True

    bound = bind_handler({"plain": handled.append, "batches": takes}.get(kind, waits), "test")
    routes = [Route("r0", matches, msgspec.structs.replace(bound, max_seconds=0.001))]
    if kind == "routes":
        routes.append(a_route(lambda _event: None, "r1"))
    source = LogSource([RawRecord(offset, b"%d" % offset, b"k") for offset in range(5)])
    async with an_engine_on(source, *routes, ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.failures or bench.engine.partitions[KEY].halt)
        if kind != "batches":  # a batch in the making may be called or left: either way it is not passed
            await until(lambda: source.committed >= 2)
        await rounds()
    assert handled in ([b"0", b"1"], [])
    assert source.committed in ((0, 2) if kind == "batches" else (2,))


async def test_a_crash_starts_nothing_more() -> None:
    """When the task group is torn down under calls that wait, they end with it, and no call takes their place."""
    gate = Gate()
    source = LogSource(keyed(b"%d" % number for number in range(9)), gate=gate)
    with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 - what is inside is what crashes
        async with an_engine_on(source, a_route(gate), ordering="key", concurrency=3) as bench:
            bench.engine.assign([KEY])
            await until(lambda: len(gate.running) == 3)
            raise LookupError
    gc.collect()  # a coroutine that was made and never awaited is reported here, not in some later test
    assert [type(each) for each in raised.value.exceptions] == [LookupError]
    assert (gate.begun, bench.failures) == ([0, 1, 2], [])


# -- what a handler may use --------------------------------------------------------------------------------------------


async def test_overlapping_calls_have_tasks_of_their_own() -> None:
    """Two calls under way never share a current task: what cancels by task (timeouts, groups) hits its own call."""
    tasks: dict[int, asyncio.Task[Any] | None] = {}
    gate = Gate()

    async def handle(event: bytes, record: Record) -> None:
        tasks[record.offset] = asyncio.current_task()
        await gate(event, record)
        assert tasks[record.offset] is asyncio.current_task()

    source = LogSource(keyed(b"%d" % number for number in range(6)), gate=gate)
    async with an_engine_on(source, a_route(handle), ordering="key", concurrency=6) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 6)
        assert len(set(tasks.values())) == 6
        gate.open()
        await until(lambda: source.committed == source.end)


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_timeouts_and_task_groups_work_inside_handlers(ordering: str) -> None:
    """asyncio.timeout and TaskGroup cancel what is inside them and leave the call, and the calls beside it, alone."""
    never = asyncio.Event()
    timed_out, grouped = [], []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def handle(_event: bytes, record: Record) -> None:
        if record.offset % 3 == 0:
            try:
                async with asyncio.timeout(0):
                    await never.wait()
            except TimeoutError:
                timed_out.append(record.offset)
        elif record.offset % 3 == 1:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fails())
                    group.create_task(never.wait())
            except* ValueError:
                grouped.append(record.offset)
        else:
            await asyncio.sleep(0)

    source = LogSource(keyed(b"%d" % (number % 5) for number in range(60)))
    async with an_engine_on(source, a_route(handle), ordering=ordering, concurrency=4) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert bench.engine.partitions[KEY].halt is None
    assert sorted(timed_out) == list(range(0, 60, 3))
    assert sorted(grouped) == list(range(1, 60, 3))


# -- the loop is shared ------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have all that shares the event loop look at a clock of the test's."""
    clock = Clock()
    for module in ("lanes", "fast_loop", "turns"):
        monkeypatch.setattr(
            f"consumer.delivery.{module}.time", SimpleNamespace(monotonic=clock.monotonic, time=time.time)
        )
    return clock


@pytest.mark.parametrize("after_idling", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_busy_partitions_take_turns(clock: Clock, ordering: str, is_async: bool, after_idling: bool) -> None:
    """Fifty partitions of inline work keep the loop for one slice and one call at a time: between two, all others run.

    The clock is moved by the handler alone, 4 ms a call; what is measured is how far it moves in one round of the loop.
    """
    stretches: list[float] = []
    running = True

    def busy(_event: bytes) -> None:
        clock.now += 0.004

    async def busy_too(_event: bytes) -> None:
        clock.now += 0.004

    async def watch() -> None:
        while running:
            before = clock.now
            await asyncio.sleep(0)
            stretches.append(clock.now - before)

    keys = [TopicPartition("t", number) for number in range(50)]
    source = MemorySource()
    route = a_route(busy_too if is_async else busy)
    async with an_engine_on(source, route, ordering=ordering, commit_interval_seconds=60.0) as bench:
        if after_idling:
            bench.engine.assign(keys)
            await until(lambda: all(lanes.idle for lanes in bench.engine._lanes.values()))
        for key in keys:
            source.give(Chunk(0, iter(keyed([b"a"] * 20)), 20), key=key)
        watching = asyncio.create_task(watch())
        if not after_idling:
            bench.engine.assign(keys)
        await until(lambda: bench.counters.routes["r0"].handled == 1000)
        running = False
        await watching
    assert sum(stretches) == pytest.approx(4.0)
    assert max(stretches) <= 0.010 + 0.004 + 1e-6


# -- random schedules --------------------------------------------------------------------------------------------------


class Work(SimpleNamespace):
    """A drawn schedule: records with gaps, how often each call gives the loop back, how they are cut and bounded."""

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
    """Handles a schedule's records and notes what overlaps and what is out of order.

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


def check_commits_never_fall(source: LogSource) -> None:
    offsets = [commit[KEY] for commit in source.commits]
    assert offsets == sorted(set(offsets))


def delivery_of(work: Work) -> dict[str, Any]:
    return {"ordering": work.ordering, "concurrency": work.concurrency, "max_in_flight_records": work.room}


@given(schedules())
@settings(max_examples=150, deadline=None)
def test_every_record_once_in_order_and_never_ahead(work: Work) -> None:
    """Whatever suspends whenever: each record is handled once, each lane in order, each commit behind what is done."""

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
    """Revoked at any round of the loop and assigned again, a partition goes on where it was: each record once."""

    async def scenario() -> None:
        source = LogSource(work.records, work.cut)
        worker = Worker(work, source)
        async with an_engine_on(source, *worker.routes(), **delivery_of(work)) as bench:
            bench.engine.assign([KEY])
            for after in revokes:
                await rounds(after)
                await bench.engine.revoke(lost=False)
                assert worker.running == {}
                begun = len(worker.begun)
                await rounds(5)
                assert len(worker.begun) == begun
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
    """Whichever record fails: the partition halts, started calls end, and no commit lies above the failed record."""

    async def scenario() -> None:
        failing = work.records[index % len(work.records)].offset
        source = LogSource(work.records, work.cut)
        worker = Worker(work, source, failing)
        async with an_engine_on(source, *worker.routes(), **delivery_of(work)) as bench:
            bench.engine.assign([KEY])
            await until(lambda: bench.engine.partitions[KEY].halt)
            begun = len(worker.begun)
            await until(lambda: not bench.engine._lanes[KEY].tasks)
            assert worker.running == {}
            assert len(worker.begun) == begun
        worker.check()
        assert source.committed <= failing
        assert set(worker.begun) - set(worker.ended) == {failing}
        assert len(set(worker.begun)) == len(worker.begun)

    asyncio.run(scenario())
