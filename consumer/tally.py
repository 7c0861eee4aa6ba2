"""What happened so far, as plain integers: counted on the hot path, read by metrics at scrape."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from consumer.outcome import Outcome


class RouteTally:
    """Counts of one route: an attribute is a third of the price of a dict's item on the hot path."""

    __slots__ = ("abandoned", "handled", "waiting")

    def __init__(self) -> None:
        self.handled = 0
        self.abandoned = 0
        self.waiting = 0
        """Calls under way that are awaited."""


class Tally:
    """Counters of one daemon, for as long as it lives; written by the engine and the source, read by anyone.

    Each is a number, or a dict from label values to numbers. All label sets that can occur are there at 0 from the
    start, so that a rate can be computed from the first event on.
    """

    def __init__(self, topics: Iterable[str], routes: Iterable[str]) -> None:
        topics, routes = list(topics), list(routes)
        self.routes = {name: RouteTally() for name in routes}
        self.skipped = 0
        self.records_consumed = dict.fromkeys(topics, 0)
        self.bytes_consumed = dict.fromkeys(topics, 0)
        self.decode_errors = dict.fromkeys(product(topics, ["undecodable", "too_large"]), 0)
        self.handler_errors = dict.fromkeys(product(routes, ["error", "timeout"]), 0)
        self.commits = dict.fromkeys(["ok", "failed", "fenced"], 0)
        self.rebalances = dict.fromkeys(["assigned", "revoked", "lost"], 0)
        self.offset_resets = dict.fromkeys(product(topics, ["no_offset", "out_of_range"]), 0)
        self.last_poll_timestamp = 0.0
        self.last_commit_timestamp = 0.0

    @property
    def outcomes(self) -> dict[tuple[str, Outcome], int]:
        """Outcomes by route; what no route wanted is skipped under the route ``none``."""
        handled = {(name, Outcome.HANDLED): counts.handled for name, counts in self.routes.items()}
        return handled | {("none", Outcome.SKIPPED): self.skipped}

    @property
    def abandoned(self) -> dict[str, int]:
        """Calls left undone when a drain's time was up, by route."""
        return {name: counts.abandoned for name, counts in self.routes.items()}
