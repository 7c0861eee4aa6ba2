"""Time of the event loop by state: at work, or waiting for a named cause.

A loop works until it calls its selector, and waits inside the selector. So the selector can measure both, with two
reads of the clock per round of the loop.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

STATES = ("poll", "work", "backpressure", "commit", "drain")
SHORT_SECONDS = 0.001
"""A shorter wait only polled the sockets, and counts as work."""

POLL_SECONDS = 0.0005
"""Minimum seconds between two looks at the sockets while there is other work; a look costs as much as a short call."""

ASK_SECONDS = 0.02
"""Minimum seconds between two questions for the cause of a wait, which is costly with hundreds of partitions."""


class LoopTime(selectors.DefaultSelector):
    """The selector of one event loop; counts seconds by state since it was made.

    Nothing changes while the loop waits, so the cause of a wait can be determined after the wait.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.rounds = 0
        """Number of rounds of the loop. If it changed during a call, the call has waited."""
        self.waits_for: Callable[[], str] = lambda: "poll"
        """Returns the state of the current wait; set by the daemon."""
        self._clock = clock
        self._seconds = dict.fromkeys(STATES, 0.0)
        self._reported = dict(self._seconds)
        self._since = clock()
        self._waiting = False
        self._answer, self._ask_at = "poll", self._since
        self._poll_at = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Wait for events, and count the time before and in the wait."""
        self.rounds += 1
        if timeout == 0:  # there is work to do: this is a part of it
            now = self._clock()
            if now < self._poll_at:
                return []
            self._poll_at = now + POLL_SECONDS
            return super().select(0)
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
        """Return the seconds by state up to now; called from one thread, which may be another one.

        The loop runs while this reads, and a state that lasts may be counted differently when it ends. A counter must
        not fall, so no value is lower than the one returned before.
        """
        since = self._since
        found = dict(self._seconds)
        found[self.waits_for() if self._waiting else "work"] += max(0.0, self._clock() - max(since, self._since))
        self._reported = {state: max(seconds, self._reported[state]) for state, seconds in found.items()}
        return self._reported

    def _count(self, state: str) -> None:
        now = self._clock()
        self._seconds[state] += now - self._since
        self._since = now


class TimedLoop(asyncio.SelectorEventLoop):
    """An event loop whose selector is a LoopTime; for ``asyncio.Runner``."""

    def __init__(self) -> None:
        self.time_spent = LoopTime()
        super().__init__(self.time_spent)


class EveryRound:
    """A stand-in for LoopTime in a loop that is no TimedLoop: each call counts as having waited, and is timed."""

    def __init__(self) -> None:
        self.waits_for: Callable[[], str] = lambda: "poll"
        self._asked = 0

    @property
    def rounds(self) -> int:
        """A different number at each read."""
        self._asked += 1
        return self._asked

    def seconds(self) -> dict[str, float]:
        """Return 0 for each state: the loop is not timed."""
        return dict.fromkeys(STATES, 0.0)


def time_spent() -> LoopTime | EveryRound:
    """Return the LoopTime of the running loop, or a stand-in."""
    loop = asyncio.get_running_loop()
    return loop.time_spent if isinstance(loop, TimedLoop) else EveryRound()
