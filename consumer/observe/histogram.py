"""A histogram as plain integers: observed where something ends, read by metrics at scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# From what a call inside a machine takes to what a time limit would end; a second is where people begin to ask.
HANDLER_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# The shipped limit is 500: below it a batch was called because its time had come.
BATCH_RECORDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
# From live to a day behind: this tells a backlog from slow handling.
RECORD_AGE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
# A broker beside us answers in a millisecond; past 4 s a revoke gives up.
COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Counts of values by upper bound, and their sum; written by one thread, read by any."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """``bounds`` rise; what is above the last is counted too."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, at or below its bound."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def cumulative(self) -> list[tuple[str, int]]:
        """Return for each bound, as text, how many values are at or below it; the last is ``+Inf``, and all."""
        found, below = [], 0
        for bound, count in zip([*map(_text, self.bounds), "+Inf"], self.counts, strict=True):
            below += count
            found.append((bound, below))
        return found


def _text(bound: float) -> str:
    return repr(float(bound))
