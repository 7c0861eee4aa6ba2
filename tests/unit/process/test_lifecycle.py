"""The loops of a run: none ends in silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.errors import ConsumerError
from consumer.process.lifecycle import Lifecycle, Loop


class FakeEngine:
    drain_seconds = 0.0
    stuck_calls = 0

    async def stop(self) -> None:
        """Drain nothing."""


class FakeSource:
    joined = False

    async def stop(self) -> None:
        """Leave nothing."""


async def forever() -> None:
    await asyncio.Event().wait()


async def returns() -> None:
    """Return at once."""


async def is_cancelled_by_a_library() -> None:
    raise asyncio.CancelledError


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def raises() -> None:
    raise LookupError


async def run(lifecycle: Lifecycle, poll: Loop, *others: Loop) -> None:
    engine: Any = FakeEngine()
    source: Any = FakeSource()
    async with asyncio.timeout(5):
        await lifecycle.run(engine, source, None, poll, others)
    lifecycle.raise_failure()


@pytest.mark.parametrize("is_poll", [True, False])
@pytest.mark.parametrize(
    ("loop", "why"),
    [
        (returns, "it returned"),
        (is_cancelled_by_a_library, "a library or a handler cancelled it"),
        (cancels_itself, "a library or a handler cancelled it"),
    ],
)
async def test_a_loop_that_ends_early_ends_the_run(loop: Loop, why: str, is_poll: bool) -> None:
    """A loop that returns or is cancelled before the stop is a failure that names the loop."""
    loops = (loop, forever) if is_poll else (forever, forever, loop)
    with pytest.raises(ConsumerError) as raised:
        await run(Lifecycle(), *loops)
    assert str(raised.value).startswith(f"{loop.__name__}, which must run until the stop, has ended: {why}")


async def test_an_exception_in_a_loop_ends_the_run() -> None:
    """An exception of a loop is the run's."""
    with pytest.raises(LookupError):
        await run(Lifecycle(), forever, raises)


async def test_loops_that_end_with_the_run() -> None:
    """After a stop a loop may return or be cancelled."""
    lifecycle = Lifecycle()

    async def stops() -> None:
        lifecycle.stop()

    await run(lifecycle, lifecycle.stopping.wait, stops, forever)  # type: ignore[arg-type]
