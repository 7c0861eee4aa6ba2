"""Samples of the last five minutes, for the charts of the status page."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from consumer.observe.counters import Counters

SAMPLES = 300
"""Five minutes, at one sample a second."""
RATE_SAMPLES = 10


class Sample(msgspec.Struct, frozen=True):
    """Rates over the second before ``at``, and the lag at that time."""

    at: float
    """Seconds since 1970."""
    records_per_second: float
    bytes_per_second: float
    lag_records: int | None
    """None while no end offset is known."""


class History:
    """Samples for charts and totals for rates; used by the supervisor's thread, as long-lived as the daemon."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._totals: deque[_Totals] = deque(maxlen=RATE_SAMPLES + 1)

    def note(self, wall: float, now: float, counters: Counters, lag: int | None) -> None:
        """Note the totals at ``now`` (monotonic) and ``wall``; the first call only stores them for comparison."""
        records, size = dict(counters.records_consumed), sum(dict(counters.bytes_consumed).values())
        handled = {name: counts.handled for name, counts in counters.routes.items()}
        totals = _Totals(now, records, size, handled)
        if self._totals:
            before = self._totals[-1]
            seconds = max(now - before.at, 0.001)
            consumed = sum(records.values()) - sum(before.records.values())
            self._samples.append(Sample(wall, consumed / seconds, (size - before.size) / seconds, lag))
        self._totals.append(totals)

    @property
    def samples(self) -> list[Sample]:
        """All samples, oldest first."""
        return list(self._samples)

    def records_per_second(self, topic: str | None = None) -> float:
        """Return the records consumed a second, of one topic or of all, over the last RATE_SAMPLES samples."""
        return self._rate(lambda each: sum(each.records.values()) if topic is None else each.records.get(topic, 0))

    def bytes_per_second(self) -> float:
        """Return the bytes fetched a second over the last RATE_SAMPLES samples."""
        return self._rate(lambda each: each.size)

    def handled_per_second(self, route: str) -> float:
        """Return the records that a route handled a second over the last RATE_SAMPLES samples."""
        return self._rate(lambda each: each.handled.get(route, 0))

    def _rate(self, total: Callable[[_Totals], int]) -> float:
        if len(self._totals) < 2:
            return 0.0
        first, last = self._totals[0], self._totals[-1]
        return (total(last) - total(first)) / max(last.at - first.at, 0.001)


class _Totals(NamedTuple):
    at: float
    """Monotonic time."""
    records: dict[str, int]
    size: int
    handled: dict[str, int]
