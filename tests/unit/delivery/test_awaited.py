"""Calls that wait, one after the other: the first takes its first step apart, those behind it are awaited whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from consumer import Record
from consumer.delivery.gate import Gate as PartitionGate
from consumer.delivery.turns import Turns
from consumer.observe.loop_time import TimedLoop
from consumer.outcome import HaltReason
from consumer.partition.state import Partition
from tests.unit.delivery.batches import a_batch_route
from tests.unit.delivery.engines import QUICK, Bench, a_route, an_engine_on
from tests.unit.delivery.handlers import ORDERINGS, Gate
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import rounds, until

Numbers = tuple[int, int, int, int, int | None, int]


def records(count: int) -> list[Any]:
    return keyed(b"%d" % number for number in range(count))


def numbers(bench: Bench) -> Numbers:
    """Return calls under way, handled, abandoned and consumed records, the position, and how far all is done."""
    counts, partition = bench.counters.routes["r0"], bench.engine.partitions[KEY]
    consumed = bench.counters.records_consumed["t"]
    return counts.waiting, counts.handled, counts.abandoned, consumed, partition.position, partition.done


async def until_second(bench: Bench, gate: Gate) -> None:
    """Return when the second call waits, and nothing else can begin."""
    bench.engine.assign([KEY])
    await until(lambda: gate.running == [1])
    await rounds()


async def test_a_call_under_way_shows_true_numbers() -> None:
    """While a call waits, all numbers are as if the lane had stopped before it."""
    gate = Gate(0)
    source = LogSource(records(4), gate=gate)
    async with an_engine_on(source, a_route(gate)) as bench:
        await until_second(bench, gate)
        assert numbers(bench) == (1, 1, 0, 2, 1, 1)
        gate.open()
        await until(lambda: source.committed == source.end)
        assert numbers(bench) == (0, 4, 0, 4, source.end, source.end)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_revoke_in_the_middle_of_a_call(lost: bool) -> None:
    """A revoke waits for the call, begins no other, and commits it unless the partition was lost."""
    gate = Gate(0)
    source = LogSource(records(4), gate=gate)
    async with an_engine_on(source, a_route(gate), commit_interval_seconds=60.0) as bench:
        await until_second(bench, gate)
        revoking = asyncio.create_task(bench.engine.revoke(lost=lost))
        await rounds()
        assert not revoking.done()
        gate.open()
        await revoking
        assert (gate.begun, source.committed) == ([0, 1], 0 if lost else 2)


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_call_that_the_drain_cancels(ordering: str) -> None:
    """A call that is cancelled at the drain's end counts as abandoned, and the commit stops at its record."""
    gate = Gate(0)
    source = LogSource(records(4), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=1, drain_seconds=0.02) as bench:
        await until_second(bench, gate)
        revoking = asyncio.create_task(bench.engine.revoke(lost=False))
        await asyncio.sleep(0)
        assert bench.engine._workers[KEY].overdue == 1
        await revoking
        counts = bench.counters.routes["r0"]
        assert (gate.begun, gate.running, source.committed, source.ahead) == ([0, 1], [], 1, [])
        assert (counts.waiting, counts.handled, counts.abandoned, bench.failures) == (0, 1, 1, [])


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_halt_in_the_middle_of_a_call(ordering: str) -> None:
    """A halt lets the call end, begins no other, and its command names only what has no outcome."""
    gate = Gate(0)
    source = LogSource(records(4), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=1) as bench:
        await until_second(bench, gate)
        bench.engine.halt_all(HaltReason.FUSE, "a test")
        gate.open()
        await until(lambda: source.committed == 2)
        await rounds()
        assert (gate.begun, source.ahead) == ([0, 1], [])


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_pause_in_the_middle_of_a_call(ordering: str) -> None:
    """A pause that begins while a call waits lets it end, and nothing begins until the pause ends."""
    gate = Gate(0)
    source = LogSource(records(4), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=1) as bench:
        await until_second(bench, gate)
        bench.engine.doubt(doubtful=True)
        gate.open()
        await until(lambda: source.committed == 2)
        await rounds()
        assert gate.begun == [0, 1]
        bench.engine.doubt(doubtful=False)
        await until(lambda: source.committed == source.end)
    assert gate.begun == [0, 1, 2, 3]


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_call_that_fails_after_it_waited(ordering: str) -> None:
    """A call that fails is made again before its lane goes on, and its record is done once."""
    calls: list[int] = []

    async def handle(_event: bytes, record: Record) -> None:
        calls.append(record.offset)
        await asyncio.sleep(0)
        if record.offset == 2 and calls.count(2) == 1:
            raise ValueError
        source.done.add(record.offset)

    source = LogSource(keyed([b"a"] * 5))
    async with an_engine_on(source, a_route(handle), retry=QUICK, ordering=ordering, concurrency=1) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        counts, partition = bench.counters.routes["r0"], bench.engine.partitions[KEY]
        assert (counts.handled, counts.retries, counts.waiting, partition.in_flight) == (5, 1, 0, (0, 0))
    assert (sorted(calls) if ordering == "unordered" else calls) == [0, 1, 2, 2, 3, 4]
    assert source.ahead == []


async def test_waiting_calls_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane whose calls wait gives way to other partitions when a turn has ended."""
    monkeypatch.setattr("consumer.delivery.turns.SLICE_SECONDS", -1.0)  # a turn is over at once
    turns, take = 0, Turns.next

    async def counted(self: Turns) -> None:
        nonlocal turns
        turns += 1
        await take(self)

    monkeypatch.setattr(Turns, "next", counted)

    async def handle(_event: bytes) -> None:
        await asyncio.sleep(0)

    source = LogSource(records(50))
    async with an_engine_on(source, a_route(handle)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    assert turns >= 50


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("waits", [1, 2, 3, 7])
def test_calls_that_wait_now_and_then(waits: int, ordering: str) -> None:
    """Calls that wait and calls that do not follow one another in order, and each counts once."""
    calls: list[int] = []

    async def handle(_event: bytes, record: Record) -> None:
        calls.append(record.offset)
        if record.offset % waits == 0:
            await asyncio.sleep(0)
        source.done.add(record.offset)

    source = LogSource(keyed([b"a"] * 50), chunk_records=20)

    async def run() -> None:
        async with an_engine_on(source, a_route(handle), ordering=ordering) as bench:
            bench.engine.assign([KEY])
            await until(lambda: source.committed == source.end)
            assert numbers(bench) == (0, 50, 0, 50, source.end, source.end)
            assert bench.engine.partitions[KEY].in_flight == (0, 0)

    with asyncio.Runner(loop_factory=TimedLoop) as runner:  # it knows which calls have waited
        runner.run(run())
    assert (calls, source.ahead) == (list(range(50)), [])


async def test_a_batch_route_beside_a_route_that_waits() -> None:
    """Calls that wait in partition order keep it beside a route of batches, and both get every record."""
    calls: list[int] = []
    collected: list[bytes] = []

    async def handle(_event: bytes, record: Record) -> None:
        await asyncio.sleep(0)
        calls.append(record.offset)

    def batch(events: list[bytes]) -> None:
        collected.extend(events)

    source = LogSource(records(30))
    async with an_engine_on(source, a_batch_route(batch, "b", max_records=4, max_seconds=0.01), a_route(handle)) as b:
        b.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    assert (calls, len(collected)) == (list(range(30)), 30)


async def _raises() -> None:
    await asyncio.sleep(0)
    raise GeneratorExit


@pytest.mark.parametrize(
    ("handler", "end", "cancelled"),
    [(lambda: asyncio.sleep(0), "close", True), (_raises, "send", False)],
    ids=["closed", "raised by the handler"],
)
def test_a_task_that_is_closed_ends(
    handler: Callable[[], Coroutine[Any, Any, None]], end: str, cancelled: bool
) -> None:
    """A GeneratorExit ends the worker when its task is closed, and fails one record when a handler raised it."""
    found: list[bool] = []
    gate = PartitionGate(Partition(KEY, 1))

    async def call() -> None:
        try:
            await handler()
        except BaseException as error:
            found.append(gate.has_cancelled(error))
            if found[0]:
                raise

    coroutine = call()
    coroutine.send(None)
    with contextlib.suppress(StopIteration):
        coroutine.close() if end == "close" else coroutine.send(None)
    assert found == [cancelled]
