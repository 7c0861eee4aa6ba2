"""Fair sharing of the event loop between partitions."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.log_source import keyed
from tests.unit.delivery.source import MemorySource
from tests.unit.delivery.waiting import until


class Clock:
    """A clock that only a handler's work advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of everything that shares the event loop."""
    clock = Clock()
    for module in ("worker", "dispatch", "turns"):
        monkeypatch.setattr(
            f"consumer.delivery.{module}.time", SimpleNamespace(monotonic=clock.monotonic, time=time.time)
        )
    return clock


@pytest.mark.parametrize("after_idling", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_busy_partitions_take_turns(clock: Clock, ordering: str, is_async: bool, after_idling: bool) -> None:
    """Fifty partitions of inline work keep the loop for one slice and one call, then all other tasks run.

    The clock is moved by the handler alone, 4 ms a call; what is measured is how far it moves in one round of the loop.
    """
    stretches: list[float] = []
    running = True

    def busy(_event: bytes) -> None:
        clock.now += 0.004

    async def busy_too(_event: bytes) -> None:
        clock.now += 0.004

    async def watch() -> None:
        while running:
            before = clock.now
            await asyncio.sleep(0)
            stretches.append(clock.now - before)

    keys = [TopicPartition("t", number) for number in range(50)]
    source = MemorySource()
    route = a_route(busy_too if is_async else busy)
    async with an_engine_on(source, route, ordering=ordering, commit_interval_seconds=60.0) as bench:
        if after_idling:
            bench.engine.assign(keys)
            await until(lambda: all(lanes.idle for lanes in bench.engine._workers.values()))
        for key in keys:
            source.give(Chunk(0, iter(keyed([b"a"] * 20)), 20), key=key)
        watching = asyncio.create_task(watch())
        if not after_idling:
            bench.engine.assign(keys)
        await until(lambda: bench.counters.routes["r0"].handled == 1000)
        running = False
        await watching
    assert sum(stretches) == pytest.approx(4.0)
    assert max(stretches) <= 0.010 + 0.004 + 1e-6
