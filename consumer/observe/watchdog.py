"""The watchdog: distinguishes a stall from waiting, rebalancing, holding and a halt.

Runs in a separate thread (``supervisor.py``), because a blocked event loop is one of the faults. It compares the state
now with the state before, and takes the time as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from consumer.record import TopicPartition

BROKER_AWAY_SECONDS = 30.0


class Vital(NamedTuple):
    """The progress of one partition; offsets mean "next to read"."""

    key: TopicPartition
    position: int
    done: int
    committed: int
    commit_due: bool
    """Whether there is something to commit."""
    end_offset: int
    """End offset for this reader, measured a few seconds ago; the position if it is not known."""
    idle: bool
    """Whether the partition waits for data."""
    excused: bool
    """Whether it may stand still: it is halted, holding, or waits for a retry."""


class Vitals(NamedTuple):
    """The progress of the daemon, read from its objects without a request."""

    beat: float
    """Monotonic time of the last round of the event loop."""
    heard_at: float
    """Monotonic time of a broker's last answer; -inf before the group is joined."""
    rebalancing: bool
    """Whether the daemon waits for the group: for an assignment, or for an answer to its heartbeats."""
    flushing: bool
    """Whether commits wait for a handler's flush, which runs or failed."""
    partitions: Sequence[Vital]
    client: int = 0
    """Number of the Kafka client. What stood still with an earlier client starts again with this one."""


Kind = Literal["loop", "call", "fetch", "commit", "rebalance"]


class Stall(NamedTuple):
    """A stall: work waits and nothing moves."""

    kind: Kind
    where: str
    """The partitions concerned; empty if the stall concerns the daemon."""
    since: float
    """Monotonic time of the last progress."""

    def __str__(self) -> str:
        return f"{MESSAGES[self.kind]}{f' ({self.where})' if self.where else ''}"


MESSAGES: dict[Kind, str] = {
    "loop": "the event loop is blocked, most likely by a handler that waits without await",
    "call": "a handler's call does not end",
    "fetch": "records wait at the brokers and none arrives",
    "commit": "finished records are not committed",
    "rebalance": "the group does not answer, or assigns no partitions",
}
CURABLE: frozenset[Kind] = frozenset({"fetch", "commit", "rebalance"})
"""Kinds of stalls that a new Kafka client may end."""


class Limits(NamedTuple):
    """Seconds after which each kind of standstill is a stall."""

    stalled: float
    commit: float
    """Longer than the timeout of a request, which ends a commit by itself."""
    rebalance: float
    away: float = BROKER_AWAY_SECONDS
    """Seconds without an answer of a broker after which nothing is expected to move, because an outage is no stall.
    Shorter than the other limits, or each outage would be a stall."""

    def of(self, kind: Kind) -> float:
        """Return the limit of one kind."""
        return {"commit": self.commit, "rebalance": self.rebalance}.get(kind, self.stalled)


class Watchdog:
    """Notes since when each thing has not moved; used by one thread."""

    def __init__(self, limits: Limits) -> None:
        self.stall: Stall | None = None
        """What the last look found."""
        self._limits = limits
        self._watched: dict[tuple[Kind, TopicPartition | None], tuple[int, float]] = {}
        """Progress, and the time since which it has not changed, of each thing that should move."""
        self._client = 0

    def look(self, now: float, vitals: Vitals) -> Stall | None:
        """Return the worst stall at ``now`` (monotonic seconds), or None."""
        self.stall = self._look(now, vitals)
        return self.stall

    def _look(self, now: float, vitals: Vitals) -> Stall | None:
        if now - vitals.beat > self._limits.stalled:
            return Stall("loop", "", vitals.beat)
        seen: dict[tuple[Kind, TopicPartition | None], int] = {}
        if now - vitals.heard_at <= self._limits.away:
            if vitals.rebalancing:
                seen["rebalance", None] = 0
            for each in vitals.partitions if not vitals.rebalancing else ():
                seen |= self._expected(each, flushing=vitals.flushing)
        before = self._watched if vitals.client == self._client else {}
        self._client = vitals.client
        self._watched = {
            what: before[what] if what in before and before[what][0] == mark else (mark, now)
            for what, mark in seen.items()
        }
        return self._worst(now)

    @staticmethod
    def _expected(each: Vital, *, flushing: bool) -> dict[tuple[Kind, TopicPartition | None], int]:
        """Return what should move in a partition, with its progress."""
        expected: dict[tuple[Kind, TopicPartition | None], int] = {}
        if each.excused:
            return expected
        if each.idle and each.position < each.end_offset:
            expected["fetch", each.key] = each.position
        if not each.idle or each.done < each.position:
            expected["call", each.key] = each.done
        if each.commit_due and not flushing:
            expected["commit", each.key] = each.committed
        return expected

    def _worst(self, now: float) -> Stall | None:
        for kind in MESSAGES:
            limit = self._limits.of(kind)
            late = {key: since for (k, key), (_, since) in self._watched.items() if k == kind and now - since > limit}
            if late:
                where = ", ".join(str(key) for key in sorted(key for key in late if key is not None))
                return Stall(kind, where, min(late.values()))
        return None
