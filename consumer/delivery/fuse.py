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

    def trips(self, record: Position, consumed: int) -> bool:
        """Count a dead letter; return whether it exceeds the limit. The first window must be full before it can."""
        # Remove and add, so that the record comes last: its first letter may have left the window long ago.
        self._marks.pop(record, None)
        self._marks[record] = consumed
        while self._marks[first := next(iter(self._marks))] <= consumed - self._window:
            del self._marks[first]
        return consumed >= self._window and len(self._marks) > self._ratio * self._window
