"""Calls and dead letters of the last minutes: counters compared with what they were. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from consumer.dead_letters.cause import NO_ROUTE
from consumer.observe.counters import Counters, RouteCounters

SLOT_SECONDS = 10.0
WINDOW_SECONDS = 120.0
KEPT_SECONDS = 3600.0
"""Age after which totals are forgotten, however few records there were since."""
FEWEST = 100
"""Records that a window has at least, if there were so many within ``KEPT_SECONDS``."""
FAILING_SHARE = 0.05
FAILING_CALLS = 2
DEAD_LETTER_SHARE = 0.01


class RouteTotals(NamedTuple):
    """Totals of one route."""

    handled: int
    dead_lettered: int
    failed: int
    """Calls that raised; a Reject is a judgement of the record and counts not."""
    rejected: int
    inline_seconds: float
    timed: tuple[int, ...]
    """Calls by the bounds of ``handler_seconds``."""
    timed_seconds: float
    """Their sum."""
    batches: int


class Totals(NamedTuple):
    """Totals of all counters at one time."""

    at: float
    consumed: Mapping[str, int]
    letters: Mapping[tuple[str, str], int]
    """Dead letters by topic and reason."""
    routes: Mapping[str, RouteTotals]


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


class Recent:
    """Totals of the last minutes; written and read by the supervisor's thread, as long-lived as the daemon."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._totals: deque[Totals] = deque()
        self._since: dict[tuple[str, str], float] = {}
        """Since when a route fails, or a topic has dead letters, by kind and name."""

    def note(self, at: float) -> None:
        """Note the totals of now, and which routes and topics are in trouble; called about once a second.

        The window ends with the last records: a topic in which nothing follows the bad ones stays in trouble.
        """
        now = totals(self._counters, at)
        if not self._totals:
            self._totals.append(now)
        last = self._totals[-1]
        if at - last.at >= SLOT_SECONDS and now[1:] != last[1:]:
            self._totals.append(now)
        while len(self._totals) > 1 and self._is_spare(now):
            self._totals.popleft()
        self._note_trouble(now)

    def calls(self, route: str) -> Calls:
        """Return the calls of a route within the window."""
        if not self._totals:
            return Calls(0, 0, None, None)
        before, counts = self._totals[0].routes[route], self._counters.routes[route]
        return _calls_between(before, _route_totals(route, counts, self._counters), counts.seconds.bounds)

    def letters(self) -> list[Letters]:
        """Return the topics whose dead letters are a considerable share of their records within the window."""
        if not self._totals:
            return []
        return _letters_between(self._totals[0], totals(self._counters, 0.0))

    def since(self, kind: str, name: str) -> float | None:
        """Return since when a route (``route``) fails, or a topic (``topic``) has dead letters; None if not."""
        return self._since.get((kind, name))

    def _is_spare(self, now: Totals) -> bool:
        """Whether the window is long enough without its oldest totals."""
        second = self._totals[1]
        if now.at - second.at < WINDOW_SECONDS:
            return False
        enough = sum(now.consumed.values()) - sum(second.consumed.values()) >= FEWEST
        return enough or now.at - self._totals[0].at > KEPT_SECONDS

    def _note_trouble(self, now: Totals) -> None:
        found = {("topic", each.topic) for each in self.letters()}
        for route in self._counters.routes:
            calls = self.calls(route)
            if calls.failed >= max(FAILING_CALLS, FAILING_SHARE * calls.calls):
                found.add(("route", route))
        self._since = {each: self._since.get(each, now.at) for each in found}


def totals(counters: Counters, at: float) -> Totals:
    """Return the totals of counters; safe to call in any thread."""
    return Totals(
        at,
        dict(counters.records_consumed),
        dict(counters.dead_letters),
        {name: _route_totals(name, counts, counters) for name, counts in counters.routes.items()},
    )


def _route_totals(name: str, counts: RouteCounters, counters: Counters) -> RouteTotals:
    errors = counters.handler_errors
    rejected = errors[name, "reject"]
    return RouteTotals(
        counts.handled,
        counts.dead_lettered,
        sum(errors[name, kind] for kind in ("retry", "pause", "error", "timeout")),
        rejected,
        counts.inline_seconds,
        tuple(counts.seconds.counts),
        counts.seconds.total,
        sum(counts.batches.counts),
    )


def _calls_between(before: RouteTotals, now: RouteTotals, bounds: Sequence[float]) -> Calls:
    failed = now.failed - before.failed
    calls = now.batches - before.batches or now.handled + now.rejected - before.handled - before.rejected + failed
    timed = [after - earlier for earlier, after in zip(before.timed, now.timed, strict=True)]
    inline = calls - sum(timed)
    segments = timed_segments(bounds, timed, now.timed_seconds - before.timed_seconds)
    if inline > 0:  # each counts with their mean
        mean = (now.inline_seconds - before.inline_seconds) / inline
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


def _letters_between(before: Totals, now: Totals) -> list[Letters]:
    found = []
    for topic, consumed in now.consumed.items():
        reasons = {
            reason: count - before.letters.get((of, reason), 0)
            for (of, reason), count in now.letters.items()
            if of == topic
        }
        written, records = sum(reasons.values()), consumed - before.consumed.get(topic, 0)
        if written and written >= DEAD_LETTER_SHARE * records:
            reason = max(reasons, key=reasons.__getitem__)
            route = _route_of(reason, before, now)
            found.append(Letters(topic, reason, route, written, max(records, written)))
    return found


def _route_of(reason: str, before: Totals, now: Totals) -> str:
    """Return the route with most of the dead letters; records that are not events have none."""
    if reason not in ("rejected", "exhausted"):
        return NO_ROUTE
    written = {name: now.routes[name].dead_lettered - each.dead_lettered for name, each in before.routes.items()}
    return max(written, key=written.__getitem__, default=NO_ROUTE)
