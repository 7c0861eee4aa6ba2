"""Where the seconds of an event loop go."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from consumer.observe.loop_time import STATES, LoopTime, TimedLoop


class Clock:
    """Time that moves when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_second_belongs_to_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is what lies between two waits; a wait belongs to what was waited for; together they are all the time."""
    clock = Clock()
    spent = LoopTime(clock)

    def wait(seconds: float) -> None:
        def select(_selector: LoopTime, _timeout: float | None) -> list[object]:
            clock.now += seconds
            return []

        monkeypatch.setattr(LoopTime.__base__, "select", select)
        spent.select(None)

    clock.now += 2.0
    wait(3.0)
    spent.waits_for = lambda: "backpressure"
    clock.now += 1.0
    wait(5.0)
    wait(0.0001)  # a look at the sockets
    clock.now += 0.5
    assert spent.seconds() == pytest.approx({"poll": 3.0, "work": 3.5001, "backpressure": 5.0, "commit": 0, "drain": 0})
    spent.close()


def test_a_wait_that_goes_on_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks from another thread while the loop waits gets what it waits for; while it is blocked, work."""
    clock = Clock()
    spent = LoopTime(clock)
    spent.waits_for = lambda: "drain"
    seen = []

    def select(_selector: LoopTime, _timeout: float | None) -> list[object]:
        clock.now += 60.0
        seen.append(spent.seconds())
        return []

    monkeypatch.setattr(LoopTime.__base__, "select", select)
    spent.select(None)
    clock.now += 30.0
    assert seen[0]["drain"] == 60.0
    assert (spent.seconds()["drain"], spent.seconds()["work"]) == (60.0, 30.0)
    spent.close()


def test_a_real_loop_adds_up_to_the_time_that_went_by() -> None:
    """Sleeping is waiting, blocking is work, and the sum is the time that went by."""

    async def live() -> tuple[dict[str, float], float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TimedLoop)
        before, began = loop.time_spent.seconds(), time.monotonic()
        await asyncio.sleep(0.2)
        time.sleep(0.1)
        after, lasted = loop.time_spent.seconds(), time.monotonic() - began
        return {state: after[state] - before[state] for state in STATES}, lasted

    with asyncio.Runner(loop_factory=TimedLoop) as runner:
        spent, lasted = runner.run(live())
    assert sum(spent.values()) == pytest.approx(lasted, rel=0.05)
    assert spent["poll"] >= 0.15
    assert spent["work"] >= 0.1


def test_nothing_told_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in the middle of a wait that turns out to be short, or to be for something else: no counter falls."""
    clock = Clock()
    spent = LoopTime(clock)
    told = [spent.seconds()]

    def wait(seconds: float, state: str) -> None:
        def select(_selector: LoopTime, _timeout: float | None) -> list[object]:
            for _ in range(2):
                clock.now += seconds / 2
                told.append(spent.seconds())
            return []

        monkeypatch.setattr(LoopTime.__base__, "select", select)
        spent.waits_for = lambda: state
        spent.select(None)
        told.append(spent.seconds())

    for seconds, state in (
        (0.0005, "backpressure"),
        (0.01, "poll"),
        (0.01, "commit"),
        (0.2, "drain"),
        (0.0009, "poll"),
    ):
        wait(seconds, state)
        clock.now += 0.001
    for before, after in pairwise(told):
        assert all(after[state] >= before[state] for state in STATES)
    assert sum(told[-1].values()) == pytest.approx(clock.now - 100.0, abs=0.02)
    spent.close()
