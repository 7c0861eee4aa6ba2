"""The clock of an event loop under test: time stands still while an app is at work, and moves when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import futures
from collections.abc import Iterator
from typing import Any

from consumer.errors import ConsumerError


class Clock:
    """Replaces ``loop.time``, which timers, ``asyncio.sleep`` and timeouts follow; shared by all apps of a loop.

    Time stands still while ``stopped``. Between, when the test awaits something by itself, it passes as usual.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
        self._now = loop.time()
        self._seen: float | None = None
        """Real time at which the loop last asked for the time; None if it has not since the clock stood still."""
        self._stops = 0
        self._users = 0

    def time(self) -> float:
        """Return the time of the loop."""
        if not self._stops:
            real = time.monotonic()
            self._now += real - self._seen if self._seen is not None else 0.0
            self._seen = real
        return self._now

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Be the clock of the loop until the end of the block."""
        self._users += 1
        self._loop.time = self.time
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                del self._loop.time

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let time stand still until the end of the block."""
        self._stops += 1
        self._seen = None
        try:
            yield
        finally:
            self._stops -= 1

    def move(self, until: float) -> None:
        """Move the time; what is due then happens when the loop runs next."""
        self._now = max(self._now, until)

    @property
    def next_due(self) -> float | None:
        """Time of the next timer; None without one."""
        return min((each.when() for each in self._timers), default=None)

    async def until_idle(self, until: float) -> None:
        """Run the loop until nothing can run at once, or until a real time; the first round looks at sockets."""
        idle = 0
        while idle < 2:
            await asyncio.sleep(0)
            ready = self._loop._ready  # noqa: SLF001 - asyncio has no other way to know
            idle = idle + 1 if not ready or time.monotonic() > until else 0

    def sleeps(self, task: Any) -> bool:
        """Whether a task waits in ``asyncio.sleep``."""
        waits_for = getattr(task, "_fut_waiter", None)
        return any(
            each._callback is futures._set_result_unless_cancelled and waits_for in each._args  # type: ignore[attr-defined] # noqa: SLF001
            for each in self._timers
        )

    @property
    def _timers(self) -> list[Any]:
        return [each for each in self._loop._scheduled if not each.cancelled()]  # noqa: SLF001


def clock_of_running_loop() -> Clock:
    """Return the clock of the running loop, a new one if it has none yet."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise ConsumerError(f"consumer.testing needs an event loop of asyncio, and this one is {type(loop).__name__}")
    clock = getattr(loop.time, "__self__", None)
    return clock if isinstance(clock, Clock) else Clock(loop)
