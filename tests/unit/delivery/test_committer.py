"""The committer: one commit at a time, after every flush, within a time limit, and none after the epoch's end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.delivery.committer import Committer
from consumer.observe.counters import Counters
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.source import KEY, MemorySource, a_chunk
from tests.unit.delivery.waiting import rounds, until

LONG = 3600.0
Flush = Callable[[], Awaitable[None]]


class Bench(msgspec.Struct):
    """A committer, its partitions and its counters."""

    committer: Committer
    source: MemorySource
    counters: Counters
    tasks: asyncio.TaskGroup


@asynccontextmanager
async def a_committer(**flushes: Flush) -> AsyncIterator[Bench]:
    source, counters = MemorySource(), Counters(["t"], flushes)
    async with asyncio.TaskGroup() as tasks:
        yield Bench(Committer(source, flushes, counters, tasks), source, counters, tasks)


def a_partition(done: int, key: TopicPartition = KEY) -> Partition:
    partition = Partition(key, epoch=1)
    partition.start(0)
    partition.watermark.advance(done)
    return partition


def advance(partition: Partition, position: int) -> None:
    partition.watermark.advance(position)


async def commit(bench: Bench, seconds: float, *partitions: Partition) -> None:
    """Commit with a limit of ``seconds`` for the flushes and again for the answer."""
    await bench.committer.commit(partitions, time.monotonic() + seconds, seconds)


async def no_flush() -> None:
    """Do nothing."""


async def test_what_is_done_is_committed_in_one_request() -> None:
    """One commit request holds every partition that advanced since the last one, and no other."""
    first, second, still = (
        a_partition(3),
        a_partition(5, TopicPartition("t", 1)),
        a_partition(0, TopicPartition("t", 2)),
    )
    async with a_committer() as bench:
        await commit(bench, LONG, first, second, still)
        advance(first, 4)
        await commit(bench, LONG, first, second, still)
    assert bench.source.commits == [{first.key: 3, second.key: 5}, {first.key: 4}]
    assert (first.committed, second.committed, still.committed) == (4, 5, 0)


async def test_nothing_new_means_no_flush_and_no_commit() -> None:
    """Without progress nothing is flushed and nothing is sent, nor before a partition's start is known."""
    flushed: list[int] = []

    async def flush() -> None:
        flushed.append(1)

    async with a_committer(r0=flush) as bench:
        await commit(bench, LONG, a_partition(0), Partition(TopicPartition("t", 1), 1))
        await commit(bench, LONG)
    assert (flushed, bench.source.commits) == ([], [])


async def test_all_flushes_come_before_the_commit() -> None:
    """If one flush fails nothing is committed, whatever the others did; the next commit tries again."""
    told: list[str] = []
    failing = [True]

    async def works() -> None:
        told.append("works")

    async def fails() -> None:
        told.append("fails")
        if failing.pop() if failing else False:
            raise OSError

    partition = a_partition(3)
    async with a_committer(r0=works, r1=fails) as bench:
        await commit(bench, LONG, partition)
        assert (bench.source.commits, partition.committed, bench.counters.commits["failed"]) == ([], 0, 1)
        await commit(bench, LONG, partition)
    assert told == ["works", "fails", "works", "fails"]
    assert (bench.source.commits, partition.committed) == ([{KEY: 3}], 3)


async def test_a_flush_that_lets_a_cancellation_escape_counts_as_failed() -> None:
    """A flush that lets a CancelledError escape fails the commit, which is counted."""

    async def escapes() -> None:
        raise asyncio.CancelledError

    partition = a_partition(3)
    async with a_committer(r0=escapes) as bench:
        await commit(bench, LONG, partition)
    assert bench.source.commits == []
    assert bench.counters.commits["failed"] == 1


async def begin_hanging(bench: Bench, partition: Partition) -> asyncio.Event:
    """Begin a commit that is answered once the returned event is set."""
    bench.source.hold_commits = held = asyncio.Event()
    await commit(bench, 0.0, partition)
    await until(lambda: bench.source.commits_under_way)
    return held


async def test_a_second_commit_waits_for_the_first() -> None:
    """While one commit is under way no other is sent; the waiting one gives up at its time limit."""
    partition = a_partition(3)
    async with a_committer() as bench:
        bench.source.hold_commits = asyncio.Event()
        await commit(bench, 0.0, partition)
        await commit(bench, 0.0, partition)
        assert bench.source.most_commits_under_way == 1
        bench.source.hold_commits.set()
        await until(lambda: partition.committed == 3)
    assert bench.source.commits == [{KEY: 3}]


async def test_a_commit_that_waited_beside_another_is_not_skipped() -> None:
    """Two callers wait for a slow commit; each returns after what it asked for is committed."""
    partition = a_partition(3)
    async with a_committer() as bench:
        first, second = await begin_hanging(bench, partition), asyncio.Event()
        advance(partition, 5)
        by_interval = bench.tasks.create_task(commit(bench, LONG, partition))
        await rounds(3)
        by_revoke = bench.tasks.create_task(commit(bench, LONG, partition))
        await rounds(3)
        bench.source.hold_commits = second
        first.set()
        await rounds()
        assert not by_revoke.done()
        second.set()
        await by_revoke
        await bench.committer.end([partition])
        assert partition.committed == 5
        await by_interval
    assert bench.source.commits == [{KEY: 3}, {KEY: 5}]
    assert bench.counters.commits["failed"] == 0


async def test_end_leaves_nothing_under_way() -> None:
    """A hanging commit is cancelled at the end of its epoch and counts as failed; the next epoch can commit."""
    partition, following = a_partition(3), a_partition(7)
    async with a_committer() as bench:
        held = await begin_hanging(bench, partition)
        await bench.committer.end([partition])
        assert (bench.source.commits_under_way, bench.counters.commits["failed"]) == (0, 1)
        held.set()
        await commit(bench, LONG, following)
    assert (bench.source.commits, partition.committed) == ([{KEY: 7}], 0)


async def test_a_waiting_commit_is_not_sent_after_the_epoch() -> None:
    """A caller that waits behind a cancelled commit does not send the old epoch's offsets."""
    partition = a_partition(3)
    async with a_committer() as bench:
        held = await begin_hanging(bench, partition)
        advance(partition, 5)
        waiting = bench.tasks.create_task(commit(bench, LONG, partition))
        await rounds(3)
        await bench.committer.end([partition])
        assert bench.source.commits_under_way == 0
        held.set()
        await waiting
    assert bench.source.commits == []


async def test_a_flush_that_outlives_the_end_commits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that cannot be cancelled returns in the next epoch; the offsets noted before it are dropped."""
    monkeypatch.setattr("consumer.delivery.committer.CANCEL_SECONDS", 0.01)
    flushing, go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        flushing.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    partition = a_partition(3)
    async with a_committer(r0=stubborn) as bench:
        await commit(bench, 0.0, partition)
        await flushing.wait()
        await bench.committer.end([partition])
        go.set()
        await rounds()
        assert bench.source.commits == []


async def test_end_without_a_commit_is_harmless() -> None:
    """Ending an epoch before its first commit, twice, or after its last one does nothing."""
    async with a_committer() as bench:
        await bench.committer.end([])
        await commit(bench, LONG, partition := a_partition(3))
        await bench.committer.end([partition])
        await bench.committer.end([partition])
    assert bench.counters.commits == {"ok": 1, "failed": 0, "fenced": 0}


class Keeps:
    """A handler that keeps events until it is flushed."""

    def __init__(self) -> None:
        self.kept = 0
        self.flushes = 0

    def __call__(self, _event: bytes) -> None:
        self.kept += 1

    async def flush(self) -> None:
        self.flushes += 1


def a_flushed_route(handler: Keeps, flush_seconds: float) -> Route:
    bound = bind_handler(handler, "test")
    return Route("r0", None, msgspec.structs.replace(bound, flush_seconds=flush_seconds))


async def test_flush_seconds_pace_flushes_and_commits() -> None:
    """With a longer ``flush_seconds`` the commit interval does not flush; a revoke flushes once and commits."""
    slow, fast = Keeps(), Keeps()
    other = MemorySource()
    # The second engine is the clock: while it commits five times, each some intervals apart, the first does not once.
    async with (
        an_engine_on(MemorySource(), a_flushed_route(slow, LONG), commit_interval_seconds=0.001) as paced,
        an_engine_on(other, a_flushed_route(fast, 0.002), commit_interval_seconds=0.001) as clock,
    ):
        paced.engine.assign([KEY])
        clock.engine.assign([KEY])
        paced.source.give(a_chunk(0, 5))
        for turn in range(5):
            other.give(a_chunk(turn, 1))
            await until(partial(committed_times, other, turn + 1))
        assert fast.flushes == 5
        assert (slow.kept, slow.flushes, paced.source.commits) == (5, 0, [])
        await paced.engine.revoke(lost=False)
        assert (slow.flushes, paced.source.commits) == (1, [{KEY: 5}])


async def test_a_revoke_is_bounded_by_its_commit_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that brokers do not answer is given up within its budget, and is not sent later."""
    monkeypatch.setattr("consumer.delivery.engine.COMMIT_BUDGET_SECONDS", 0.02)
    source = MemorySource()
    source.hold_commits = asyncio.Event()
    async with an_engine_on(source, a_route(lambda _event: None), commit_interval_seconds=LONG) as bench:
        bench.engine.assign([KEY])
        source.give(a_chunk(0, 3))
        await until(lambda: bench.counters.routes["r0"].handled == 3)
        await bench.engine.revoke(lost=False)
        assert (source.commits_under_way, source.commits, bench.counters.commits["failed"]) == (0, [], 1)
        source.hold_commits.set()
        bench.engine.assign([KEY])
        source.give(a_chunk(0, 1))
        await until(lambda: bench.counters.routes["r0"].handled == 4)
    assert source.commits == [{KEY: 1}]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_commit_that_hangs_over_a_revoke_is_the_last_of_its_epoch(
    lost: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a revoke comes while one commit hangs and the next waits, neither is sent in the next epoch."""
    monkeypatch.setattr("consumer.delivery.engine.COMMIT_BUDGET_SECONDS", 0.02)
    source = MemorySource()
    source.hold_commits = asyncio.Event()
    async with an_engine_on(source, a_route(lambda _event: None), commit_interval_seconds=0.05) as bench:
        bench.engine.assign([KEY])
        source.give(a_chunk(0, 3))
        await until(lambda: source.commits_under_way)
        source.give(a_chunk(3, 3))
        asked: list[float] = []
        commit = bench.engine.committer.commit

        async def noted(partitions: Collection[Partition], flush_until: float, seconds: float, **more: bool) -> None:
            asked.append(seconds)
            await commit(partitions, flush_until, seconds, **more)

        monkeypatch.setattr(bench.engine.committer, "commit", noted)
        await until(lambda: asked)
        await bench.engine.revoke(lost=lost)
        assert source.commits_under_way == 0
        source.hold_commits.set()
        bench.engine.assign([KEY])
        await rounds()
        assert source.commits == []


def committed_times(source: MemorySource, times: int) -> bool:
    return len(source.commits) == times


class Answering(MemorySource):
    """A source that holds each commit until a test answers it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[asyncio.Future[Literal["ok", "failed", "fenced"]]] = []

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        assert not any(not each.done() for each in self.open), "two at once"
        answer: asyncio.Future[Literal["ok", "failed", "fenced"]] = asyncio.get_running_loop().create_future()
        self.open.append(answer)
        self.commits.append(dict(offsets))
        return await answer


@given(st.lists(st.sampled_from(["advance", "commit", "wait", "ok", "failed", "fenced", "end"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_commits_keep_their_promises_in_any_order(steps: list[str]) -> None:
    """In any order of requests, answers and epochs: one commit at a time, never above done, never falling."""

    async def scenario() -> None:
        source, counters = Answering(), Counters(["t"], [])
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(source, {"r0": no_flush}, counters, tasks)
            partition, sent = a_partition(0), 0
            waiting: list[asyncio.Task[Any]] = []
            for step in steps:
                if step == "advance":
                    advance(partition, partition.done + 1)
                elif step == "commit":
                    await committer.commit([partition], 0.0, 0.0)
                elif step == "wait":
                    waiting.append(tasks.create_task(committer.commit([partition], time.monotonic() + LONG, LONG)))
                elif step == "end":
                    await committer.end([partition])
                    assert all(each.done() for each in source.open)
                    sent, committed = len(source.commits), partition.done
                    await rounds(5)
                    assert len(source.commits) == sent, "an old epoch's commit was sent behind its end"
                    partition = a_partition(committed)
                    partition.committed = committed
                elif source.open and not source.open[-1].done():
                    source.open[-1].set_result(step)  # type: ignore[arg-type]
                await rounds(3)
                offsets = [commit[KEY] for commit in source.commits[sent:]]
                assert offsets == sorted(offsets)
                assert all(offset <= partition.done for offset in offsets)
                assert partition.committed <= partition.done
            while any(not each.done() for each in [*waiting, *source.open]):
                if source.open and not source.open[-1].done():
                    source.open[-1].set_result("ok")
                await rounds(3)

    asyncio.run(scenario())
