"""Epochs of single partitions: what one partition's end waits for, commits and counts, while the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from consumer.instructions import Retry
from consumer.partition.chunk import Chunk
from consumer.record import Record, TopicPartition
from tests.unit.delivery.engines import a_route, an_engine_on, outlive
from tests.unit.delivery.source import KEY, MemorySource, RawRecord, a_chunk
from tests.unit.delivery.waiting import rounds, until

OTHER = TopicPartition("t", 1)
LONG = 3600.0


class Calls:
    """A handler whose calls of the first partition wait until ``go``; it notes (partition, offset) of ended calls."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, int]] = []
        self.go = asyncio.Event()

    async def __call__(self, _event: bytes, record: Record) -> None:
        if record.partition == 0:
            await self.go.wait()
        self.ended.append((record.partition, record.offset))

    def of(self, partition: int) -> list[int]:
        return [offset for each, offset in self.ended if each == partition]


def a_source() -> MemorySource:
    source = MemorySource()
    source.give(a_chunk(0, 3))
    source.give(a_chunk(0, 3), key=OTHER)
    return source


async def test_the_others_go_on_while_one_partition_drains() -> None:
    """A drain of one partition waits for its call; records of another are called and committed meanwhile."""
    calls, source = Calls(), a_source()
    async with an_engine_on(source, a_route(calls)) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: source.commits and source.commits[-1] == {OTHER: 3})
        revoking = asyncio.create_task(bench.engine.revoke([KEY], lost=False))
        await rounds()
        source.give(a_chunk(3, 2), key=OTHER)
        await until(lambda: source.commits[-1] == {OTHER: 5})
        assert not revoking.done()
        calls.go.set()
        await revoking
        assert list(bench.engine.partitions) == [OTHER]
        assert (calls.of(0), source.commits[-1]) == ([0], {KEY: 1})
        source.give(a_chunk(5, 1), key=OTHER)
        await until(lambda: source.commits[-1] == {OTHER: 6})
    assert bench.failures == []


async def test_a_partition_begins_again_beside_one_that_stays() -> None:
    """An epoch begins for the partitions named; one that stays keeps its state."""
    calls, source = Calls(), a_source()
    calls.go.set()
    async with an_engine_on(source, a_route(calls)) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: len(calls.ended) == 6)
        stays = bench.engine.partitions[OTHER]
        await bench.engine.revoke([KEY], lost=False)
        bench.engine.assign([KEY])
        assert bench.engine.partitions[OTHER] is stays
        assert bench.engine.partitions[KEY].epoch > stays.epoch
        source.give(a_chunk(1, 2))
        await until(lambda: calls.of(0) == [0, 1, 2, 1, 2])
        await until(lambda: source.commits[-1] == {KEY: 3})


async def test_only_the_calls_of_lost_partitions_are_abandoned() -> None:
    """What a drain leaves without an outcome is counted for its own partition, and no other."""
    release = asyncio.Event()

    async def handle(_event: bytes) -> None:
        await release.wait()

    source = a_source()
    async with an_engine_on(source, a_route(handle), drain_seconds=0.01) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: bench.counters.routes["r0"].waiting == 2)
        await bench.engine.revoke([KEY], lost=True)
        assert (bench.counters.routes["r0"].abandoned, bench.counters.routes["r0"].waiting) == (1, 1)
        release.set()
        await until(lambda: source.commits and source.commits[-1] == {OTHER: 3})
    assert source.commits == [{OTHER: 3}]


async def test_a_flush_goes_on_for_those_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that outlasts a revoke commits the partitions that stay, without the one that has left."""
    monkeypatch.setattr("consumer.delivery.engine.COMMIT_BUDGET_SECONDS", 0.01)
    handler, source = Flushes(), a_source()
    async with an_engine_on(source, a_route(handler), drain_seconds=0.02) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: handler.handled == 6)
        await until(lambda: handler.begun == 1)
        await bench.engine.revoke([KEY], lost=False)
        assert (source.commits, handler.begun) == ([], 1)
        handler.go.set()
        await until(lambda: source.commits)
        assert source.commits == [{OTHER: 3}]


class Flushes:
    """A handler whose flush waits until ``go``."""

    def __init__(self) -> None:
        self.handled = self.begun = 0
        self.go = asyncio.Event()

    def __call__(self, _event: bytes) -> None:
        self.handled += 1

    async def flush(self) -> None:
        self.begun += 1
        await self.go.wait()


async def test_a_flush_may_use_what_is_left_of_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that takes longer than the answer of a commit may is waited for within ``drain_seconds``."""
    monkeypatch.setattr("consumer.delivery.engine.COMMIT_BUDGET_SECONDS", 0.01)
    handler, source = Flushes(), MemorySource()
    source.give(a_chunk(0, 3))
    async with an_engine_on(source, a_route(handler), commit_interval_seconds=LONG) as bench:
        bench.engine.assign([KEY])
        await until(lambda: handler.handled == 3)
        asyncio.get_running_loop().call_later(0.1, handler.go.set)
        await bench.engine.stop()
    assert (source.commits, bench.failures) == ([{KEY: 3}], [])


async def test_a_commit_on_its_way_ends_with_one_of_its_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that hangs with a partition that leaves is cancelled; those that stay are committed by the next."""
    monkeypatch.setattr("consumer.delivery.engine.COMMIT_BUDGET_SECONDS", 0.01)
    source, calls = a_source(), Calls()
    calls.go.set()
    source.hold_commits = asyncio.Event()
    async with an_engine_on(source, a_route(calls), drain_seconds=0.01, commit_interval_seconds=0.05) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: len(calls.ended) == 6)
        await until(lambda: source.commits_under_way)
        await bench.engine.revoke([KEY], lost=False)
        assert source.commits_under_way == 0
        source.hold_commits.set()
        await until(lambda: source.commits)
        assert source.commits == [{OTHER: 3}]


async def test_a_commit_of_others_is_left_alone() -> None:
    """A commit that hangs without the partition that is lost goes on."""
    source = MemorySource()
    source.give(a_chunk(0, 3), key=OTHER)
    source.hold_commits = asyncio.Event()
    calls = Calls()
    async with an_engine_on(source, a_route(calls)) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: source.commits_under_way)
        await bench.engine.revoke([KEY], lost=True)
        assert source.commits_under_way == 1
        source.hold_commits.set()
        await until(lambda: source.commits == [{OTHER: 3}])


async def test_a_stop_waits_for_a_drain_that_is_under_way() -> None:
    """A stop that runs into the drain of one partition ends the others and waits for that drain."""
    calls, source = Calls(), a_source()
    async with an_engine_on(source, a_route(calls)) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: len(calls.of(1)) == 3)
        revoking = asyncio.create_task(bench.engine.revoke([KEY], lost=False))
        await rounds()
        stopping = asyncio.create_task(bench.engine.stop())
        await rounds()
        assert list(bench.engine.partitions) == [KEY]
        assert not stopping.done()
        calls.go.set()
        await stopping
        assert revoking.done()
        assert bench.engine.partitions == {}
    assert bench.failures == []


async def test_a_call_that_outlives_its_epoch_blocks_its_own_partition_only() -> None:
    """A call that swallows its cancellation keeps its partition's next epoch waiting, and no other partition."""
    release = asyncio.Event()

    async def handle(_event: bytes, record: Record) -> None:
        if record.partition == 0 and record.offset == 0:
            await outlive(release)

    source = a_source()
    async with an_engine_on(source, a_route(handle), drain_seconds=0.01) as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: source.commits)
        await bench.engine.revoke([KEY], lost=False)
        bench.engine.assign([KEY])
        source.chunks[KEY] = [a_chunk(1, 2)]
        source.give(a_chunk(3, 2), key=OTHER)
        await until(lambda: source.commits[-1] == {OTHER: 5})
        assert not bench.engine.partitions[KEY].started
        release.set()
        await until(lambda: source.commits[-1] == {KEY: 3})


async def test_an_epoch_that_begins_in_doubt_is_paused() -> None:
    """A partition that begins anew while the group is in doubt starts nothing, and ends nobody's doubt."""
    calls, source = Calls(), MemorySource()
    calls.go.set()
    async with an_engine_on(source, a_route(calls)) as bench:
        bench.engine.assign([OTHER])
        bench.engine.doubt(doubtful=True)
        bench.engine.assign([KEY])
        source.give(a_chunk(0, 3), key=OTHER)
        source.give(a_chunk(0, 3))
        await rounds(30)
        assert calls.ended == []
        bench.engine.doubt(doubtful=False)
        await until(lambda: len(calls.ended) == 6)


@pytest.mark.parametrize("ending", ["revoke", "stop"])
async def test_a_loss_during_a_revoke_ends_the_drain(ending: str) -> None:
    """A partition that is lost while it drains starts nothing more, and is not committed."""
    calls, source = Calls(), MemorySource()
    source.give(Chunk(0, iter([RawRecord(offset, b"x", b"a") for offset in range(5)]), 5))
    async with an_engine_on(source, a_route(calls), ordering="key", commit_interval_seconds=LONG) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].in_flight[0] == 5)
        engine = bench.engine
        revoking = asyncio.create_task(engine.revoke([KEY], lost=False) if ending == "revoke" else engine.stop())
        await rounds()
        losing = asyncio.create_task(engine.revoke([KEY], lost=True))
        await rounds()
        calls.go.set()
        await asyncio.wait([revoking, losing])
    assert (calls.of(0), source.commits) == ([0], [])


async def test_a_lost_partition_is_not_committed_while_it_drains() -> None:
    """The interval commits nothing of a lost partition, from the moment of the loss."""
    calls, source = Calls(), a_source()
    async with an_engine_on(source, a_route(calls), ordering="unordered") as bench:
        bench.engine.assign([KEY, OTHER])
        await until(lambda: source.commits and source.commits[-1] == {OTHER: 3})
        losing = asyncio.create_task(bench.engine.revoke([KEY], lost=True))
        await rounds()
        calls.go.set()
        await losing
        await rounds(20)
    assert all(KEY not in commit for commit in source.commits)


def waiting_call(go: asyncio.Event) -> Callable[..., Any]:
    async def handle(_event: bytes) -> None:
        await go.wait()

    return handle


def retried(go: asyncio.Event) -> Callable[..., Any]:
    async def handle(_event: bytes) -> None:
        if not go.is_set():
            raise Retry(after=0.01)

    return handle


def batched(go: asyncio.Event) -> Callable[..., Any]:
    async def handle(_events: list[bytes]) -> None:
        await go.wait()

    return handle


@pytest.mark.parametrize("kind", [waiting_call, retried, batched])
@pytest.mark.parametrize("ordering", ["partition", "unordered"])
async def test_a_partition_settles_once_all_records_have_their_outcome(
    kind: Callable[[asyncio.Event], Callable[..., Any]], ordering: str
) -> None:
    """A position may be reset only when nothing that was delivered is under way, waits for a retry or is collected."""
    go, source = asyncio.Event(), MemorySource()
    source.give(a_chunk(0, 3))
    async with an_engine_on(source, a_route(kind(go)), ordering=ordering) as bench:
        assert not bench.engine.settles(KEY)
        bench.engine.assign([KEY])
        counts = bench.counters.routes["r0"]
        await until(lambda: counts.waiting or bench.engine.partitions[KEY].in_flight[0])
        for _ in range(3):
            assert not bench.engine.settles(KEY)
            await rounds()
        go.set()
        await until(lambda: bench.engine.settles(KEY))
        assert bench.counters.routes["r0"].handled == 3
        bench.engine.doubt(doubtful=True)
        assert not bench.engine.settles(KEY)


async def test_a_position_that_falls_is_a_new_epoch() -> None:
    """After a reset to a lower offset the new epoch is handled and committed from there; nothing of the old is."""
    calls, source = Calls(), MemorySource()
    calls.go.set()
    source.give(a_chunk(1000, 3))
    async with an_engine_on(source, a_route(calls)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.settles(KEY) and calls.ended)
        await bench.engine.revoke([KEY], lost=False)
        bench.engine.assign([KEY])
        source.give(a_chunk(2, 5))
        await until(lambda: source.commits[-1] == {KEY: 7})
    assert [commit[KEY] for commit in source.commits] == [1003, 7]
