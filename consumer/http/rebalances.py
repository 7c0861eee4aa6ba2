"""Rebalances of the last minutes, counted from a total. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 120.0
MANY = 7
"""Rebalances within the window from which they are trouble. A rolling restart of three daemons is six."""


class Rebalances:
    """Times at which partitions were taken away; owned by the status reader."""

    def __init__(self) -> None:
        self.since: float | None = None
        """Time since which there are many; None if there are not."""
        self._total = 0
        self._times: deque[float] = deque()

    def __len__(self) -> int:
        return len(self._times)

    def note(self, at: float, total: int) -> None:
        """Note how often partitions were taken away until ``at`` (seconds since 1970)."""
        self._times.extend([at] * (total - self._total))
        self._total = total
        while self._times and at - self._times[0] > WINDOW_SECONDS:
            self._times.popleft()
        if len(self._times) < MANY:
            self.since = None
        elif self.since is None:
            self.since = self._times[0]
