"""Histograms as plain integers: written where a call or commit ends, read by the metrics at a scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# From a call within the machine to one that a time limit would end.
HANDLER_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# The default of max_records is 500: a smaller batch was called because of max_seconds.
BATCH_RECORDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
# From no lag to a day of lag, which shows whether records are old because of a backlog or of slow handling.
RECORD_AGE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
# A broker on the same machine answers in a millisecond; a revoke gives up after 4 s.
COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# From a move between idle members to a drain that the rebalance timeout ends.
MOVE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """Counts of values by upper bound, and their sum; written by one thread, read by any thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """``bounds`` must rise; values above the last are counted too."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value ``times`` times, under the lowest bound that is not below it."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def cumulative(self) -> list[tuple[str, int]]:
        """Return each bound as text with the number of values at or below it; the last is ``+Inf``, with all values."""
        found, below = [], 0
        for bound, count in zip([*map(_text, self.bounds), "+Inf"], self.counts, strict=True):
            below += count
            found.append((bound, below))
        return found


def _text(bound: float) -> str:
    return repr(float(bound))
