"""The last sorts of failures, for people: what fails, where in the code, and at which record last."""

from __future__ import annotations

import msgspec

from consumer.dead_letters.cause import NO_ROUTE
from consumer.record import Position

KEPT = 20


class Failure(msgspec.Struct, frozen=True):
    """Failures of one sort; says where they were and never what the record holds."""

    first_at: float
    """Seconds since 1970, as ``last_at``."""
    last_at: float
    times: int
    route: str
    """``none`` when the record came to no route."""
    kind: str
    """How a call failed (``error``, ``timeout``, ``retry``, ``pause``), or why its record became a dead letter."""
    error: str
    """Class and place in the code, or our own sentence."""
    topic: str
    partition: int
    offset: int
    """Of the last one; of a batch its first record."""


class RecentFailures:
    """Keeps the last sorts of failures of one daemon, for as long as it lives; the oldest makes room for a new one.

    A sort is a route, a kind and a place in the code, or a topic's records that are no events: a storm of one sort does
    not drive the others out. Written on the event loop, and read from any thread: each entry is replaced as a whole.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._sorts: dict[tuple[str, str, str], Failure] = {}

    def note(self, at: float, route: str, kind: str, error: str, record: Position) -> None:
        """Note one failure; ``error`` holds no payload."""
        sort = (route, kind, record.topic if route == NO_ROUTE else error)  # the former's sentence says its size
        before = self._sorts.pop(sort, None)
        first_at, times = (before.first_at, before.times + 1) if before is not None else (at, 1)
        self._sorts[sort] = Failure(first_at, at, times, route, kind, error, *record)
        if len(self._sorts) > self._kept:
            del self._sorts[next(iter(self._sorts))]

    @property
    def latest_first(self) -> list[Failure]:
        """What was noted, the latest first."""
        return list(self._sorts.values())[::-1]
