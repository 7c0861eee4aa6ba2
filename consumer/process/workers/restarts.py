"""When a worker that ended is started again, and when that is given up. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Pace(NamedTuple):
    """Times of restarts, in seconds."""

    first: float = 1.0
    """Wait before the first restart; it doubles with each further one."""
    longest: float = 30.0
    steady: float = 60.0
    """A process that ran for this long was no part of a crash loop."""
    look: float = 1.0
    """Interval at which the workers are looked at."""


class Restarts:
    """The restarts of one worker, whose waits are independent of those of others.

    A worker is in a crash loop when it ends more than ``most`` times within ``window_seconds``, each time after less
    than ``Pace.steady`` of running.
    """

    def __init__(self, pace: Pace, most: int, window_seconds: float) -> None:
        self._pace = pace
        self._most = most
        self._window_seconds = window_seconds
        self._ends: list[float] = []
        """Times of the ends that count."""

    def after(self, ran_seconds: float, now: float) -> float | None:
        """Note an end; return the seconds until the restart, or None for a crash loop."""
        if ran_seconds >= self._pace.steady:
            self._ends.clear()
            return self._pace.first
        self._ends = [*(each for each in self._ends if now - each <= self._window_seconds), now]
        if len(self._ends) > self._most:
            return None
        return min(self._pace.first * 2.0 ** (len(self._ends) - 1), self._pace.longest)
