"""Recent failures, grouped by kind: the route, the place in the code, the number and the last record."""

from __future__ import annotations

import msgspec

from consumer.dead_letters.cause import NO_ROUTE
from consumer.record import Position

KEPT = 20
LONGEST = 500
"""Characters that are kept of a failure's description."""


class Failure(msgspec.Struct, frozen=True):
    """Failures of one group. Holds positions and places in the code, never a record's content."""

    first_at: float
    """Seconds since 1970, as ``last_at``."""
    last_at: float
    times: int
    route: str
    """``none`` when the record reached no route."""
    kind: str
    """Kind of the failed call (``error``, ``timeout``, ``retry``, ``pause``), or the reason of the dead letter."""
    error: str
    """Class and place in the code, or a message of this software."""
    topic: str
    partition: int
    offset: int
    """Offset of the last failed record; for a batch, of its first record."""


class RecentFailures:
    """The last groups of failures of one daemon, as long-lived; a new group replaces the oldest.

    A group is a route, a kind and a place in the code, or the undecodable records of a topic. So many failures of one
    group do not displace the others. Written on the event loop, read from any thread: an entry is replaced as a whole.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._groups: dict[tuple[str, str, str], Failure] = {}

    def note(self, at: float, route: str, kind: str, error: str, record: Position) -> None:
        """Note one failure; ``error`` holds no payload."""
        # The message of an undecodable record has its size, so it cannot identify a group.
        error = error[:LONGEST]
        group = (route, kind, record.topic if route == NO_ROUTE else error)
        before = self._groups.pop(group, None)
        first_at, times = (before.first_at, before.times + 1) if before is not None else (at, 1)
        self._groups[group] = Failure(first_at, at, times, route, kind, error, *record)
        if len(self._groups) > self._kept:
            del self._groups[next(iter(self._groups))]

    @property
    def latest_first(self) -> list[Failure]:
        """All groups, the one that failed last first."""
        return list(self._groups.values())[::-1]
