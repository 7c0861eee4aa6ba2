"""Everything at once on random schedules: failures, doubt, revokes, losses, halts, resets, slow commits and flushes.

The environment variable ``INTERLEAVINGS`` sets the number of schedules.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any, Literal
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.outcome import HaltReason
from consumer.record import TopicPartition
from consumer.routes.calling import InThread
from consumer.routes.route import Route
from tests.unit.delivery.observer import Observer
from tests.unit.delivery.schedules import BATCHED, SINGLE, FaultySource, Work, schedules
from tests.unit.delivery.source import KEY
from tests.unit.delivery.test_failure_random import an_engine_for, rounds, run

THREADED = "threaded"
KINDS = (*SINGLE, *BATCHED, THREADED)
COUNT = int(os.environ.get("INTERLEAVINGS", "150"))
ROUNDS = 20_000
POLL_SECONDS = 0.0001
"""Real time that each look at the engine leaves to the threads."""


class Event(msgspec.Struct, frozen=True):
    """Something that happens to the partition after a number of rounds of the event loop."""

    after: int
    kind: str


class Storm(msgspec.Struct):
    """A schedule of records, and what happens to their partition."""

    work: Work
    events: list[Event]
    commit_rounds: int
    """Rounds until a commit is answered."""
    is_taken_first: bool
    """Whether the broker takes a commit before these rounds, or after."""
    flush_rounds: int | None
    """Rounds that a flush takes; None without one."""
    answers: list[Literal["ok", "failed", "fenced"]]


@st.composite
def storms(draw: st.DrawFn) -> Storm:
    work = draw(schedules())
    work.kinds = [draw(st.sampled_from(KINDS)) for _ in range(draw(st.integers(1, 3)))]
    offsets = [record.offset for record in work.records]
    for offset in offsets:
        for route in range(len(work.kinds)):
            work.wants.setdefault((offset, route), draw(st.booleans()))
            work.scripts.setdefault((offset, route), [""])
    kinds = st.sampled_from(["revoke", "lost", "doubt", "halt", "reset"])
    work.delivery["drain_seconds"] = draw(st.sampled_from([5.0, 5.0, 0.01]))
    return Storm(
        work=work,
        events=draw(st.lists(st.builds(Event, st.integers(0, 120), kinds), max_size=5)),
        commit_rounds=draw(st.sampled_from([0, 0, 3, 40])),
        is_taken_first=draw(st.booleans()),
        flush_rounds=draw(st.sampled_from([None, 0, 5, 40])),
        answers=draw(st.lists(st.sampled_from(["ok", "failed", "fenced"]), max_size=4)),
    )


class StormySource(FaultySource):
    """A partition whose commits are slow, and which checks that every commit was flushed."""

    def __init__(self, storm: Storm) -> None:
        super().__init__(storm.work)
        self.answers = list(storm.answers)
        self.storm = storm
        self.flushed: set[int] = set()
        self.unflushed: list[int] = []
        self.under_way = 0

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        self.under_way += 1
        assert self.under_way == 1, "two commits at once"
        if self.storm.flush_rounds is not None:
            below = [each.offset for each in self.records if each.offset < offsets[KEY]]
            self.unflushed += [each for each in below if each not in self.flushed]
        try:
            if not self.storm.is_taken_first:
                await rounds(self.storm.commit_rounds)
            answer = self.answers.pop(0) if self.answers else "ok"
            if answer == "ok":
                await super().commit(offsets)
            if self.storm.is_taken_first:
                await rounds(self.storm.commit_rounds)
            return answer
        finally:
            self.under_way -= 1


class StormyObserver(Observer):
    """Checks, beside each call's order, that no call begins while the group is in doubt or a halt has ended."""

    def __init__(self, storm: Storm) -> None:
        super().__init__(storm.work)
        self.source = self.stormy = StormySource(storm)
        self.storm = storm
        self.is_still: str | None = None
        """Why nothing may begin; None if it may."""
        self.singles = [index for index, kind in enumerate(storm.work.kinds) if kind not in BATCHED]
        for number in self.keys:
            self._note_done(number)

    def routes(self) -> list[Route]:
        made = super().routes()
        if self.storm.flush_rounds is not None:
            made[0] = msgspec.structs.replace(
                made[0], handler=msgspec.structs.replace(made[0].handler, flush=self.flush)
            )
        return made

    def _route(self, index: int, kind: str) -> Route:
        if kind != THREADED:
            return super()._route(index, kind)
        made = super()._route(index, "plain")
        call = InThread(made.handler.call, 2)
        return msgspec.structs.replace(made, handler=msgspec.structs.replace(made.handler, call=call, is_async=True))

    async def flush(self) -> None:
        done = set(self.source.done)
        await rounds(self.storm.flush_rounds or 0)
        self.stormy.flushed |= done

    def _called(self, numbers: list[int], route: int) -> None:
        # A call in a thread, or a coroutine that was made, may begin a little later than it was let in.
        if self.work.kinds[route] in ("batch_later", THREADED):
            self.calls += 1
            self.begun.update(numbers)
            return
        if self.is_still is not None:
            self.wrong.append(f"{numbers} begun {self.is_still}")
        super()._called(numbers, route)


class Scenario:
    """One run of a storm."""

    def __init__(self, storm: Storm, observer: StormyObserver, bench: Any) -> None:
        self.storm, self.observer, self.bench = storm, observer, bench
        self.has_threads = THREADED in storm.work.kinds

    async def play(self) -> None:
        self.bench.engine.assign([KEY])
        for event in self.storm.events:
            for _ in range(event.after):
                if self.has_threads:
                    time.sleep(POLL_SECONDS)
                await asyncio.sleep(0)
            await getattr(self, event.kind)()

    async def revoke(self, *, lost: bool = False) -> None:
        observer = self.observer
        observer.is_still = "of a lost partition" if lost else None
        await self.bench.engine.revoke([KEY], lost=lost)
        observer.is_still = None
        assert (observer.running, +observer.batches, self.observer.stormy.under_way) == ([], {}, 0)
        observer.stopped = True
        calls = observer.calls
        await rounds(30)
        assert observer.calls == calls
        observer.new_epoch()
        self.bench.engine.assign([KEY])

    async def lost(self) -> None:
        await self.revoke(lost=True)

    async def doubt(self) -> None:
        self.bench.engine.doubt(doubtful=True)
        self.observer.is_still = "in doubt"
        await rounds(40)
        self.observer.is_still = None
        self.bench.engine.doubt(doubtful=False)

    async def halt(self) -> None:
        partition = self.bench.engine.partitions[KEY]
        self.bench.engine.halt(KEY, HaltReason.CORRUPT_BATCH, max(0, partition.position or 0), "broken")
        await self.until(lambda: not self.bench.engine._workers[KEY].tasks)
        self.observer.is_still = "after a halt"
        await rounds(30)
        self.observer.is_still = None
        assert (self.observer.running, +self.observer.batches) == ([], {})
        await self.revoke()

    async def reset(self) -> None:
        if self.bench.engine.settles(KEY):
            source = self.observer.stormy
            assert all(each.offset in source.done for each in source.records if each.offset < source.position)
            assert (self.observer.running, +self.observer.batches) == ([], {})
            await self.revoke()

    async def until(self, holds: Any) -> None:
        for _ in range(ROUNDS):
            if holds() or self.observer.wrong or self.bench.failures:
                return
            if self.has_threads:
                time.sleep(POLL_SECONDS)
            await asyncio.sleep(0)
        waits = self.bench.engine.partitions[KEY]
        raise AssertionError(f"stalled at {waits.position}, done {waits.done}: {waits.holds} {waits.pauses}")

    def check(self) -> None:
        observer, source = self.observer, self.observer.stormy
        assert not observer.wrong, observer.wrong[:3]
        assert self.bench.failures == []
        assert (source.ahead, source.unflushed) == ([], [])
        offsets = [commit[KEY] for commit in source.commits]
        assert offsets == sorted(offsets)
        for number in observer.keys:
            assert number in source.done, f"{number} has no outcome"
        partition, workers = self.bench.engine.partitions[KEY], self.bench.engine._workers[KEY]
        assert (partition.holds, partition.pauses, partition.in_flight) == (set(), set(), (0, 0))
        assert workers.calls == []


@given(storms())
@settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_is_lost_stalled_or_out_of_order(storm: Storm) -> None:
    """Whatever happens and whenever: every record has its outcomes, in order, and nothing hangs or is left behind."""

    async def scenario() -> None:
        observer = StormyObserver(storm)
        async with an_engine_for(observer, storm.work) as bench:
            observer.bench = bench
            played = Scenario(storm, observer, bench)
            await played.play()
            await played.until(lambda: observer.source.committed == observer.source.end)
            if not observer.wrong:
                await played.until(lambda: bench.engine.settles(KEY) or not bench.engine.partitions[KEY].started)
            played.check()

    with patch("consumer.delivery.engine.COMMIT_BUDGET_SECONDS", 0.2):
        run(scenario, eager=storm.work.eager)
