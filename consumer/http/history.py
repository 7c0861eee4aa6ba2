"""Samples of the last five minutes, for the charts of the status page."""

from __future__ import annotations

from collections import deque
from itertools import islice

import msgspec

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
    """Ring of samples; written and read by the supervisor's thread, as long-lived as the daemon."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._before: tuple[float, int, int] | None = None

    def note(self, wall: float, now: float, records: int, size: int, lag: int | None) -> None:
        """Note the totals at ``now`` (monotonic) and ``wall``; the first call only stores them for comparison."""
        if self._before is not None:
            then, old_records, old_size = self._before
            seconds = max(now - then, 0.001)
            self._samples.append(Sample(wall, (records - old_records) / seconds, (size - old_size) / seconds, lag))
        self._before = (now, records, size)

    @property
    def samples(self) -> list[Sample]:
        """All samples, oldest first."""
        return list(self._samples)

    def rate(self) -> tuple[float, float]:
        """Return records and bytes a second, as the mean of the last RATE_SAMPLES samples."""
        last = list(islice(reversed(self._samples), RATE_SAMPLES))
        count = max(len(last), 1)
        return sum(s.records_per_second for s in last) / count, sum(s.bytes_per_second for s in last) / count
