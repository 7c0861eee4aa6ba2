"""Calls in threads and with time limits: where they run, how they end, and settings that do not apply."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from consumer import Record
from consumer.errors import CallTimeoutError
from consumer.routes.calling import InThread, within
from consumer.routes.handler import bind_handler
from consumer.routes.load import load_routes
from consumer.routes.route import Route
from consumer.settings.sections import Delivery, RouteSettings, Settings
from tests.unit.delivery.engines import Bench, a_route, an_engine_on
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import rounds, until
from tests.unit.routes.modules import Write

NEVER_SECONDS = 3600.0
THREADS = 8


def a_threaded_route(call: Callable[..., Any], timeout_seconds: float | None = None, threads: int = THREADS) -> Route:
    bound = bind_handler(call, "test")
    threaded = InThread(call, threads, timeout_seconds)
    return Route("r0", None, msgspec.structs.replace(bound, call=threaded, is_async=True))


def a_limited_route(call: Callable[..., Awaitable[Any]], timeout_seconds: float) -> Route:
    bound = bind_handler(call, "test")
    return Route("r0", None, msgspec.structs.replace(bound, call=within(call, timeout_seconds)))


async def test_a_threaded_call_runs_in_another_thread_and_returns() -> None:
    """A threaded call runs outside the loop's thread with its arguments, and its result comes back."""
    here = threading.get_ident()

    def call(*arguments: int) -> tuple[int, ...]:
        assert threading.get_ident() != here
        return arguments

    assert await InThread(call, THREADS)(1, 2) == (1, 2)


@pytest.mark.parametrize("error", [ValueError, TimeoutError, KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_what_a_threaded_call_raises_comes_back(error: type[BaseException]) -> None:
    """An exception of a threaded call is raised to its caller unchanged."""

    def fails() -> None:
        raise error

    with pytest.raises(error) as raised:
        await InThread(fails, THREADS)()
    assert raised.type is error


def test_stop_iteration_from_a_thread_ends_the_call() -> None:
    """StopIteration, which futures refuse, fails its call and does not hang it."""
    raised: list[BaseException] = []

    def fails() -> None:
        next(iter(()))

    async def attempt() -> None:
        try:
            await InThread(fails, THREADS)()
        except Exception as error:
            raised.append(error)

    # In another thread, because a call that never ends could not be cancelled either.
    attempting = threading.Thread(target=lambda: asyncio.run(attempt()), daemon=True)
    attempting.start()
    attempting.join(timeout=5)
    assert raised


async def test_a_threaded_function_that_returns_a_coroutine_is_awaited() -> None:
    """A coroutine that a threaded function returns is awaited; otherwise its record would be lost silently."""
    seen: list[int] = []

    async def slowly(_event: bytes, record: Record) -> None:
        await asyncio.sleep(0)
        seen.append(record.offset)

    def wrapper(event: bytes, record: Record) -> Any:
        return slowly(event, record)

    source = LogSource(keyed([b"a", b"b"]))
    async with an_engine_on(source, a_threaded_route(wrapper)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end or bench.engine.partitions[KEY].halt)
    gc.collect()  # a coroutine that was left alone is reported here, not in some later test
    assert seen == [0, 1] or bench.counters.routes["r0"].handled == 0


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancellation_waits_for_the_thread(times: int) -> None:
    """A cancelled threaded call ends as cancelled once its thread has ended, because threads cannot be cancelled."""
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def blocks() -> None:
        begun.set()
        go.wait()
        ended.set()

    calling = asyncio.ensure_future(InThread(blocks, THREADS)())
    await until(begun.is_set)
    for _ in range(times):
        calling.cancel()
        await rounds()
        assert not calling.done()
    go.set()
    await asyncio.wait([calling])
    assert ended.is_set()
    assert calling.cancelled()


async def test_an_error_behind_a_cancellation_prints_nothing() -> None:
    """A thread that fails after its call was cancelled ends the call as cancelled and prints nothing to stderr."""
    begun, go = threading.Event(), threading.Event()

    def fails() -> None:
        begun.set()
        go.wait()
        raise ValueError

    calling = asyncio.ensure_future(InThread(fails, THREADS)())
    await until(begun.is_set)
    calling.cancel()
    await rounds()
    go.set()
    await asyncio.wait([calling])
    assert calling.cancelled()


async def test_threads_overlap_by_key() -> None:
    """With key ordering threaded calls of different keys run at the same time."""
    together = threading.Barrier(3, timeout=10)

    def meets(_event: bytes) -> None:
        together.wait()

    source = LogSource(keyed(b"%d" % (number % 3) for number in range(30)))
    async with an_engine_on(source, a_threaded_route(meets), ordering="key", concurrency=3) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert bench.engine.partitions[KEY].halt is None


async def test_a_threaded_failure_halts_and_is_placed() -> None:
    """An exception in a thread halts its partition like any other, and the message has its place."""

    def fails(_event: bytes, record: Record) -> None:
        if record.offset == 1:
            raise ValueError("+4915112345678")

    source = LogSource(keyed([b"a", b"b", b"c"]))
    async with an_engine_on(source, a_threaded_route(fails)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].halt)
        halt = bench.engine.partitions[KEY].halt
        assert halt is not None
        assert "ValueError" in halt.explanation
        assert "test_calling.py" in halt.explanation
        assert "+49" not in halt.explanation
        assert bench.counters.handler_errors["r0", "error"] == 1
    assert source.committed == 1


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_an_async_call_past_its_time_is_cancelled_and_counts_as_timeout(ordering: str) -> None:
    """A call past ``timeout_seconds`` is cancelled, counts as a timeout, and halts its partition."""
    never, cleaned = asyncio.Event(), asyncio.Event()

    async def hangs(_event: bytes, record: Record) -> None:
        if record.offset == 2:
            try:
                await never.wait()
            finally:
                cleaned.set()

    source = LogSource(keyed([b"a", b"b", b"c", b"d"]))
    async with an_engine_on(source, a_limited_route(hangs, 0.01), ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].halt)
        await until(lambda: source.committed == 2)
        assert cleaned.is_set()
        assert failures(bench) == {"timeout": 1}
    assert source.committed == 2


async def test_a_threaded_call_past_its_time_counts_when_its_thread_has_ended() -> None:
    """A thread past the limit keeps its record until it ends; then the call counts as a timeout."""
    go, called = threading.Event(), []

    def blocks(_event: bytes, record: Record) -> None:
        called.append(record.offset)
        go.wait()

    source = LogSource(keyed([b"a", b"b"]))
    async with an_engine_on(source, a_threaded_route(blocks, 0.01)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: called)
        deadline = time.monotonic() + 0.05
        await until(lambda: time.monotonic() > deadline)
        assert bench.engine.partitions[KEY].halt is None
        go.set()
        await until(lambda: bench.engine.partitions[KEY].halt)
        assert failures(bench) == {"timeout": 1}
    assert called == [0]
    assert source.commits == []


async def test_a_call_that_waits_for_a_thread_has_not_begun() -> None:
    """The time of a call begins in its thread: calls that wait for a thread longer than their limit succeed."""
    threaded = InThread(time.sleep, 1, 0.4)
    began = time.monotonic()
    results = await asyncio.gather(*(threaded(0.05) for _ in range(12)), return_exceptions=True)
    assert time.monotonic() - began > 0.4
    assert results == [None] * 12


async def test_a_call_that_waited_for_a_thread_has_a_limit() -> None:
    """A call that waited has its whole time from its start in a thread, and no more."""
    first, second, began = threading.Event(), threading.Event(), threading.Event()

    def blocks(event: threading.Event) -> None:
        if event is second:
            began.set()
        event.wait()

    threaded = InThread(blocks, 1, 0.1)
    calls = [asyncio.ensure_future(threaded(event)) for event in (first, second)]
    await asyncio.sleep(0.2)
    assert not began.is_set()
    first.set()
    await until(began.is_set)
    await asyncio.sleep(0.2)
    second.set()
    await asyncio.wait(calls)
    assert isinstance(calls[1].exception(), CallTimeoutError)


@pytest.mark.parametrize("timeout_seconds", [None, NEVER_SECONDS])
async def test_a_call_that_never_began_is_cancelled_at_once(timeout_seconds: float | None) -> None:
    """A cancelled call that waits for a free thread ends at once, and is never called."""
    begun, go, called = threading.Event(), threading.Event(), []

    def blocks(number: int) -> None:
        called.append(number)
        begun.set()
        go.wait()

    threaded = InThread(blocks, 1, timeout_seconds)
    calls = [asyncio.ensure_future(threaded(number)) for number in range(3)]
    await until(begun.is_set)
    calls[1].cancel()
    await rounds()
    assert calls[1].cancelled()
    go.set()
    await asyncio.wait(calls)
    assert called == [0, 2]


async def test_calls_that_wait_for_a_thread_are_not_called_after_the_drain() -> None:
    """A drain that runs out of time leaves the call in its thread, and the calls behind it are never called."""
    go, called, awaited = threading.Event(), [], []

    def blocks(_event: bytes, record: Record) -> None:
        called.append(record.offset)
        go.wait()

    threaded = InThread(blocks, 1)

    async def handle(event: bytes, record: Record) -> None:
        awaited.append(record.offset)
        try:
            await threaded(event, record)
        finally:
            awaited.remove(record.offset)

    source = LogSource(keyed([b"a", b"b", b"c"]))
    async with an_engine_on(source, a_route(handle), ordering="unordered", drain_seconds=0.01) as bench:
        try:
            bench.engine.assign([KEY])
            await until(lambda: called and len(awaited) == 3)
            await bench.engine.revoke(lost=False)
            assert awaited == [0]
        finally:
            go.set()
        await until(lambda: not awaited)
    assert called == [0]
    assert source.commits == []


async def test_what_a_threaded_call_returns_is_awaited_within_its_time() -> None:
    """The time of a function that returns something to await includes the waiting."""
    threaded = InThread(asyncio.sleep, 1, 0.05)
    assert await threaded(0) is None
    with pytest.raises(CallTimeoutError):
        await threaded(NEVER_SECONDS)


@pytest.mark.parametrize("threads", [1, 3])
async def test_the_number_of_threads_is_a_setting(module: Write, threads: int) -> None:
    """``delivery.threads`` is the number of calls of a route that run at once."""
    module(
        "import threading\nused = set()\n"
        f"together = threading.Barrier({threads}, timeout=10)\n"
        "def f(event):\n    used.add(threading.get_ident())\n    together.wait()\n"
        "def threads(event): return len(used)\n"
    )
    routes = [RouteSettings("r", "mine:f", threaded=True), RouteSettings("s", "mine:threads")]
    calling, counting = load_routes(Settings(delivery=Delivery(threads=threads), routes=routes), {})
    await asyncio.gather(*(calling.handler.call(b"event") for _ in range(4 * threads)))
    assert counting.handler.call(b"event") == threads


async def test_calls_within_their_time_are_left_alone() -> None:
    """A limit that is not reached changes neither results nor errors."""

    async def call(value: int) -> int:
        await asyncio.sleep(0)
        if value < 0:
            raise LookupError
        return value

    limited = within(call, NEVER_SECONDS)
    assert await limited(7) == 7
    with pytest.raises(LookupError):
        await limited(-1)


def failures(bench: Bench) -> dict[str, int]:
    """Return the route's failed calls by kind, without kinds that did not occur."""
    return {kind: count for (_, kind), count in bench.counters.handler_errors.items() if count}


async def test_a_drain_meets_a_call_with_a_limit() -> None:
    """A call that the drain cancels counts as abandoned, not as a timeout."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def hangs(_event: bytes) -> None:
        begun.set()
        await never.wait()

    source = LogSource(keyed([b"a"]))
    async with an_engine_on(source, a_limited_route(hangs, NEVER_SECONDS), drain_seconds=0.01) as bench:
        bench.engine.assign([KEY])
        await begun.wait()
        await bench.engine.revoke(lost=False)
        assert bench.counters.routes["r0"].abandoned == 1
        assert failures(bench) == {}
    assert source.commits == []
