"""How far a partition is behind its end, in records and in seconds. Pure: time is an argument."""

from __future__ import annotations

from consumer.ages import Ages


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
