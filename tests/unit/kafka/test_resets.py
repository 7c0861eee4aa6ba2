"""Resets of a position beside rebalances, flushes, failing commits and other partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from consumer.instructions import Retry
from consumer.routes.route import Route
from consumer.settings.sections import Delivery
from tests.fakes import daemon as fake_daemon
from tests.fakes.broker import FETCH, LIST_OFFSETS, OFFSET_COMMIT, FakeBroker
from tests.fakes.daemon import PATHS, Run, running
from tests.unit.delivery.engines import a_route
from tests.unit.kafka.test_positions import EARLIEST, INVALID_COMMIT_SIZE, gone_from, lists

RESET: dict[str, Any] = {"out_of_range": "earliest"}


def a_broker(partitions: int = 1, records: int = 1000) -> FakeBroker:
    broker = FakeBroker(partitions=partitions, records=records, step=10)
    broker.answers |= {FETCH: gone_from(broker, 20), LIST_OFFSETS: lists(broker)}
    broker.committed[0] = 0
    return broker


def with_flush(monkeypatch: pytest.MonkeyPatch, flush: Callable[[], Awaitable[object]]) -> None:
    """Give the handler of the next Run a flush."""

    def a_flushed_route(handle: Any) -> Route:
        made = a_route(handle)
        return msgspec.structs.replace(made, handler=msgspec.structs.replace(made.handler, flush=flush))

    monkeypatch.setattr(fake_daemon, "a_route", a_flushed_route)


@PATHS
async def test_a_rebalance_during_a_reset_leaves_every_partition_consumed(path: str, quick: None) -> None:
    """A rebalance that ends while a reset asks for an offset does not cost the next epoch its partition."""
    async with a_broker(partitions=2, records=100_000) as broker:
        asked = asyncio.Event()
        usual = lists(broker)

        async def slow_once(version: int, response: Any, request: Any) -> Any:
            earliest = any(each[1 if version < 4 else 2] == -2 for _topic, rows in request.topics for each in rows)
            if earliest and not asked.is_set():
                asked.set()
                await asyncio.sleep(0.6)
            return usual(version, response, request)

        broker.answers[LIST_OFFSETS] = slow_once
        broker.committed[1] = EARLIEST
        run = Run(broker, path=path, kafka=RESET)
        run.next[1] = EARLIEST
        async with running(run):
            await asked.wait()
            broker.rebalance()
            await run.until(lambda: broker.committed[0] > EARLIEST)
            assert sorted(key.partition for key in run.engine.partitions) == [0, 1]
            await run.end()
    assert run.gaps == ["0: 900 came instead of 20"]


@PATHS
async def test_a_rebalance_during_the_last_flush_before_a_reset(
    path: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance that comes while a settled partition is flushed begins each epoch once, and the stop ends."""

    async def flush() -> None:
        await asyncio.sleep(0.1)

    with_flush(monkeypatch, flush)
    async with a_broker() as broker:
        run = Run(
            broker, path=path, kafka=RESET | {"rebalance_timeout_seconds": 3.0}, watchdog={"stalled_seconds": 5.0}
        )
        async with running(run):
            await run.until(lambda: run.next.get(0) == 20)
            for _ in range(3):
                broker.rebalance()
                await asyncio.sleep(0.15)
            await run.until(lambda: broker.committed[0] == 1000)
            await run.end()
    assert run.gaps == ["0: 900 came instead of 20"]


@PATHS
@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_a_reset_never_passes_what_is_not_flushed(
    path: str, how: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the flush of what was handled fails, or hangs, no other position is committed."""
    well = asyncio.Event()

    async def flush() -> None:
        if how == "hangs":
            await well.wait()
        elif not well.is_set():
            raise OSError(28, "No space left on device")

    with_flush(monkeypatch, flush)
    async with a_broker() as broker:
        run = Run(broker, path=path, kafka=RESET, watchdog={"stalled_seconds": 9.0})
        async with running(run):
            await run.until(lambda: run.next.get(0) == 20)
            assert await run.stays(lambda: (run.next, broker.committed), 0.5)
            well.set()
            await run.until(lambda: broker.committed[0] == 1000)
            await run.end()
    offsets = [each.offset for each in broker.commits]
    assert offsets[offsets.index(EARLIEST) - 1] == 20


async def test_a_reset_that_is_refused_for_ever_is_found(quick: None) -> None:
    """A partition whose new position is never committed is a stall, and its client is replaced."""
    async with a_broker() as broker:

        def refuse(version: int, response: Any, request: Any) -> Any:
            ((topic, ((number, offset, _),)),) = request.topics
            rows = [(topic, [(number, INVALID_COMMIT_SIZE)])]
            if offset < EARLIEST:
                return None
            return response(0, rows) if version >= 3 else response(rows)

        broker.answers[OFFSET_COMMIT] = refuse
        async with running(Run(broker, kafka=RESET)) as run:
            await run.until(lambda: run.rebuilds)
            assert set(run.rebuilds) == {"position"}
            assert run.next == {0: 20}
            await run.end()


@pytest.mark.parametrize("rule", ["earliest", "halt"])
async def test_a_reset_that_waits_for_a_retry_is_no_stall(
    rule: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition whose offset is gone waits for its records' outcomes, however long they hold."""
    monkeypatch.setattr(fake_daemon, "Delivery", partial(Delivery, ordering="unordered", concurrency=4))

    def handle() -> None:
        if run.next[0] == 1:
            raise Retry(after=60)

    async with a_broker() as broker:
        run = Run(broker, kafka={"out_of_range": rule}, handler=handle)
        async with running(run):
            await run.until(lambda: run.next.get(0) == 20)
            assert await run.stays(lambda: (run.rebuilds, run.daemon._parts.vitals.unhealthy, run.halted), 2.0)
            await run.end()
    assert (run.rebuilds, run.halted) == ({}, {})


async def test_a_slow_flush_before_a_reset_stops_no_other_partition(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one partition waits for its flush and its new position, others are polled and handled."""
    well = asyncio.Event()
    with_flush(monkeypatch, well.wait)
    async with a_broker(partitions=2, records=100_000) as broker:
        broker.committed[1] = EARLIEST
        run = Run(broker, kafka=RESET, watchdog={"stalled_seconds": 9.0})
        run.next[1] = EARLIEST
        async with running(run):
            await run.until(lambda: run.next.get(0) == 20)
            before = run.next[1]
            await run.until(lambda: run.next[1] > before + 1000)
            assert run.next[0] == 20
            well.set()
            await run.until(lambda: run.next[0] > EARLIEST)
            await run.end()


async def test_a_flush_that_fails_is_not_tried_in_a_loop(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset asks for one commit early; when that fails, the next comes with the interval."""
    flushes = []

    async def flush() -> None:
        flushes.append(1)
        raise OSError(28, "No space left on device")

    with_flush(monkeypatch, flush)
    async with a_broker(partitions=2, records=10_000_000) as broker:
        broker.committed[1] = EARLIEST
        run = Run(broker, kafka=RESET, watchdog={"stalled_seconds": 60.0})
        run.next[1] = EARLIEST
        run.engine.commit_seconds = 1000.0
        async with running(run):
            await run.until(lambda: run.next.get(0) == 20)
            before = run.next[1]
            await run.until(lambda: run.next[1] > before + 1000)
            assert len(flushes) <= 2
            await run.end()


async def test_a_reset_is_not_cut_short_by_the_commit_of_others(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit of another partition that is flushed for long does not end a reset half-way."""
    monkeypatch.setattr("consumer.kafka.positions.ANSWER_SECONDS", 0.2)

    async def flush() -> None:
        if run.next.get(0, 0) <= EARLIEST:
            await asyncio.sleep(0.3)

    with_flush(monkeypatch, flush)
    async with a_broker(partitions=2, records=100_000) as broker:
        broker.committed[1] = EARLIEST
        run = Run(broker, kafka=RESET, watchdog={"stalled_seconds": 9.0})
        run.next[1] = EARLIEST
        async with running(run):
            await run.until(lambda: run.next.get(0, 0) > EARLIEST)
            await run.end()
    assert run.rebuilds == {}


async def test_many_partitions_without_an_offset_begin_together(quick: None) -> None:
    """Positions are set one after the other, without a round of polling in between."""
    async with FakeBroker(partitions=80, records=0) as broker:
        run = Run(broker, watchdog={"stalled_seconds": 60.0})
        async with running(run):
            await run.until(lambda: len(broker.committed) == 80)  # 80 rounds of polling would take 16 s
            await run.end()
