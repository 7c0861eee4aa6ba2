"""Time in a test: it stands still for the engine, moves when told to, and never for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from consumer import testing
from consumer.delivery.tasks import until_ended
from consumer.testing.clock import clock_of_running_loop
from tests.unit.testing.events import ORDERS, Order, bill

NEVER = 3600.0


async def hang() -> None:
    await asyncio.Event().wait()


async def test_a_call_that_sleeps_is_under_way_until_its_time() -> None:
    """A call in asyncio.sleep is not waited for; advance ends it."""

    async def slow(event: Order) -> None:
        await asyncio.sleep(NEVER)

    async with testing.consumer(slow, schemas=ORDERS) as app:
        await app.give(Order(1), Order(2))
        assert app.outcomes == [("slow", "under_way"), ("slow", "waiting")]
        await app.advance(NEVER)
        assert app.outcomes == [("slow", "handled"), ("slow", "under_way")]


async def test_a_call_past_its_time_limit_fails() -> None:
    """timeout_seconds comes due by advance."""

    async def slow(event: Order) -> None:
        await asyncio.sleep(NEVER)

    async with testing.consumer(slow, schemas=ORDERS, timeout_seconds=30.0, retry={"attempts": 1}) as app:
        await app.give(Order(1))
        await app.advance(29.9)
        assert app.dead_letters == []
        await app.advance(0.1)
        assert app.dead_letters[0].error_class == "consumer.errors.CallTimeoutError"


async def test_a_threaded_call_past_its_time_limit_fails() -> None:
    """The time limit of a call in a thread follows the same clock; the call ends with its thread."""
    release = threading.Event()

    def blocks(event: Order) -> None:
        release.wait()

    route: dict[str, Any] = {"threaded": True, "timeout_seconds": 30.0, "retry": {"attempts": 1}}
    async with testing.consumer(blocks, schemas=ORDERS, **route) as app:
        await app.give(Order(1), wait=False)
        await app.advance(30, wait=False)
        assert app.outcomes == [("blocks", "under_way")]
        release.set()
        await app.advance(0)
        assert app.dead_letters[0].error_class == "consumer.errors.CallTimeoutError"


async def test_a_call_in_a_thread_is_waited_for() -> None:
    """Threads and sockets need real time: give returns when the call has ended."""
    seen: list[int] = []

    def note(event: Order) -> None:
        seen.append(event.order_id)

    async def in_thread(event: Order) -> None:
        await asyncio.to_thread(note, event)

    for route in ({"note": {"handler": note, "threaded": True}}, {"in_thread": in_thread}):
        async with testing.consumer(routes=route, schemas=ORDERS) as app:
            await app.give(Order(1), Order(2))
            assert [outcome for _, outcome in app.outcomes] == ["handled", "handled"]
    assert seen == [1, 2, 1, 2]


async def test_a_call_over_a_socket_is_waited_for() -> None:
    """A server in the loop of the test answers a handler's request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def ask(event: Order) -> None:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
                writer.close()

        async with testing.consumer(ask, schemas=ORDERS) as app:
            await app.give(Order(1))
            assert app.outcomes == [("ask", "handled")]


async def test_a_call_that_hangs_is_named() -> None:
    """A call that waits for what never comes makes give raise; the block still ends."""

    async def hangs(event: Order) -> None:
        await asyncio.Event().wait()

    async with testing.consumer(hangs, schemas=ORDERS, limit_seconds=0.05) as app:
        with pytest.raises(testing.NotEndedError, match=r"route 'hangs' with the record orders-0@0 has not ended"):
            await app.give(Order(1))
        assert app.outcomes == [("hangs", "under_way")]
    assert app.committed == {}


async def test_a_call_that_keeps_looking_is_named() -> None:
    """A call that gives the loop back again and again, and never ends, makes give raise too."""

    async def looks(event: Order) -> None:
        while True:
            await asyncio.sleep(0)

    async with testing.consumer(looks, schemas=ORDERS, limit_seconds=0.05) as app:
        with pytest.raises(testing.NotEndedError, match="route 'looks'"):
            await app.give(Order(1))


async def test_a_flush_that_hangs_is_named() -> None:
    """A flush that does not end makes commit raise."""

    class Buffer:
        def __call__(self, event: Order) -> None: ...

        async def flush(self) -> None:
            await asyncio.Event().wait()

    async with testing.consumer(Buffer(), schemas=ORDERS, limit_seconds=0.05) as app:
        await app.give(Order(1))
        with pytest.raises(testing.NotEndedError, match="the flush of route 'Buffer' has not ended"):
            await app.commit()


async def test_a_call_that_is_left_under_way() -> None:
    """With wait=False a test can hold a call open and end it."""
    release = asyncio.Event()

    async def held(event: Order) -> None:
        await release.wait()

    async with testing.consumer(held, schemas=ORDERS) as app:
        await app.give(Order(1), wait=False)
        assert app.outcomes == [("held", "under_way")]
        release.set()
        await app.advance(0)
        assert app.outcomes == [("held", "handled")]


async def test_a_hanging_call_meets_its_time_limit() -> None:
    """A call that waits for something else than time is cancelled when its time limit comes due."""

    async def hangs(event: Order) -> None:
        await asyncio.Event().wait()

    async with testing.consumer(hangs, schemas=ORDERS, timeout_seconds=5.0, retry={"attempts": 1}) as app:
        await app.give(Order(1), wait=False)
        await app.advance(5, wait=False)
        assert app.outcomes == [("hangs", "dead_lettered")]


async def test_a_drain_follows_the_clock() -> None:
    """The wait for calls of a drain ends when the clock has passed it, in one step."""
    clock = clock_of_running_loop()
    never = asyncio.create_task(hang())
    with clock.used(), clock.stopped():
        drained = asyncio.create_task(until_ended(lambda: [never], NEVER))
        await clock.until_idle(time.monotonic() + 10)
        assert not drained.done()
        clock.move(clock.time() + NEVER)
        await clock.until_idle(time.monotonic() + 10)
        assert drained.done()
    never.cancel()


async def test_a_test_may_sleep_by_itself() -> None:
    """Time passes as usual while the test itself waits."""
    async with testing.consumer(bill, schemas=ORDERS) as app:
        await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            await asyncio.to_thread(time.sleep, 0.001)
        await app.give(Order(1))
        assert app.outcomes == [("bill", "handled")]


async def test_time_between_two_calls_of_a_test_does_not_count() -> None:
    """However long a test takes between its calls, no retry comes due."""

    def fails(event: Order) -> None:
        raise ValueError

    retry = {"initial_seconds": 0.01}
    async with testing.consumer(fails, schemas=ORDERS, retry=retry) as app:
        await app.give(Order(1))
        time.sleep(0.02)
        await app.give(Order(2))
        assert len(app.calls) == 1


async def test_the_loop_has_its_own_time_again() -> None:
    """The clock of the loop is restored at the end, also after a failure, and when two apps overlap."""
    loop = asyncio.get_running_loop()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with testing.consumer(bill, schemas=ORDERS) as first, testing.consumer(bill, schemas=ORDERS) as second:
            await first.advance(NEVER)
            await second.give(Order(1))
            assert loop.time() > time.monotonic() + NEVER / 2
            raise ZeroDivisionError
    assert "time" not in vars(loop)
    assert loop.time() < time.monotonic() + 1
