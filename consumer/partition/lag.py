"""Lag of a partition, in records and in seconds. Pure: time is an argument."""

from __future__ import annotations

from bisect import bisect_left

EVERY_SECONDS = 0.05
MOST = 1000


class Lag:
    """End offset of one partition in one epoch, and the ages of its records; owned by its Partition."""

    def __init__(self) -> None:
        self.end_offset: int | None = None
        """End offset for this reader, as of the last measurement."""
        self.measured_at = 0.0
        """Monotonic time of the last measurement."""
        self.ages = Ages()
        self._ahead: tuple[int, float] | None = None
        """Position above which records were first measured, and the monotonic time of that."""
        self.ends = Ages()
        """End offsets above the committed one, with the times at which they were measured."""
        self._delivered_to = 0
        """Offset after the last chunk that was delivered."""

    def ends_at(self, offset: int, committed: int | None, now: float, wall: float, position: int | None = None) -> None:
        """Note the end offset, measured at ``now`` (monotonic) and ``wall``, and where the partition was then."""
        self.end_offset, self.measured_at = offset, now
        if position is None or offset <= position:
            self._ahead = None
        elif self._ahead is None or self._ahead[0] != position:
            self._ahead = position, now
        if committed is not None and offset > committed and now >= self.ends.next_at:
            self.ends.note(offset, int(wall * 1000), now)

    def delivered(self, offset: int, next_offset: int, timestamp_ms: int | None, now: float, wall: float) -> None:
        """Note the first record of a chunk before it is worked on; without a timestamp it is as old as its delivery.

        ``next_offset`` is the offset after the chunk.
        """
        self._delivered_to = next_offset
        if now >= self.ages.next_at:
            self.ages.note(offset, int(wall * 1000) if (timestamp_ms or -1) < 0 else timestamp_ms, now)

    def ahead_since(self, position: int) -> float | None:
        """Return the monotonic time since which records are known above ``position``; None if none are."""
        ahead = self._ahead
        return ahead[1] if ahead is not None and ahead[0] == position else None

    def records(self, begin: int | None, position: int | None) -> int | None:
        """Return the number of offsets between ``begin`` and the end; None until both are known.

        Records below ``position`` were delivered, so the end is at least ``position``, even if it was measured earlier.
        """
        if begin is None or self.end_offset is None:
            return None
        return max(0, max(self.end_offset, position or 0) - begin)

    def seconds(self, committed: int | None, position: int | None, wall: float) -> float | None:
        """Return the age of the oldest record that is not committed, 0 without any; None while that is not known.

        The timestamp of a chunk's first record is known once it is worked on, and stands for the whole chunk. A record
        that is not yet fetched counts as old as the first measurement that showed it.
        """
        records = self.records(committed, position)
        if committed is None or not records:
            return None if records is None else 0.0
        before, since = self.ages.around(committed)
        if since is None:
            seen = self.ends.around(committed + 1)[1] if committed >= self._delivered_to else None
            since = max((each for each in (before, seen) if each is not None), default=wall)
        return max(0.0, wall - since)


class Ages:
    """Offsets and timestamps of a partition in one epoch, in rising order; owned by its Partition.

    Written in the daemon's event loop and read by the thread that serves metrics: lists are replaced, never changed.
    """

    def __init__(self) -> None:
        self.next_at = 0.0
        """Monotonic time of the next note; the caller compares it, because the caller has a clock."""
        self._every = EVERY_SECONDS
        self._noted: tuple[list[int], list[float]] = ([], [])

    def note(self, offset: int, timestamp_ms: int | None, now: float) -> None:
        """Note a record that is worked on at ``now``; one without a timestamp (None or -1) is ignored."""
        offsets, times = self._noted
        if timestamp_ms is None or timestamp_ms < 0 or (offsets and offset <= offsets[-1]):
            return
        if len(offsets) >= MOST:  # no commit for long: keep every other note, and note half as often
            self._every *= 2
            offsets, times = offsets[::2], times[::2]
        self.next_at = now + self._every
        self._noted = [*offsets, offset], [*times, timestamp_ms / 1000]

    def forget_below(self, offset: int) -> None:
        """Forget the notes of committed records, except for the last one."""
        offsets, times = self._noted
        first = max(0, bisect_left(offsets, offset + 1) - 1)
        if first:
            self._noted = offsets[first:], times[first:]
            self._every = EVERY_SECONDS

    def around(self, offset: int) -> tuple[float | None, float | None]:
        """Return the timestamps, in seconds since 1970, of the last note up to ``offset`` and the first from it on.

        The record at ``offset`` is about as old as the second, or if there is none as old as the first or younger.
        """
        offsets, times = self._noted
        index = bisect_left(offsets, offset)
        from_it = times[index] if index < len(offsets) else None
        if from_it is not None and offsets[index] == offset:
            return from_it, from_it
        return (times[index - 1] if index else None), from_it
