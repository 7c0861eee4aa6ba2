"""The fuse: halts all partitions when most records become dead letters, since then the records are not the cause."""

from __future__ import annotations

from consumer.record import Position


class Fuse:
    """Counts dead-lettered records in a window of consumed records, over all partitions; owned by the engine.

    A record that several routes gave up counts once. The number of consumed records is passed with each dead letter, so
    a record without one costs nothing.
    """

    def __init__(self, ratio: float, window: int) -> None:
        self._ratio = ratio
        self._window = window
        self._marks: dict[Position, int] = {}
        """Each dead-lettered record with the number of records consumed by then, oldest first."""
        self._before = 0
        """Number of records that an earlier process had consumed of this window."""

    def trips(self, record: Position, consumed: int) -> bool:
        """Count a dead letter; return whether it exceeds the limit. The first window must be full before it can."""
        consumed += self._before
        # Remove and add, so that the record comes last: its first letter may have left the window long ago.
        self._marks.pop(record, None)
        self._marks[record] = consumed
        self._forget(consumed)
        return consumed >= self._window and len(self._marks) > self._ratio * self._window

    def window(self, consumed: int) -> tuple[int, int]:
        """Return the numbers of dead-lettered and of consumed records in the window, for ``resume``."""
        self._forget(consumed + self._before)
        return len(self._marks), min(consumed + self._before, self._window)

    def resume(self, letters: int, consumed: int) -> None:
        """Go on from the window of an earlier process.

        After one that tripped the fuse, a tenth of the window more trips it: a daemon that restarts into the same storm
        writes few more letters, and one whose cause is mended does not halt at the next bad record.
        """
        limit = self._ratio * self._window
        if letters >= int(limit):
            letters = int(limit) + 1 - self._window // 10
        self._before = consumed
        self._marks = {Position("", -1, number): consumed for number in range(letters)}

    def _forget(self, consumed: int) -> None:
        """Drop the letters of records before the window."""
        while self._marks and self._marks[first := next(iter(self._marks))] <= consumed - self._window:
            del self._marks[first]
