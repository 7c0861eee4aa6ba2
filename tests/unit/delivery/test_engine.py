"""The engine on a source in memory: races and failures that a real broker does not produce on demand."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumer import Record
from consumer.errors import PartitionHaltedError
from consumer.outcome import Outcome
from consumer.record import TopicPartition
from tests.cluster import eventually
from tests.unit.delivery.engines import Bench, a_route, an_engine_on, outlive
from tests.unit.delivery.source import KEY, MemorySource, a_chunk

Handle = Callable[..., Any]


@asynccontextmanager
async def an_engine(*handlers: Handle, **delivery: Any) -> AsyncIterator[Bench]:
    routes = [a_route(handler, f"r{index}") for index, handler in enumerate(handlers)]
    delivery = {"drain_seconds": 0.2, "commit_interval_seconds": 0.01} | delivery
    async with an_engine_on(MemorySource(), *routes, **delivery) as bench:
        yield bench


def handled(bench: Bench, route: str = "r0") -> int:
    return bench.counters.outcomes[route, Outcome.HANDLED]


async def test_records_are_handled_in_order_and_committed() -> None:
    """Each record is handled once, in offset order; the commit is the next offset to read, past gaps."""
    seen: list[int] = []
    async with an_engine(lambda _event, record: seen.append(record.offset)) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(5, 3), a_chunk(20, 2, next_offset=30))
        await eventually(lambda: {KEY: 30} in bench.source.commits)
    assert seen == [5, 6, 7, 20, 21]
    offsets = [commit[KEY] for commit in bench.source.commits]
    assert offsets == sorted(set(offsets))


async def test_a_plain_function_may_return_a_coroutine() -> None:
    """A coroutine that a lambda or a wrapper returns is awaited; otherwise its record would be lost silently."""
    seen: list[bytes] = []

    async def slowly(event: bytes) -> None:
        await asyncio.sleep(0)
        seen.append(event)

    def wrapper(event: bytes) -> Awaitable[None]:
        return slowly(event)

    async with an_engine(wrapper, functools.partial(wrapper)) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 2))
        await eventually(lambda: handled(bench, "r1") == 2)
    assert len(seen) == 4


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, ValueError, RecursionError])
async def test_whatever_a_handler_raises_halts(error: type[BaseException]) -> None:
    """Any exception of a handler halts the partition, a cancellation included; the worker never ends silently."""

    async def fails(_event: bytes) -> None:
        raise error

    async with an_engine(fails, on_halt="exit") as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(3, 2))
        await eventually(lambda: bench.failures)
        assert bench.engine.partitions[KEY].halt is not None
    (failure,) = bench.failures
    assert isinstance(failure, PartitionHaltedError)
    assert str(failure).startswith(f"topic t, partition 0, offset 3: the handler of route 'r0' raised {error.__name__}")
    assert bench.source.commits == []


async def test_several_routes_in_order() -> None:
    """Routes get a record in order; when one fails, those before it have run and nothing is committed."""
    seen: list[str] = []

    def second(_event: bytes) -> None:
        seen.append("second")
        raise ValueError

    async with an_engine(lambda _: seen.append("first"), second, lambda _: seen.append("third")) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 2))
        await eventually(lambda: bench.engine.partitions[KEY].halt)
    assert seen == ["first", "second"]
    assert bench.source.commits == []


async def test_a_revoke_waits_for_the_call_and_commits_it() -> None:
    """On revoke the running call ends, nothing behind it starts, and that call is committed."""
    begun, go = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    async def waits(_event: bytes, record: Record) -> None:
        seen.append(record.offset)
        begun.set()
        await go.wait()

    async with an_engine(waits, drain_seconds=5.0) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 10))
        await begun.wait()
        revoking = asyncio.create_task(bench.engine.revoke(lost=False))
        await asyncio.sleep(0.05)
        assert not revoking.done()
        go.set()
        await revoking
        assert (seen, bench.source.commits, bench.engine.partitions) == ([0], [{KEY: 1}], {})


async def test_lost_partitions_are_not_committed() -> None:
    """A lost partition is not committed, because another member owns it."""
    async with an_engine(lambda _: None, commit_interval_seconds=60.0) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 3))
        await eventually(lambda: handled(bench) == 3)
        await bench.engine.revoke(lost=True)
        assert bench.source.commits == []


async def test_old_work_never_meets_new_work() -> None:
    """A call that outlived its epoch still holds its partition; the next epoch's records wait for its end."""
    calls: list[str] = []
    stubborn, release = asyncio.Event(), asyncio.Event()

    async def handle(_event: bytes, record: Record) -> None:
        calls.append(f"begin {record.offset}")
        if not stubborn.is_set():
            stubborn.set()
            await outlive(release)
        calls.append(f"end {record.offset}")

    async with an_engine(handle, drain_seconds=0.05) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 1))
        await stubborn.wait()
        await bench.engine.revoke(lost=False)
        assert bench.counters.abandoned["r0"] == 1
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 2))
        await asyncio.sleep(0.05)
        assert calls == ["begin 0"]
        release.set()
        await eventually(lambda: {KEY: 2} in bench.source.commits)
    assert calls == ["begin 0", "end 0", "begin 0", "end 0", "begin 1", "end 1"]


async def test_one_commit_at_a_time() -> None:
    """While a commit is unanswered no other is sent; the next one holds all that was done since."""
    async with an_engine(lambda _: None) as bench:
        bench.source.hold_commits = asyncio.Event()
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 3))
        await eventually(lambda: bench.source.commits_under_way)
        bench.source.give(a_chunk(3, 3))
        await eventually(lambda: handled(bench) == 6)
        await asyncio.sleep(0.1)
        assert bench.source.commits == []
        bench.source.hold_commits.set()
        await eventually(lambda: len(bench.source.commits) == 2)
    assert (bench.source.commits, bench.source.most_commits_under_way) == ([{KEY: 3}, {KEY: 6}], 1)


@pytest.mark.parametrize("answer", ["failed", "fenced"])
async def test_a_commit_that_fails_is_sent_again(answer: Any) -> None:
    """An offset counts as committed only when the group confirmed it."""
    async with an_engine(lambda _: None) as bench:
        bench.source.answers = [answer]
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 3))
        await eventually(lambda: len(bench.source.commits) == 2)
        assert bench.engine.partitions[KEY].committed == 3
    assert bench.source.commits == [{KEY: 3}, {KEY: 3}]
    assert bench.counters.commits == {"ok": 1, "failed": 0, "fenced": 0} | {answer: 1}


async def test_flush_before_commit_sees_all_that_is_committed() -> None:
    """The offsets of a commit are noted before its flush; records handled during the flush wait for the next commit."""
    flushing, go = asyncio.Event(), asyncio.Event()

    class Keeps:
        def __init__(self) -> None:
            self.kept = 0
            self.flushed = 0

        def __call__(self, _event: bytes) -> None:
            self.kept += 1

        async def flush(self) -> None:
            kept = self.kept
            flushing.set()
            await go.wait()
            self.flushed = kept

    handler = Keeps()
    async with an_engine(handler) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 3))
        await flushing.wait()
        bench.source.give(a_chunk(3, 4))
        await eventually(lambda: handler.kept == 7)
        go.set()
        await eventually(lambda: len(bench.source.commits) == 2)
    assert bench.source.commits == [{KEY: 3}, {KEY: 7}]


async def test_inline_work_lets_others_run() -> None:
    """A thousand busy inline calls share the event loop with other tasks."""
    turns: list[int] = []

    def busy(_event: bytes) -> None:
        sum(range(20_000))

    async with an_engine(busy) as bench:
        bench.engine.assign([KEY])
        bench.source.give(a_chunk(0, 1000))
        while handled(bench) < 1000:
            turns.append(handled(bench))
            await asyncio.sleep(0)
    assert len(set(turns)) > 5


async def test_partitions_do_not_wait_for_each_other() -> None:
    """A call that hangs in one partition does not delay another partition."""
    other = TopicPartition("t", 1)
    never = asyncio.Event()

    async def handle(_event: bytes, record: Record) -> None:
        if record.partition == 0:
            await never.wait()

    async with an_engine(handle, drain_seconds=0.05) as bench:
        bench.engine.assign([KEY, other])
        bench.source.give(a_chunk(0, 3))
        bench.source.give(a_chunk(0, 50), key=other)
        await eventually(lambda: {other: 50} in bench.source.commits)
    assert not any(KEY in commit for commit in bench.source.commits)


async def settled(awaitable: Awaitable[Any]) -> None:
    await asyncio.wait([asyncio.ensure_future(awaitable)], timeout=5)


async def test_stopping_twice_or_without_partitions_does_nothing() -> None:
    """Stopping without a partition, or twice, returns at once."""
    async with an_engine(lambda _: None) as bench:
        await settled(bench.engine.stop())
        await settled(bench.engine.stop())
        bench.engine.assign([KEY])
        assert bench.engine.partitions == {}
