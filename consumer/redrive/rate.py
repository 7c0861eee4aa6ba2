"""So many a second: the rate of a redrive."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from consumer.instructions import Retry


class RateLimit:
    """Lets so many through a second, evenly; at a stop those that wait for their turn give it up."""

    def __init__(self, rate: float, stopping: asyncio.Event) -> None:
        self.most = math.ceil(rate)
        """So many may go at once."""
        self._seconds = 1 / rate
        self._stopping = stopping
        self._next = 0.0

    async def wait(self, count: int) -> None:
        """Wait for one's turn with so many letters; raises Retry at a stop: they are left for the next redrive."""
        turn = max(self._next, time.monotonic())
        self._next = turn + count * self._seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(turn - time.monotonic()):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise Retry
