"""Lanes: which calls may overlap, what is committed, and what failures, revokes and stops leave."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from functools import partial
from operator import contains, eq
from typing import Any

import msgspec
import pytest

from consumer import Record
from consumer.outcome import HaltReason
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.handlers import OVERLAPPING, Gate
from tests.unit.delivery.log_source import LogSource, is_committed, keyed
from tests.unit.delivery.source import KEY, RawRecord
from tests.unit.delivery.waiting import rounds, until


async def test_keys_overlap_up_to_concurrency() -> None:
    """Different keys are handled at once, up to ``concurrency`` calls."""
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
    """``concurrency`` also bounds a wrapper or a lambda around an async function."""
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
    """Records of one key wait for each other in order; records of other keys do not."""
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
    """Records without a key share one lane per partition; an empty key is a key."""
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
    """With ``unordered`` the key does not matter: only ``concurrency`` bounds the calls."""
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
    """With ordering ``partition`` two calls never overlap, whatever the keys and ``concurrency``."""
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
    """A key is kept only while one of its records is in flight: a hundred keys leave nothing behind."""
    gate = Gate()
    source = LogSource(keyed(b"%d" % (number % 100) for number in range(500)), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key", concurrency=8) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 8)
        gate.open()
        await until(lambda: len(gate.ended) == 500)
        lanes = bench.engine._workers[KEY]
        await until(lambda: not lanes.busy)
        assert lanes.partition.in_flight == (0, 0)
        await until(lambda: len(lanes.tasks) == 1)


@pytest.mark.parametrize("ordering", OVERLAPPING)
async def test_the_commit_is_the_first_offset_that_is_not_done(ordering: str) -> None:
    """When calls end out of order, the commit stays at the first record that is not done."""
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


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_failure_in_one_lane_halts_the_partition(suspends: bool) -> None:
    """After a failure running calls end, nothing queued starts, and nothing past the failed record is committed."""
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
    """A handler that cancels its own task halts its partition; the worker does not end silently."""

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
    """A drain finishes records queued behind a busy key, because later records are already done."""
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
    """In a drain running calls end and are committed; records still in the chunk are left to the next owner."""
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
    """At the drain's time limit calls are cancelled and counted; the commit stops at the first of them."""
    gate = Gate(0, 2)
    source = LogSource(keyed(b"%d" % number for number in range(3)), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering="key", drain_seconds=0.02) as bench:
        bench.engine.assign([KEY])
        await until(lambda: sorted(gate.ended) == [0, 2])
        await bench.engine.revoke(lost=False)
        assert (source.committed, source.ahead, bench.counters.routes["r0"].abandoned) == (1, [], 1)
        assert gate.running == []


async def test_a_call_that_outlives_its_epoch_starts_nothing() -> None:
    """A call that ends after the revoke starts nothing: records queued behind its key are left to the next owner."""
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
    """An internal error between decoding and handling halts the partition at its record."""
    handled: list[bytes] = []

    async def waits(event: bytes) -> None:
        handled.append(event)

    def takes(events: list[bytes]) -> None:
        handled.extend(events)

    def matches(event: bytes, _raw: Any) -> bool:
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
        if kind != "batches":  # an unfinished batch may be called or left: its records are not committed either way
            await until(lambda: source.committed >= 2)
        await rounds()
    assert handled in ([b"0", b"1"], [])
    assert source.committed in ((0, 2) if kind == "batches" else (2,))


async def test_a_crash_starts_nothing_more() -> None:
    """When the task group is cancelled the waiting calls end, and no call takes their place."""
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
