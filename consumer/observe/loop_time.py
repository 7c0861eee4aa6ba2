"""An event loop that knows where its seconds go: at work, or waiting, and for what.

A loop is busy until it asks its selector for events, and waits in there. So the selector has all that is needed, at two
looks at the clock a round.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

STATES = ("poll", "work", "backpressure", "commit", "drain")
SHORT_SECONDS = 0.001
"""A wait that is over sooner was a look at the sockets: part of the work."""

ASK_SECONDS = 0.02
"""What it waits for is asked so often at the most: with hundreds of partitions that is a long question."""


class LoopTime(selectors.DefaultSelector):
    """The selector of one event loop; counts seconds by state, from its making on.

    Nothing changes while the loop waits, so why it waited can be asked when the wait is over.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.rounds = 0
        """Rounds of the loop so far: who finds it changed has waited."""
        self.waits_for: Callable[[], str] = lambda: "poll"
        """Says which state a wait belongs to; set by the daemon."""
        self._clock = clock
        self._seconds = dict.fromkeys(STATES, 0.0)
        self._told = dict(self._seconds)
        self._since = clock()
        self._waiting = False
        self._answer, self._ask_at = "poll", self._since

    def select(self, timeout: float | None = None) -> Any:
        """Wait for events, as the loop asks."""
        self.rounds += 1
        self._count("work")
        self._waiting = True
        try:
            return super().select(timeout)
        finally:
            now = self._clock()
            if now - self._since >= SHORT_SECONDS:
                if now >= self._ask_at:
                    self._ask_at, self._answer = now + ASK_SECONDS, self.waits_for()
                self._count(self._answer)
            else:
                self._count("work")
            self._waiting = False

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each state so far, up to now; to be asked from one thread, which may be another.

        What goes on just now may be counted otherwise when it is over, and the loop goes on while it is looked at. A
        counter must not fall: so nothing is told that is less than before.
        """
        since = self._since
        found = dict(self._seconds)
        found[self.waits_for() if self._waiting else "work"] += max(0.0, self._clock() - max(since, self._since))
        self._told = {state: max(seconds, self._told[state]) for state, seconds in found.items()}
        return self._told

    def _count(self, state: str) -> None:
        now = self._clock()
        self._seconds[state] += now - self._since
        self._since = now


class TimedLoop(asyncio.SelectorEventLoop):
    """An event loop with a LoopTime; for ``asyncio.Runner``."""

    def __init__(self) -> None:
        self.time_spent = LoopTime()
        super().__init__(self.time_spent)


class EveryRound:
    """Stands for the LoopTime of a loop that somebody else made: every call may have waited, so each is timed."""

    def __init__(self) -> None:
        self.waits_for: Callable[[], str] = lambda: "poll"
        self._asked = 0

    @property
    def rounds(self) -> int:
        """Another number each time."""
        self._asked += 1
        return self._asked

    def seconds(self) -> dict[str, float]:
        """Return 0 for each state: the loop is not timed."""
        return dict.fromkeys(STATES, 0.0)


def time_spent() -> LoopTime | EveryRound:
    """Return what knows the rounds of the running loop."""
    loop = asyncio.get_running_loop()
    return loop.time_spent if isinstance(loop, TimedLoop) else EveryRound()
