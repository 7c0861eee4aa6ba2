"""Who may keep the event loop: inline work takes turns of a few milliseconds, with a look at sockets between two."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from consumer.observe.loop_time import time_spent

SLICE_SECONDS = 0.010


class Turns:
    """Shares one event loop among all partitions of a daemon; owned by the engine.

    The loop runs everything that is ready before it looks at sockets again. If each of 256 partitions took its own
    10 ms then, heartbeats and HTTP would wait for seconds: so the 10 ms are common to all, and whoever comes to their
    end waits for a turn of its own.
    """

    def __init__(self) -> None:
        self.loop = time_spent()
        """Tells whether the loop has gone round since one last looked."""
        self.end = 0.0
        """Monotonic time at which inline work must stop and ask for the next turn."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._armed = False

    async def next(self) -> None:
        """Give the loop back and return when it is this caller's turn."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if not self._armed:
            self._armed = True
            loop.call_soon(self._grant)
        await mine

    def _grant(self) -> None:
        """Begin the next turn; the one after it is granted in the following round of the loop, after the sockets."""
        while self._waiting and self._waiting[0].done():  # cancelled while it waited
            self._waiting.popleft()
        self._armed = bool(self._waiting)
        if self._armed:
            self.end = time.monotonic() + SLICE_SECONDS
            self._waiting.popleft().set_result(None)
            asyncio.get_running_loop().call_soon(self._grant)
