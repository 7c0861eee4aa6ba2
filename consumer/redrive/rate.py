"""Rate limit of a redrive, in letters a second."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from consumer.instructions import Retry


class RateLimit:
    """Lets ``rate`` letters through per second, evenly; a stop ends all waits. Lives as long as the redrive."""

    def __init__(self, rate: float, stopping: asyncio.Event) -> None:
        self.burst = math.ceil(rate)
        """Maximum number of letters in one call."""
        self._seconds = 1 / rate
        self._stopping = stopping
        self._next = 0.0

    async def wait(self, count: int) -> None:
        """Wait until ``count`` letters may be called; raise Retry at a stop, which leaves them for the next redrive."""
        turn = max(self._next, time.monotonic())
        self._next = turn + count * self._seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(turn - time.monotonic()):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise Retry
