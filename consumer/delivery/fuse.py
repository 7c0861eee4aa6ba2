"""The fuse: stops all when most records become dead letters, as then something else than the records is wrong."""

from __future__ import annotations

from consumer.record import Position


class Fuse:
    """Counts dead-lettered records in a window of those consumed, of all partitions; owned by the engine.

    A record that several routes gave up counts once. What was consumed is told at each letter, so that a record without
    one costs nothing.
    """

    def __init__(self, ratio: float, window: int) -> None:
        self._ratio = ratio
        self._window = window
        self._marks: dict[Position, int] = {}
        """Each dead-lettered record with the count of records at that time, oldest first."""

    def blows(self, record: Position, consumed: int) -> bool:
        """Whether this letter is over the limit: of a full window, and not before there was one."""
        # Marked anew, and so last: a record may come to its second letter when its first is long out of the window.
        self._marks.pop(record, None)
        self._marks[record] = consumed
        while self._marks[first := next(iter(self._marks))] <= consumed - self._window:
            del self._marks[first]
        return consumed >= self._window and len(self._marks) > self._ratio * self._window
