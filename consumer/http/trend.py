"""Trend of a topic's lag: whether it grows, and when it will be 0. Pure: time is an argument."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping

SAMPLES = 60
"""A minute, at one sample a second."""
SLOT_SAMPLES = 10
GROWING_SLOTS = 3
"""Slots, each with more lag on average than the one before, after which the lag counts as growing: half a minute."""


class Trend:
    """Samples of one topic's lag while the same partitions are owned; owned by the status reader."""

    def __init__(self) -> None:
        self._begin(frozenset())

    def _begin(self, partitions: Collection[int]) -> None:
        self._partitions = partitions
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)
        self._slot: list[int] = []
        self._mean = math.inf
        """Mean lag of the slot before; the first has none."""
        self._rising = 0
        """Slots in a row that had more than the one before."""
        self._rising_since = 0.0

    def note(self, at: float, lags: Mapping[int, int]) -> None:
        """Note the lags by partition at ``at`` (monotonic); other partitions than before begin another trend."""
        if lags.keys() != self._partitions:
            self._begin(frozenset(lags))
        lag = sum(lags.values())
        self._samples.append((at, lag))
        self._slot.append(lag)
        if len(self._slot) < SLOT_SAMPLES:
            return
        mean = sum(self._slot) / len(self._slot)
        if mean <= self._mean:
            self._rising = 0
        else:
            self._rising_since = self._rising_since if self._rising else self._samples[-SLOT_SAMPLES][0]
            self._rising += 1
        self._mean = mean
        self._slot.clear()

    @property
    def growing_since(self) -> float | None:
        """Monotonic time since which the lag has grown without a break; None if it does not grow."""
        return self._rising_since if self._rising >= GROWING_SLOTS else None

    @property
    def catch_up_seconds(self) -> float | None:
        """Seconds until the lag is 0 at the rate of the last minute; None if it does not shrink."""
        if not self._samples:
            return None
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        if last == 0:
            return 0.0
        return last * (ended - began) / (first - last) if last < first else None
