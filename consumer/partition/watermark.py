"""The watermark: the offset below which every delivered record has its outcome. Pure: no clock, no I/O."""

from __future__ import annotations


class Watermark:
    """The contiguous watermark of one partition in one epoch; owned by its lanes, read by the committer.

    Offsets have gaps (transaction markers, compaction), so it never counts records: it keeps the position (the next
    offset to be delivered) and a hold for each record that is delivered and not done. A batch has one hold, at its
    first record. Memory grows with the holds.

    Invariants:
    - ``done`` never falls
    - every delivered record below ``done`` has been released as often as it was held
    - without holds, ``done`` is the position, past markers and compacted ranges
    """

    def __init__(self, start: int) -> None:
        self.position = start
        self._holds: dict[int, int] = {}
        self._batches: list[int] = []
        """First offset of each batch that is not done."""
        self._reported = start

    @property
    def done(self) -> int:
        """Offset to read next after a restart; every record below it is done.

        The smallest hold is searched here, once a commit, and not kept up to date at each record: a commit compares a
        few thousand numbers at most, and a second has hundreds of thousands of records.
        """
        self._reported = min([min(self._holds, default=self.position), *self._batches])
        return self._reported

    def advance(self, position: int) -> None:
        """Note that every record below ``position`` was delivered; those that are not held are done."""
        if position < self.position:
            raise ValueError(f"position {position} is below {self.position}: records would be handled twice")
        self.position = position

    def hold(self, offset: int) -> bool:
        """Hold a record that is not done; return whether it was not held. It may have several holds: calls, letters."""
        if offset < self._reported:
            raise ValueError(f"offset {offset} is below {self._reported}, which may already be committed")
        held = self._holds.get(offset, 0)
        self._holds[offset] = held + 1
        return not held

    def release(self, offset: int) -> bool:
        """Release one hold; return whether it was the record's last.

        A hold that is left never disappears in between: another thread reads ``done``.
        """
        left = self._holds[offset] - 1
        if left:
            self._holds[offset] = left
        else:
            del self._holds[offset]
        return not left

    def hold_batch(self, first: int) -> None:
        """Hold a batch at its first record."""
        self.hold(first)
        self._batches.append(first)
        self.release(first)

    def release_batch(self, first: int) -> None:
        """Release a batch: its records are done, or held by themselves."""
        self._batches.remove(first)

    def undone_below(self, offset: int, most: int) -> list[int]:
        """Return the lowest ``most`` offsets below ``offset`` that may have no outcome.

        They are held, lie at or above the position, or in or behind a batch, of which only the first offset is known.
        """
        unknown = min([self.position, *self._batches])
        held = sorted(each for each in self._holds if each < min(unknown, offset))
        return [*held, *range(unknown, min(offset, unknown + most))][:most]

    def __len__(self) -> int:
        return len(self._holds) + len(self._batches)
