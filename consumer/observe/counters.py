"""Counters as plain integers: written on the hot path, read by the metrics at a scrape."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from consumer.dead_letters.cause import REASONS
from consumer.observe.histogram import (
    BATCH_RECORDS,
    COMMIT_SECONDS,
    HANDLER_SECONDS,
    MOVE_SECONDS,
    RECORD_AGE_SECONDS,
    Histogram,
)
from consumer.observe.recent_failures import RecentFailures
from consumer.outcome import Outcome

REBUILDS = ("task_ended", "error", "deaf", "position", "data", "commit", "group")
"""Reasons to replace a Kafka client."""

WAITED_SECONDS = 0.0001
"""A shorter call did not wait for anything, and counts as inline."""


class RouteCounters:
    """Counters of one route; on the hot path an attribute costs a third of a dict's item."""

    __slots__ = ("abandoned", "batches", "dead_lettered", "handled", "inline_seconds", "retries", "seconds", "waiting")

    def __init__(self) -> None:
        self.handled = 0
        self.dead_lettered = 0
        self.retries = 0
        self.abandoned = 0
        self.waiting = 0
        """Awaited calls that are under way."""
        self.inline_seconds = 0.0
        """Seconds that its calls kept the event loop, decoding included."""
        self.seconds = Histogram(HANDLER_SECONDS)
        """Durations of calls that waited, and of batch calls."""
        self.batches = Histogram(BATCH_RECORDS)

    def took(self, seconds: float) -> None:
        """Note the duration of a call."""
        if seconds < WAITED_SECONDS:
            self.inline_seconds += seconds
        else:
            self.seconds.observe(seconds)


class Counters:
    """Counters of one daemon, as long-lived; written by the engine and the source, read by any thread.

    Each is a number, or a dict from label values to numbers. All label values exist from the start, at 0, so that a
    rate can be computed from the first event on. A dict by topic may grow (``know``) while another thread reads it: the
    reader copies it in one call, ``dict(…)`` or ``list(….items())``, before it iterates.
    """

    def __init__(self, topics: Iterable[str], routes: Iterable[str]) -> None:
        routes = list(routes)
        self.routes = {name: RouteCounters() for name in routes}
        self.no_route = RouteCounters()
        """Counts of records that reached no route because they could not be decoded."""
        self.skipped = 0
        self.records_consumed: dict[str, int] = {}
        self.bytes_consumed: dict[str, int] = {}
        self.decode_errors: dict[tuple[str, str], int] = {}
        self.handler_errors = dict.fromkeys(product(routes, ["reject", "retry", "pause", "error", "timeout"]), 0)
        self.dead_letters: dict[tuple[str, str], int] = {}
        self.commits = dict.fromkeys(["ok", "failed", "fenced"], 0)
        self.rebalances = dict.fromkeys(["assigned", "revoked", "lost", "slow"], 0)
        self.moves = {phase: Histogram(MOVE_SECONDS) for phase in ("revoked", "assigned")}
        """Seconds for which a partition that moved stood still at this member, in each half of the move."""
        self.offset_resets: dict[tuple[str, str], int] = {}
        self.client_rebuilds = dict.fromkeys(REBUILDS, 0)
        self.record_age: dict[str, Histogram] = {}
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.failures = RecentFailures()
        self.last_poll_timestamp = 0.0
        self.letter_taken_at = float("-inf")
        """Monotonic time at which Kafka took the last dead letter."""
        self.last_commit_timestamp = 0.0
        self.know(topics)

    def know(self, topics: Iterable[str]) -> None:
        """Begin to count for topics, at 0; those that are known stay as they are."""
        for topic in topics:
            if topic not in self.record_age:
                self.records_consumed[topic] = self.bytes_consumed[topic] = 0
                self.decode_errors |= dict.fromkeys(product([topic], ["undecodable", "too_large", "bad_header"]), 0)
                self.dead_letters |= dict.fromkeys(product([topic], REASONS), 0)
                self.offset_resets |= dict.fromkeys(product([topic], ["no_offset", "out_of_range"]), 0)
                self.record_age[topic] = Histogram(RECORD_AGE_SECONDS)

    @property
    def consumed(self) -> int:
        """Number of records that were consumed, of all topics."""
        return sum(self.records_consumed.values())

    def of(self, route: str) -> RouteCounters:
        """Return the counters of one route, or of ``none``."""
        return self.routes.get(route, self.no_route)

    @property
    def outcomes(self) -> dict[tuple[str, Outcome], int]:
        """Outcomes by route; events that no route matched are skipped under the route ``none``."""
        found = {("none", Outcome.SKIPPED): self.skipped, ("none", Outcome.DEAD_LETTERED): self.no_route.dead_lettered}
        for name, counts in self.routes.items():
            found[name, Outcome.HANDLED] = counts.handled
            found[name, Outcome.DEAD_LETTERED] = counts.dead_lettered
        return found

    @property
    def abandoned(self) -> dict[str, int]:
        """Records left undone at a stop or a rebalance, by route: the drain ended first, or they waited."""
        return {name: counts.abandoned for name, counts in (self.routes | {"none": self.no_route}).items()}
