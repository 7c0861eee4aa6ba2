"""How far a partition is behind its end, in records and in seconds. Pure: time is an argument."""

from __future__ import annotations

from bisect import bisect_left

EVERY_SECONDS = 0.05
MOST = 1000


class Lag:
    """What is known of one partition's end in one epoch, and of the age of its records; owned by its Partition."""

    def __init__(self) -> None:
        self.end_offset: int | None = None
        """Where it ended for this reader when that was last asked."""
        self.measured_at = 0.0
        """Monotonic time of that."""
        self.ages = Ages()
        self._behind_since: float | None = None
        """Seconds since 1970: when it was first seen that there are records beyond what is committed."""
        self._seen_to = 0
        """Where it ended then."""

    def ends_at(self, offset: int, committed: int | None, now: float, wall: float) -> None:
        """Note where it ends, learnt at ``now`` (monotonic) and ``wall``; ``committed`` as it is known then."""
        self.end_offset, self.measured_at = offset, now
        if committed is None or offset <= committed:
            self._behind_since = None
        elif self._behind_since is None or committed >= self._seen_to:  # what was seen then is committed by now
            self._behind_since, self._seen_to = wall, offset

    def end_offset_at(self, since: float) -> int | None:
        """Return the end if it was learnt after ``since`` (monotonic)."""
        return self.end_offset if self.measured_at >= since else None

    def records(self, begin: int | None, position: int | None) -> int | None:
        """Return how many offsets lie between ``begin`` and the end; None until both are known.

        What lies before ``position`` was delivered, so the end is not before it, when that came after it was learnt.
        """
        if begin is None or self.end_offset is None:
            return None
        return max(0, max(self.end_offset, position or 0) - begin)

    def seconds(self, committed: int | None, position: int | None, wall: float) -> float | None:
        """Return the age of the oldest record that is not committed, 0 without any; None while that is not known.

        A record is known by its timestamp once it is in work; one that is not yet fetched has waited since it was first
        seen that the partition goes on.
        """
        records = self.records(committed, position)
        if committed is None or not records:
            return None if records is None else 0.0
        before, since = self.ages.around(committed)
        if since is None:
            since = max((each for each in (before, self._behind_since) if each is not None), default=wall)
        return max(0.0, wall - since)


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
