"""Fair sharing of the event loop between partitions: turns of 10 ms, with a check of the sockets between two turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from consumer.observe.loop_time import time_spent

SLICE_SECONDS = 0.010


class Turns:
    """Shares one event loop among all partitions of a daemon; owned by the engine.

    The loop runs everything that is ready before it checks the sockets again. If each of 256 partitions took 10 ms,
    heartbeats and HTTP would wait for seconds. So all partitions share the same 10 ms, and a runner that reaches their
    end waits for the next turn.
    """

    def __init__(self) -> None:
        self.loop = time_spent()
        """Counts the rounds of the event loop."""
        self.end = 0.0
        """Monotonic time at which inline work must stop and wait for the next turn."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._armed = False

    async def next(self) -> None:
        """Give the event loop back; return when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._armed:
            self._armed = True
            loop.call_soon(self._grant)
        await turn

    def _grant(self) -> None:
        """Start the next turn; the one after it follows in the next round of the loop, after a check of the sockets."""
        while self._waiting and self._waiting[0].done():  # cancelled during its wait
            self._waiting.popleft()
        self._armed = bool(self._waiting)
        if self._armed:
            self.end = time.monotonic() + SLICE_SECONDS
            self._waiting.popleft().set_result(None)
            asyncio.get_running_loop().call_soon(self._grant)
