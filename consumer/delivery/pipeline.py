"""The decoders and the routes that all partitions of an engine share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from consumer.delivery.decoding import Decoder
from consumer.record import RawRecord, TopicPartition
from consumer.routes.route import Route, is_single


class Choice(NamedTuple):
    """How one record is decoded, and who gets its event."""

    decoder: Decoder
    routes: Callable[[Any], Sequence[Route]]
    """Takes an event, None for a tombstone; returns the routes that get it."""


Choose = Callable[[TopicPartition, RawRecord], Choice | None]
"""Takes a partition and a raw record of it; returns how it is decoded and routed, or None to skip it undecoded."""


class Pipeline(NamedTuple):
    """The decoder and the routes of one topic; immutable."""

    decoder: Decoder
    routes: Sequence[Route]
    choose: Choose | None = None
    """Chooses a record's routes instead of their matches; used by a redrive."""

    @property
    def only(self) -> Route | None:
        """The only route; None if there are several, if it takes tombstones, or if ``choose`` is set."""
        return self.routes[0] if is_single(self.routes) and self.choose is None else None


class Pipelines(NamedTuple):
    """The pipeline of each topic of an engine."""

    routes: Sequence[Route]
    of: Callable[[str], Pipeline]
    """Takes a topic."""

    @property
    def flushes(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """The ``flush`` of each handler that has one, by route name."""
        return {route.name: route.handler.flush for route in self.routes if route.handler.flush is not None}

    @property
    def flush_seconds(self) -> float:
        """Interval between flushes: the largest ``flush_seconds`` of all routes; 0 if no route sets it."""
        return max((route.handler.flush_seconds for route in self.routes), default=0.0)
