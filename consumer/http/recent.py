"""Calls and dead letters of the last minutes: counters compared with what they were. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

from consumer.dead_letters.cause import NO_ROUTE, REASONS
from consumer.observe.counters import Counters

SLOT_SECONDS = 10.0
WINDOW_SECONDS = 120.0
KEPT_SECONDS = 3600.0
"""Age after which records are forgotten, however few there were since."""
FEWEST = 100
"""Records that the window of a topic has at least, if there were as many within ``KEPT_SECONDS``."""
FAILING_SHARE = 0.05
FAILING_CALLS = 2
DEAD_LETTER_SHARE = 0.01


class RouteTotals(NamedTuple):
    """Totals of one route."""

    total: int
    """Events that were handled, and calls that raised: all calls, but for batches."""
    dead_lettered: int
    failed: int
    """Calls that raised; a Reject is a judgement of the record and does not count."""
    inline_seconds: float
    skipped: int
    """Records that a daemon's only route did not match: their decoding is among its inline seconds."""
    timed: tuple[int, ...]
    """Calls by the bounds of ``handler_seconds``."""
    timed_seconds: float
    """Their sum."""
    batches: int


class TopicTotals(NamedTuple):
    """Totals of one topic."""

    total: int
    """Records that were consumed."""
    letters: tuple[int, ...]
    """Dead letters by ``REASONS``."""


Totals = TypeVar("Totals", RouteTotals, TopicTotals)


class Calls(NamedTuple):
    """Calls of one route within a window."""

    calls: int
    failed: int
    p50: float | None
    p99: float | None


class Letters(NamedTuple):
    """Dead letters of one topic within a window."""

    topic: str
    reason: str
    route: str
    dead_lettered: int
    records: int


class Window(Generic[Totals]):
    """Totals of one route or topic in the last minutes, or back to the last ``fewest`` records."""

    def __init__(self, fewest: int = 0) -> None:
        self._fewest = fewest
        self._totals: deque[tuple[float, Totals]] = deque()

    def note(self, at: float, now: Totals) -> None:
        """Note the totals of now, unless nothing has changed."""
        totals = self._totals
        if not totals or (at - totals[-1][0] >= SLOT_SECONDS and now != totals[-1][1]):
            totals.append((at, now))
        while len(totals) > 1:
            age, count = at - totals[1][0], now.total - totals[1][1].total
            if age < WINDOW_SECONDS or (count < self._fewest and age <= KEPT_SECONDS):
                return
            totals.popleft()

    @property
    def before(self) -> Totals:
        """The totals at its begin."""
        return self._totals[0][1]


class Recent:
    """Totals of the last minutes; written and read by the supervisor's thread, as long-lived as the daemon."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._routes: dict[str, Window[RouteTotals]] = {}
        self._topics: dict[str, Window[TopicTotals]] = {}
        self._since: dict[tuple[str, str], float] = {}
        """Since when a route fails, or a topic has dead letters, by kind and name."""

    def note(self, at: float) -> None:
        """Note the totals at ``at`` (monotonic), and which routes and topics are in trouble; called once a second.

        The window of a topic ends with its last records: one in which nothing follows the bad ones stays in trouble.
        """
        for route in self._counters.routes:
            self._routes.setdefault(route, Window()).note(at, _route_totals(route, self._counters))
        for topic in list(self._counters.records_consumed):
            self._topics.setdefault(topic, Window(FEWEST)).note(at, _topic_totals(topic, self._counters))
        self._note_trouble(at)

    def calls(self, route: str) -> Calls:
        """Return the calls of a route within the window."""
        if route not in self._routes:
            return Calls(0, 0, None, None)
        bounds = self._counters.routes[route].seconds.bounds
        return _calls_between(self._routes[route].before, _route_totals(route, self._counters), bounds)

    def letters(self) -> list[Letters]:
        """Return the topics whose dead letters are a considerable share of their records within the window."""
        found = []
        for topic, window in self._topics.items():
            before, now = window.before, _topic_totals(topic, self._counters)
            reasons = [count - earlier for count, earlier in zip(now.letters, before.letters, strict=True)]
            written, records = sum(reasons), now.total - before.total
            if written and written >= DEAD_LETTER_SHARE * records:
                reason = REASONS[reasons.index(max(reasons))]
                written = min(written, records or written)  # a record has a letter for each route that gave it up
                found.append(Letters(topic, reason, self._route_of(topic, reason), written, max(records, written)))
        return found

    def since(self, kind: str, name: str) -> float | None:
        """Return since when a route (``route``) fails, or a topic (``topic``) has dead letters; None if not."""
        return self._since.get((kind, name))

    def _route_of(self, topic: str, reason: str) -> str:
        """Return the route with most of the dead letters; records that are not events have none.

        Letters are counted by topic and by route. The last failures know which routes had letters of this topic.
        """
        if reason not in ("rejected", "exhausted"):
            return NO_ROUTE
        failures = [each for each in self._counters.failures.latest_first if each.kind == reason]
        routes = [each.route for each in failures if each.topic == topic and each.route in self._routes]
        return max(routes or self._routes, key=self._written, default=NO_ROUTE)

    def _written(self, route: str) -> int:
        return self._counters.routes[route].dead_lettered - self._routes[route].before.dead_lettered

    def _note_trouble(self, at: float) -> None:
        found = {("topic", each.topic) for each in self.letters()}
        for route in self._counters.routes:
            calls = self.calls(route)
            if calls.failed >= max(FAILING_CALLS, FAILING_SHARE * calls.calls):
                found.add(("route", route))
        self._since = {each: self._since.get(each, at) for each in found}


def _topic_totals(topic: str, counters: Counters) -> TopicTotals:
    """Return the totals of a topic; safe to call in any thread."""
    letters = counters.dead_letters
    return TopicTotals(counters.records_consumed[topic], tuple(letters.get((topic, reason), 0) for reason in REASONS))


def _route_totals(name: str, counters: Counters) -> RouteTotals:
    counts, errors = counters.routes[name], counters.handler_errors
    failed = sum(errors[name, kind] for kind in ("retry", "pause", "error", "timeout"))
    return RouteTotals(
        counts.handled + errors[name, "reject"] + failed,
        counts.dead_lettered,
        failed,
        counts.inline_seconds,
        counters.skipped if len(counters.routes) == 1 else 0,
        tuple(counts.seconds.counts),
        counts.seconds.total,
        sum(counts.batches.counts),
    )


def _calls_between(before: RouteTotals, now: RouteTotals, bounds: Sequence[float]) -> Calls:
    failed = now.failed - before.failed
    batches = now.batches - before.batches
    calls = batches or now.total - before.total
    timed = [after - earlier for earlier, after in zip(before.timed, now.timed, strict=True)]
    inline = calls - sum(timed)
    segments = timed_segments(bounds, timed, now.timed_seconds - before.timed_seconds)
    if inline > 0:  # each counts with their mean; the first steps of calls that waited are among these seconds
        slices = inline if batches else calls + now.skipped - before.skipped
        mean = (now.inline_seconds - before.inline_seconds) / slices
        segments.append((mean, mean, inline))
    return Calls(calls, failed, quantile(segments, 0.5), quantile(segments, 0.99))


def timed_segments(bounds: Sequence[float], counts: Sequence[int], total: float) -> list[tuple[float, float, int]]:
    """Return a low, a high and a number of values for each bucket, so that the values add up to about ``total``.

    Buckets are wide: that of a call of 0.1 s reaches to 0.25 s. The values of each lie around a place in it, the same
    share of the way up in all. The last bucket has no upper bound: with values in it the sum does not help.
    """
    buckets = list(zip(pairwise([0.0, *bounds, bounds[-1]]), counts, strict=True))
    lowest = sum(low * count for (low, _), count in buckets)
    widths = sum((high - low) * count for (low, high), count in buckets)
    up = 0.5 if counts[-1] or not widths else min(1.0, max(0.0, (total - lowest) / widths))
    around = min(up, 1.0 - up)
    first, last = up - around, up + around
    return [(low + (high - low) * first, low + (high - low) * last, count) for (low, high), count in buckets]


def quantile(segments: Sequence[tuple[float, float, int]], share: float) -> float | None:
    """Return the value below which a share of the values lies; a segment has a low, a high and a number of values."""
    rank = share * sum(count for *_, count in segments)
    below = 0
    for low, high, count in sorted(segments, key=lambda each: each[1]):
        if count and below + count >= rank:
            return low + (high - low) * (rank - below) / count
        below += count
    return None
