"""Failures on random schedules: no record is lost, skipped or handled out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings

from consumer.delivery.decoding import Decoder
from consumer.outcome import HaltReason
from consumer.settings.sections import RetrySettings
from schemas.formats import Plain
from tests.unit.delivery.engines import an_engine_on
from tests.unit.delivery.observer import ATTEMPTS, NO_FUSE, Observer
from tests.unit.delivery.schedules import Work, schedules
from tests.unit.delivery.source import KEY

TICK_SECONDS = 0.001
ROUNDS = 5_000
"""Of the event loop, in which everything must have come to its end: thousands of waits."""


class TickingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock advances a little each round, so that long waits take no real time."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        self.now += TICK_SECONDS
        super()._run_once()  # type: ignore[misc]


async def until(holds: Callable[[], Any], rounds: int = ROUNDS) -> None:
    for _ in range(rounds):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def decode(work: Work) -> Callable[[bytes], bytes]:
    def decode_one(value: bytes) -> bytes:
        if work.bad.get(int(value)) == "undecodable":
            raise ValueError
        return bytes(bytearray(value))

    return decode_one


def run(scenario: Callable[[], Any], *, eager: bool) -> None:
    """Run on a ticking clock, where handlers yield often and a letter soon counts as slow."""
    with ExitStack() as stack, asyncio.Runner(loop_factory=TickingLoop) as runner:
        stack.enter_context(patch("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.02))
        if eager:
            stack.enter_context(patch("consumer.delivery.turns.SLICE_SECONDS", -1.0))
            for module in ("dispatch",):
                stack.enter_context(patch(f"consumer.delivery.{module}.LOOK_EVERY", 1))
        runner.run(scenario())


def an_engine_for(observer: Observer, work: Work) -> Any:
    return an_engine_on(
        observer.source,
        *observer.routes(),
        decoder=Decoder(Plain(decode(work)), 1000),
        retry=RetrySettings(attempts=ATTEMPTS, initial_seconds=0.01, maximum_seconds=0.05),
        letters=observer,
        dead_letter=NO_FUSE,
        **work.delivery,
    )


@given(schedules())
@settings(max_examples=250, deadline=None)
def test_every_record_gets_one_outcome_per_route(work: Work) -> None:
    """Through failures, holds and revokes each record gets one outcome per route and epoch, in order."""

    async def scenario() -> None:
        observer = Observer(work)
        async with an_engine_for(observer, work) as bench:
            observer.bench = bench
            bench.engine.assign([KEY])
            for after in work.revokes:
                await rounds(after)
                await bench.engine.revoke(lost=False)
                assert (observer.running, +observer.batches) == ([], {})
                observer.stopped = True
                await rounds(30)
                observer.new_epoch()
                bench.engine.assign([KEY])
            await until(lambda: observer.source.committed == observer.source.end or observer.wrong or bench.failures)
            await rounds(5)
            observer.check()
            if bench.engine.partitions[KEY].position is not None:  # else all was committed before the last revoke
                observer.check_at_rest()

    run(scenario, eager=work.eager)


@given(schedules(refused=True))
@settings(max_examples=150, deadline=None)
def test_a_refused_letter_is_never_passed(work: Work) -> None:
    """A refused letter halts its partition: running calls end, no other starts, and the record is not committed."""

    async def scenario() -> None:
        observer = Observer(work)
        async with an_engine_for(observer, work) as bench:
            observer.bench = bench
            bench.engine.assign([KEY])
            partition = bench.engine.partitions[KEY]
            await until(lambda: observer.source.committed == observer.source.end or partition.halt or observer.wrong)
            if partition.halt is not None:
                await until(lambda: not bench.engine._workers[KEY].tasks)
                calls = observer.calls
                await rounds(100)
                assert observer.calls == calls
                assert partition.halt.reason is HaltReason.NO_DEAD_LETTER
                assert partition.done <= partition.halt.offset
                assert (partition.holds, partition.pauses) == (set(), set())
            assert (observer.running, +observer.batches) == ([], {})
            observer.check()

    run(scenario, eager=work.eager)
