"""How an event loop spends its time."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from consumer.observe.loop_time import STATES, LoopTime, TimedLoop


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_second_belongs_to_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time between waits is work; each wait belongs to its cause; together they are the whole time."""
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
    """Another thread sees the current wait as waiting, and a blocked loop as work."""
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
    """On a real loop sleeping counts as waiting, blocking as work, and both add up to the elapsed time."""

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


def test_no_counter_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """No counter falls, even when a wait that was read in its middle turns out to have another cause."""
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


def test_work_polls_the_sockets_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is work the sockets are polled once in half a millisecond; a loop that waits polls them each time."""
    clock = Clock()
    spent = LoopTime(clock)
    polls: list[float | None] = []

    def select(_selector: LoopTime, timeout: float | None) -> list[str]:
        polls.append(timeout)
        return ["ready"]

    monkeypatch.setattr(LoopTime.__base__, "select", select)
    found = []
    for seconds in (0.0, 0.0002, 0.0002, 0.0002):
        clock.now += seconds
        found.append(spent.select(0))
    assert (found, polls) == ([["ready"], [], [], ["ready"]], [0, 0])
    spent.select(None)
    assert (polls, spent.rounds) == ([0, 0, None], 5)
    assert spent.seconds()["work"] == pytest.approx(0.0006)
    spent.close()
