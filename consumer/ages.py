"""How old is the oldest record of a partition that is not committed: a few offsets with their records' timestamps.

Noting every record would cost a tenth of the whole; one in 50 ms is enough to tell seconds.
"""

from __future__ import annotations

from bisect import bisect_left

EVERY_SECONDS = 0.05
MOST = 1000


class Ages:
    """Offsets and timestamps of a partition in one epoch, in rising order; owned by its Partition.

    Written in the daemon's event loop, read by the thread that serves metrics: what is read is replaced, not changed.
    """

    def __init__(self) -> None:
        self.next_at = 0.0
        """Monotonic time before which nothing needs to be noted; looked at by the caller, which has a clock at hand."""
        self._every = EVERY_SECONDS
        self._noted: tuple[list[int], list[float]] = ([], [])

    def note(self, offset: int, timestamp_ms: int | None, now: float) -> None:
        """Note a record that is in work at ``now``; without a timestamp (None, or -1) it tells nothing."""
        offsets, times = self._noted
        if timestamp_ms is None or timestamp_ms < 0 or (offsets and offset <= offsets[-1]):
            return
        if len(offsets) >= MOST:  # nothing was committed for long: keep every other, and note half as many from now on
            self._every *= 2
            offsets, times = offsets[::2], times[::2]
        self.next_at = now + self._every
        self._noted = [*offsets, offset], [*times, timestamp_ms / 1000]

    def forget_below(self, offset: int) -> None:
        """Forget what is committed, but for the last of it."""
        offsets, times = self._noted
        first = max(0, bisect_left(offsets, offset + 1) - 1)
        if first:
            self._noted = offsets[first:], times[first:]
            self._every = EVERY_SECONDS

    def around(self, offset: int) -> tuple[float | None, float | None]:
        """Return two times, in seconds since 1970: of the last noted up to ``offset``, and of the first from it on.

        The record at ``offset`` is about as old as the second; as old as the first, or younger, if there is no second.
        """
        offsets, times = self._noted
        index = bisect_left(offsets, offset)
        from_it = times[index] if index < len(offsets) else None
        if from_it is not None and offsets[index] == offset:
            return from_it, from_it
        return (times[index - 1] if index else None), from_it
