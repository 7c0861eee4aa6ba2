"""Where a call stands that does not end: its route, its record and places in code, read while it lasts."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.delivery.worker import Workers
from consumer.observe.waiting import CallUnderWay, Standing
from consumer.process.stacks import all_stacks, awaited_call, blocking_call
from consumer.record import Record
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from tests.unit.delivery.engines import Bench, a_route, an_engine_on
from tests.unit.delivery.source import KEY, MemorySource, a_chunk
from tests.unit.delivery.waiting import until

ORDERINGS = ["partition", "key", "unordered"]


def stands(bench: Bench) -> Standing:
    """Return where the call under way stands."""
    (call,) = bench.engine.workers[0].calls
    return awaited_call(asyncio.get_running_loop(), call)


class Stuck:
    """A handler that waits for good at one offset, some calls below its surface."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.go = asyncio.Event()

    async def __call__(self, _event: bytes, record: Record) -> None:
        if record.offset == self.at:
            await self.ask()

    async def ask(self) -> None:
        await self.go.wait()


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("routes", [1, 2])
@pytest.mark.parametrize("at", [0, 1])
async def test_a_call_that_waits(at: int, routes: int, ordering: str) -> None:
    """The standing names the route and the record, and where the handler waits, innermost first."""
    stuck, source = Stuck(at), MemorySource()
    source.give(a_chunk(0, at + 1))
    others = [a_route(lambda event: None, f"r{number}") for number in range(1, routes)]
    async with an_engine_on(source, a_route(stuck), *others, ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r0"].waiting)
        await until(lambda: [each.offset for each in bench.engine.workers[0].calls] == [at])
        found = stands(bench)
        assert (found.route, found.offset, found.partition) == ("r0", at, str(KEY))
        names = [place.partition(" ")[0] for place in found.places]
        assert names[:3] == ["wait", "ask", "__call__"]
        assert all("test_stacks.py:" in place for place in found.places[1:3])
        stuck.go.set()


async def test_a_batch_that_waits() -> None:
    """The record of a batch is its first."""
    go, source = asyncio.Event(), MemorySource()
    source.give(a_chunk(3, 4))

    async def handle(_events: list[Any]) -> None:
        await go.wait()

    route = Route("b", None, bind_handler(handler_of_four(handle), "test"))
    async with an_engine_on(source, route) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["b"].waiting)
        found = stands(bench)
        assert (found.route, found.offset, found.partition) == ("b", 3, str(KEY))
        assert found.places[0].startswith("wait ")
        go.set()


def handler_of_four(handle: Any) -> Any:
    class Batches:
        max_records = 4
        max_seconds = 0.01

        async def __call__(self, events: list[Any]) -> None:
            await handle(events)

    return Batches()


@pytest.mark.parametrize("routes", [1, 2])
def test_a_call_that_keeps_the_loop(routes: int) -> None:
    """Another thread sees the route and the record of a call that blocks the event loop, and the place in it."""
    seen: list[Standing] = []
    blocked = threading.get_ident()

    def block(_event: bytes, record: Record) -> None:
        if record.offset == 2:
            other = threading.Thread(target=lambda: seen.append(blocking_call(blocked)))
            other.start()
            other.join()

    async def run() -> None:
        source = MemorySource()
        source.give(a_chunk(0, 3))
        others = [a_route(lambda event: None, f"r{number}") for number in range(1, routes)]
        async with an_engine_on(source, a_route(block), *others) as bench:
            bench.engine.assign([KEY])
            await until(lambda: seen)

    asyncio.run(run())
    assert (seen[0].route, seen[0].offset, seen[0].partition) == ("r0", 2, str(KEY))
    assert any(place.startswith("block (") for place in seen[0].places)
    assert not any(place.startswith(("pull (", "run (")) for place in seen[0].places)


async def test_no_call_keeps_the_loop() -> None:
    """Without a call the places are those of the thread; a thread that has ended has none."""
    found = blocking_call(threading.get_ident())
    assert (found.route, found.offset) == ("", None)
    assert any("test_no_call_keeps_the_loop" in place for place in found.places)
    assert blocking_call(-1) == Standing("", None, [])


async def test_a_call_that_has_ended() -> None:
    """A call that no task awaits any more has no places."""
    call = CallUnderWay(0.0, "r0", 7)
    assert awaited_call(asyncio.get_running_loop(), call) == Standing("r0", 7, [])


async def test_a_call_that_ends_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that goes on to the end of a record's routes while another looks at it disturbs nothing."""

    class Ongoing:
        steps = (SimpleNamespace(name="r0"),)
        raw = SimpleNamespace(offset=7)
        moves = iter([0, 1])

        @property
        def at(self) -> int:
            return next(self.moves)

    arguments: Any = (None, Ongoing(), None)
    call: Any = Workers.await_call(*arguments)
    monkeypatch.setattr(sys, "_current_frames", lambda: {1: call.cr_frame})
    found = blocking_call(1)
    call.close()
    assert (found.route, found.offset) == ("r0", 7)


async def test_all_stacks_name_threads_and_tasks() -> None:
    """The stacks for the log have each thread and each task, with places and no values."""
    stacks = all_stacks(asyncio.get_running_loop())
    assert any(each.startswith("thread MainThread: ") for each in stacks)
    assert any("test_all_stacks_name_threads_and_tasks" in each for each in stacks if each.startswith("task "))
