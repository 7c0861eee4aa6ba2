"""What each partition waits for, and when that is a stall: every limit follows from the settings that govern it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from consumer.delivery.engine import Engine
from consumer.delivery.worker import Workers
from consumer.observe.waiting import CallUnderWay, Kind, Waiting
from consumer.observe.watchdog import Vital
from consumer.partition.hold import Hold
from consumer.partition.state import Phase
from consumer.record import TopicPartition
from consumer.routes.route import Route

HELD: Mapping[str, Kind] = {
    "retry": "retry",
    "error": "retry",
    "timeout": "retry",
    "pause": "pause",
    "dead_letter": "letter",
    "group": "group",
}
"""What a hold of each kind waits for."""
EXPLAIN: frozenset[Kind] = frozenset(
    {"earlier_epoch", "position", "call", "batch", "retry", "pause", "letter", "group", "drain", "halt"}
)
"""Waits that say why records are under way and none is finished."""


def loop_waits_for(engine: Engine) -> str:
    """Return what an idle event loop waits for: a state of ``loop_seconds_total``."""
    if engine.leaving:
        return "drain"
    for each in engine.workers:
        if (not each.idle or each.partition.held_records) and not each.partition.ended:  # calls are under way
            return "backpressure"
    return "commit" if engine.committer.busy else "poll"


def oldest_call(engine: Engine, key: TopicPartition) -> float:
    """Return the age in seconds of the oldest call of a partition that is under way; 0 without one."""
    began = [call.since for each in engine.workers if each.partition.key == key for call in each.calls]
    return time.monotonic() - min(began) if began else 0.0


class WaitLimits(NamedTuple):
    """Seconds after which each wait is a stall, counted from the time at which it should have ended."""

    stalled: float
    """For a call, a batch, a position, data, and an earlier epoch's call."""
    flush: float
    commit: float
    """Longer than the timeout of a request, which ends a commit by itself."""
    drain: float
    """Length of a drain, which ends by itself."""
    measured: float
    """Maximum age of an end offset that counts; if it is older, the partition's leader does not answer."""


class Waits:
    """Reads what partitions wait for, from any thread; owned by the daemon and as long-lived as its engine."""

    def __init__(self, engine: Engine, routes: Sequence[Route], limits: WaitLimits) -> None:
        self._engine = engine
        self._handlers = {route.name: route.handler for route in routes}
        self._longest = max((route.handler.timeout_seconds or 0.0 for route in routes), default=0.0)
        self._limits = limits

    def read(self, now: float, wall: float) -> list[Vital]:
        """Return what every owned partition waits for at ``now`` (monotonic) and ``wall``."""
        return [self._vital(workers, now, wall) for workers in self._engine.workers]

    def unbegun(self, given: Mapping[TopicPartition, float]) -> list[Vital]:
        """Return the waits of partitions that the group gave at these times, and that have not begun.

        They begin when what is let go of has been drained.
        """
        seconds = self._limits.drain + self._limits.stalled
        return [Vital(key, [Waiting("position", since, None, since + seconds)], None) for key, since in given.items()]

    def _vital(self, workers: Workers, now: float, wall: float) -> Vital:
        waits, partition = self.of(workers, now, wall), workers.partition
        done, position = partition.done, partition.position or 0
        works = not workers.idle or done < position
        explained = partition.ended or any(each.kind in EXPLAIN for each in waits)
        return Vital(partition.key, waits, (position, done) if works and not explained else None)

    def of(self, workers: Workers, now: float, wall: float) -> list[Waiting]:
        """Return what a partition waits for; empty while it works, or if it knows nothing to wait for."""
        partition = workers.partition
        if partition.phase in (Phase.CLOSING, Phase.OVER):
            return [Waiting("drain", workers.closed_at, workers.closed_at + self._limits.drain)]
        halt = [Waiting("halt", workers.closed_at)] if partition.phase is Phase.HALTED else []
        holds = self._holds(workers, now, wall)
        return [*halt, *self._calls(workers), *holds, *self._intake(workers, now), *self._commit(workers)]

    def _calls(self, workers: Workers) -> Iterator[Waiting]:
        """Yield the call under way that should end first, and the batches that are collected."""
        calls = list(map(self._call, workers.calls))
        if calls:
            yield min(calls, key=lambda each: (each.late_at, each.since))
        for since, seconds in workers.collecting:
            yield Waiting("batch", since, since + seconds, since + seconds + self._limits.stalled)

    def _call(self, call: CallUnderWay) -> Waiting:
        """Return the wait for a call; one that waits for a thread has not begun while threads end other calls."""
        since, handler = call.since, self._handlers[call.route]
        begun = handler.running_since() if handler.running_since is not None else None
        seconds = handler.timeout_seconds
        late_at = max(since, begun or since) + (seconds or 0.0) + self._limits.stalled
        return Waiting("call", since, since + seconds if seconds is not None else None, late_at, call)

    @staticmethod
    def _holds(workers: Workers, now: float, wall: float) -> Iterator[Waiting]:
        found: dict[Kind, list[Hold]] = {}
        for hold in list(workers.partition.holds):
            found.setdefault(HELD.get(hold.kind, "retry"), []).append(hold)
        for kind, holds in found.items():
            since = min(hold.since for hold in holds)
            until = min((hold.next_at for hold in holds if hold.next_at is not None), default=None)
            yield Waiting(kind, now - (wall - since), None if until is None else now - (wall - until))

    def _intake(self, workers: Workers, now: float) -> Iterator[Waiting]:
        """Yield what keeps a partition from taking records: an earlier epoch, its position, data or room."""
        partition, stalled = workers.partition, self._limits.stalled
        lag = partition.lag
        answers = lag.end_offset is not None and lag.measured_at >= now - self._limits.measured
        if partition.ended:
            return
        if workers.waits_for_earlier:
            until = workers.begun_at + self._longest
            yield Waiting("earlier_epoch", workers.begun_at, until if self._longest else None, until + stalled)
        elif not partition.started:
            yield Waiting("position", workers.begun_at, None, workers.begun_at + stalled if answers else math.inf)
        elif workers.gone_since is not None:
            settled_at = workers.settled_at
            yield Waiting(
                "position", workers.gone_since, None, math.inf if settled_at is None else settled_at + stalled
            )
        elif workers.idle:
            ahead = lag.ahead_since(workers.partition.position or 0) if answers else None
            since = workers.idle_since
            yield Waiting("data", since, None, math.inf if ahead is None else max(ahead, since) + stalled)
        elif not workers.has_room():
            yield Waiting("room", workers.idle_since)

    def _commit(self, workers: Workers) -> Iterator[Waiting]:
        """Yield the flush or the commit that finished records wait for."""
        partition, committer = workers.partition, self._engine.committer
        flush = committer.flush
        if partition.to_commit is None:
            return
        if flush is not None:
            seconds = self._handlers[flush.route].timeout_seconds or 0.0
            late_at = math.inf if flush.failed else flush.since + seconds + self._limits.flush
            yield Waiting("flush", flush.since, None, late_at)
            return
        since = max(committer.cleared_at, workers.begun_at)
        until = since + self._engine.commit_seconds
        yield Waiting("commit", since, until, until + self._limits.commit)
