"""Batches: how they are cut, one call at a time, in offset order; the watermark waits for them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from consumer import Record
from consumer.outcome import HaltReason
from tests.unit.delivery.batches import HOUR, KINDS, Batches, a_batch_route, some
from tests.unit.delivery.engines import a_route, an_engine_on, outlive
from tests.unit.delivery.handlers import Gate
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import rounds, until


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_is_called_when_it_is_full(kind: str) -> None:
    """The handler gets ``max_records`` at a time in offset order; a smaller batch waits for its time."""
    source = LogSource(some(10), chunk_records=3)
    batches = Batches(source.done)
    async with an_engine_on(source, batches.route(kind)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == 8)
        await rounds()
        assert batches.calls == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert not source.ahead


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_is_called_when_its_time_has_come(kind: str) -> None:
    """A batch is called ``max_seconds`` after its first record, full or not."""
    source = LogSource(some(3))
    batches = Batches(source.done)
    async with an_engine_on(source, batches.route(kind, max_records=100, max_seconds=0.01)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert batches.offsets == [0, 1, 2]
    assert not source.ahead


@pytest.mark.parametrize("kind", KINDS)
async def test_a_revoke_calls_an_unfinished_batch(kind: str) -> None:
    """A revoke calls an unfinished batch at once, and commits it."""
    source = LogSource(some(6))
    batches = Batches(source.done)
    async with an_engine_on(source, batches.route(kind), commit_interval_seconds=HOUR) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].position == source.end)
        await bench.engine.revoke(lost=False)
        assert batches.calls == [[0, 1, 2, 3], [4, 5]]
        assert source.commits == [{KEY: source.end}]
    assert not source.ahead


async def test_a_stop_calls_the_batch_behind_a_running_call() -> None:
    """A stop waits for the running call, then calls the batch collected behind it."""
    source = LogSource(some(6))
    batches = Batches(source.done, shut=True)
    async with an_engine_on(source, batches.route()) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].position == source.end)
        stopping = asyncio.create_task(bench.engine.stop())
        await rounds()
        assert batches.calls == [[0, 1, 2, 3]]
        batches.gate.set()
        await stopping
        assert batches.calls == [[0, 1, 2, 3], [4, 5]]
        assert source.committed == source.end
    assert batches.most_running == 1


async def test_a_batch_handler_with_one_parameter() -> None:
    """A handler with one parameter gets the list of events alone."""
    seen: list[list[bytes]] = []

    def handle(events: list[bytes]) -> None:
        seen.append(events)

    source = LogSource(keyed([b"k"] * 4, value=b"event"))
    async with an_engine_on(source, a_batch_route(handle)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r0"].handled == 4)
    assert seen == [[b"event"] * 4]


async def test_threaded_batches_run_outside_the_loop() -> None:
    """A threaded batch handler runs in another thread; its records count as handled when it returns."""
    threads: set[int] = set()

    def handle(_events: list[bytes]) -> None:
        threads.add(threading.get_ident())

    source = LogSource(some(8))
    async with an_engine_on(source, a_batch_route(handle, threaded=True)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r0"].handled == 8)
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_a_full_batch_behind_a_call_stops_intake(ordering: str) -> None:
    """While a call runs the next batch fills; then intake stops in every ordering, and nothing is lost."""
    source = LogSource(some(40), chunk_records=7)
    batches = Batches(source.done, shut=True)
    async with an_engine_on(source, batches.route(), ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].position == 8)
        await rounds()
        assert (bench.engine.partitions[KEY].position, batches.calls) == (8, [[0, 1, 2, 3]])
        assert source.commits == []
        batches.gate.set()
        await until(lambda: source.committed == source.end)
        partition = bench.engine.partitions[KEY]
        assert partition.in_flight == (0, 0)
    assert batches.offsets == list(range(40))
    assert batches.most_running == 1
    assert not source.ahead


async def test_a_batch_whose_time_comes_during_a_call_is_called_after_it() -> None:
    """A batch whose time comes while another call runs is called when that call ends, full or not."""
    source = LogSource(some(6))
    batches = Batches(source.done, shut=True)
    async with an_engine_on(source, batches.route(max_seconds=0.005)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine._workers[KEY].work.batches[0]._due)
        assert batches.calls == [[0, 1, 2, 3]]
        batches.gate.set()
        await until(lambda: source.committed == source.end)
    assert batches.calls == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("limit", [{"max_in_flight_records": 5}, {"max_in_flight_bytes": 50}])
async def test_a_batch_larger_than_room_does_not_stall(limit: dict[str, Any]) -> None:
    """A batch that cannot fill because the room is used up is called as it is, before its time."""
    source = LogSource(keyed([b"k"] * 20, value=b"v" * 9))
    batches = Batches(source.done)
    async with an_engine_on(source, batches.route(max_records=10), **limit) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].position == source.end, seconds=2)
    assert batches.offsets == list(range(20))


async def test_the_watermark_waits_for_the_batch() -> None:
    """A record in a batch is not done before the batch is, even when its other routes are."""
    seen: list[int] = []
    source = LogSource(some(6))
    batches = Batches(source.done, shut=True)
    other = a_route(lambda _event, record: seen.append(record.offset), "r1")
    async with an_engine_on(source, batches.route(), other) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(seen) == 6)
        await rounds()
        assert bench.engine.partitions[KEY].done == 0
        assert source.commits == []
        batches.gate.set()
        await until(lambda: source.committed == 4)
        assert bench.engine.partitions[KEY].done == 4
    assert source.committed == source.end
    assert not source.ahead


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_batch_without_dead_letters_halts(kind: str) -> None:
    """If one record of a batch can have no outcome, nothing of the batch is committed; the halt names that record."""
    source = LogSource(some(20))
    batches = Batches(source.done, failing=6)
    async with an_engine_on(source, batches.route(kind)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].halt)
        await until(lambda: source.committed == 4)
        await rounds()
        halt = bench.engine.partitions[KEY].halt
        assert halt is not None
        assert (halt.reason, halt.offset) == (HaltReason.NO_DEAD_LETTER, 6)
        assert bench.counters.handler_errors["r0", "error"] == 2
    assert batches.calls == [[0, 1, 2, 3], [4, 5, 6, 7], [4], [5], [6], [7]]
    assert source.committed == 4
    assert not source.ahead


async def test_a_full_batch_behind_one_that_fails_is_not_called() -> None:
    """A batch behind a failed call stays undone and uncommitted, and a stop does not wait for it."""
    source = LogSource(some(20))
    batches = Batches(source.done, shut=True, failing=1)
    async with an_engine_on(source, batches.route()) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine._workers[KEY].work.batches[0]._due)
        batches.gate.set()
        await until(lambda: bench.engine.partitions[KEY].halt)
    assert (batches.calls, source.commits) == ([[0, 1, 2, 3], [0], [1], [2], [3]], [])


async def test_batch_routes_of_different_sizes() -> None:
    """Each route cuts its batches by its own size; the commit lies where all routes are done."""
    source = LogSource(some(15))
    small, large = Batches(), Batches(source.done)
    routes = [small.route("sync", "r0", max_records=2), large.route("async", "r1", max_records=5)]
    async with an_engine_on(source, *routes) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == 14)
        assert [len(call) for call in small.calls] == [2] * 7
        assert [len(call) for call in large.calls] == [5] * 3
    assert (small.offsets, large.offsets) == (list(range(15)), list(range(15)))
    assert source.committed == source.end
    assert not source.ahead


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("ordering", ["key", "unordered"])
async def test_batches_keep_offset_order_beside_calls_that_overlap(ordering: str, batch_first: bool) -> None:
    """A batch stays in offset order and within its size while calls of another route end out of order."""
    gate = Gate(2, 3, 4, 5, 6, 7)
    source = LogSource(keyed([b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"]))
    batches = Batches(source.done, shut=True)
    routes = [batches.route("async", "r0", max_records=3), a_route(gate, "r1")]
    async with an_engine_on(source, *(routes if batch_first else routes[::-1]), ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: {2, 3} <= set(gate.ended))
        await rounds()
        gate.open()
        await until(lambda: {0, 1, 2, 3} <= set(gate.ended))
        await rounds()
        assert bench.engine.partitions[KEY].done == 0  # no batch has been handled, whatever the calls beside them
        batches.gate.set()
        await until(lambda: source.committed >= 6 or source.ahead)
    assert batches.offsets == list(range(8))
    assert max(len(call) for call in batches.calls) <= 3
    assert source.ahead == []


async def test_a_record_behind_a_busy_key_reaches_the_batch_in_its_place() -> None:
    """A record that waits for its key is not overtaken in the batch by later records of other keys."""
    gate = Gate(2)
    source = LogSource(keyed([b"a", b"a", b"b"]))
    batches = Batches(source.done, shut=True)
    async with an_engine_on(
        source, batches.route("async", "r0", max_records=3), a_route(gate, "r1"), ordering="key"
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: gate.ended == [2] or len(gate.begun) == 2)
        gate.open()
        await until(lambda: batches.calls)
        await rounds()
        assert source.ahead == []
        batches.gate.set()
    assert batches.offsets == [0, 1, 2]
    assert source.ahead == []


async def test_a_record_that_reaches_its_batch_during_the_drain_is_handled() -> None:
    """A call that ends during the drain hands its record to a batch, which is called before the revoke returns."""
    gate = Gate()
    source = LogSource(some(3))
    batches = Batches(source.done)
    async with an_engine_on(
        source, a_route(gate, "r0"), batches.route("async", "r1", max_seconds=0.02), commit_interval_seconds=HOUR
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: gate.running == [0])
        revoking = asyncio.create_task(bench.engine.revoke(lost=False))
        await rounds()
        gate.open()
        await revoking
        assert batches.calls == [[0]]
        assert source.commits == [{KEY: 1}]
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.03, later.set)  # behind the batch's own timer, had it been left on
        await later.wait()
        assert batches.calls == [[0]]


async def test_a_batch_call_that_outlives_its_epoch_starts_no_other() -> None:
    """A batch call may end in the next epoch; the batch behind it is then called once, in that epoch."""
    release, stubborn = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    async def handle(_events: list[bytes], records: list[Record]) -> None:
        offsets = [record.offset for record in records]
        calls.append(f"begin {offsets}")
        if not stubborn.is_set():
            stubborn.set()
            await outlive(release)
        await asyncio.sleep(0)
        calls.append(f"end {offsets}")

    source = LogSource(some(4))
    route = a_batch_route(handle, max_records=2)
    async with an_engine_on(source, route, drain_seconds=0.02, commit_interval_seconds=HOUR) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine._workers[KEY].work.batches[0]._due)
        await bench.engine.revoke(lost=False)
        assert source.commits == []
        source.rewind()
        bench.engine.assign([KEY])
        await rounds()
        assert calls == ["begin [0, 1]"]
        release.set()
        await until(lambda: bench.counters.routes["r0"].handled >= 6)
        await rounds()
    assert calls == [f"{what} {offsets}" for offsets in ([0, 1], [0, 1], [2, 3]) for what in ("begin", "end")]
