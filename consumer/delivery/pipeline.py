"""From a raw record to the routes that get it; the same for every partition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from consumer.delivery.decoding import Decoder
from consumer.record import RawRecord, TopicPartition
from consumer.routes.route import Route, is_single

Choice = Callable[[Any], Sequence[Route]]
"""Takes an event, None for a tombstone; returns the routes that get it."""
Choose = Callable[[TopicPartition, RawRecord], Choice | None]
"""Takes a partition and a raw record of it; returns how its routes are chosen, or None when it is not even decoded."""


class Pipeline(NamedTuple):
    """The decoder and the routes of an engine; never changes."""

    decoder: Decoder
    routes: Sequence[Route]
    choose: Choose | None = None
    """Chooses a record's routes in place of their matches: for a redrive."""

    @property
    def only(self) -> Route | None:
        """The route that gets every record, if there is only one; tombstones go to none then."""
        return self.routes[0] if is_single(self.routes) and self.choose is None else None

    @property
    def flushes(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Flushes of the handlers that have one, by route."""
        return {route.name: route.handler.flush for route in self.routes if route.handler.flush is not None}

    @property
    def flush_seconds(self) -> float:
        """Least interval between two flushes that any route asks for; 0 without one."""
        return max((route.handler.flush_seconds for route in self.routes), default=0.0)
