"""How far all is done: the offset below which every delivered record has its outcome. Pure: no clock, no I/O."""

from __future__ import annotations


class Watermark:
    """The contiguous watermark of one partition in one epoch; owned by its lanes, read by the committer.

    Offsets have gaps (transaction markers, compaction), so it never counts: it knows the position (the next offset to
    be delivered) and holds what was delivered and is not done. Memory is proportional to the holds.

    Invariants:
    - ``done`` never falls
    - every delivered record below ``done`` has been released as often as it was held
    - with nothing held, ``done`` is the position itself, past markers and compacted ranges
    """

    def __init__(self, start: int) -> None:
        self.position = start
        self._holds: dict[int, int] = {}
        self._told = start

    @property
    def done(self) -> int:
        """Offset to read next after a restart: below it nothing is left to do.

        The smallest hold is looked for here, once a commit, and not kept up to date at each record: a commit looks at
        a few thousand numbers at the most, a second sees hundreds of thousands of records.
        """
        self._told = min(self._holds, default=self.position)
        return self._told

    def advance(self, position: int) -> None:
        """Note that all below ``position`` was delivered; what is not held is done."""
        if position < self.position:
            raise ValueError(f"position {position} is below {self.position}: records would be handled twice")
        self.position = position

    def hold(self, offset: int) -> None:
        """Note that a record is not done; it may be held by several at once (its call, a batch)."""
        if offset < self._told:
            raise ValueError(f"offset {offset} is below {self._told}, which may be committed already")
        self._holds[offset] = self._holds.get(offset, 0) + 1

    def release(self, offset: int) -> None:
        """Give up one hold; the record is done with the last."""
        left = self._holds[offset] - 1
        if left:
            self._holds[offset] = left
        else:
            del self._holds[offset]

    def __len__(self) -> int:
        return len(self._holds)
