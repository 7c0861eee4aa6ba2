"""Whether the daemon does what it should: the one that tells *stalled* from waiting, rebalancing, holding or halted.

Looked at from a thread of its own (``supervisor.py``), since a blocked event loop is one of the faults. Pure:
it compares what it sees now with what it saw before, and time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from consumer.record import TopicPartition

BROKER_AWAY_SECONDS = 30.0


class Vital(NamedTuple):
    """What one partition is at; offsets mean "next to read"."""

    key: TopicPartition
    position: int
    done: int
    committed: int
    commit_due: bool
    """Whether there is something to commit."""
    end_offset: int
    """Where it ended for this reader a few seconds ago; its position when that is not known yet."""
    idle: bool
    """Whether it waits for data."""
    excused: bool
    """Whether it rightly stands still: halted, holding, or waiting for a retry."""


class Vitals(NamedTuple):
    """What the daemon is at; read from its own objects, without asking anybody."""

    beat: float
    """Monotonic time at which the event loop last went round."""
    heard_at: float
    """Monotonic time at which a broker last answered; -inf before the group was joined."""
    rebalancing: bool
    """Whether it waits for the group: for an assignment, or to be heard of again."""
    flushing: bool
    """Whether commits wait for a handler's flush, or for one that fails."""
    partitions: Sequence[Vital]
    client: int = 0
    """Which one it is; what stood still with an earlier one says nothing of this one."""


Kind = Literal["loop", "call", "fetch", "commit", "rebalance"]


class Stall(NamedTuple):
    """Work waits and nothing moves."""

    kind: Kind
    where: str
    """Partitions, or nothing."""
    since: float
    """Monotonic time."""

    def __str__(self) -> str:
        return f"{SAID[self.kind]}{f' ({self.where})' if self.where else ''}"


SAID: dict[Kind, str] = {
    "loop": "the event loop is blocked, most likely by a handler that waits without await",
    "call": "a handler's call does not end",
    "fetch": "records wait at the brokers and none arrives",
    "commit": "what is done is not committed",
    "rebalance": "the group does not answer, or comes to no assignment",
}
CURABLE: frozenset[Kind] = frozenset({"fetch", "commit", "rebalance"})
"""What another client may cure."""


class Limits(NamedTuple):
    """For how long each kind may stand still, in seconds."""

    stalled: float
    commit: float
    """Longer than a request, whose end frees a commit by itself."""
    rebalance: float
    away: float = BROKER_AWAY_SECONDS
    """Silence of the brokers after which nothing is expected to move: an outage is nobody's stall. Shorter than the
    others, or each outage would be one."""

    def of(self, kind: Kind) -> float:
        """Return the limit of one kind."""
        return {"commit": self.commit, "rebalance": self.rebalance}.get(kind, self.stalled)


class Watchdog:
    """Remembers since when each thing has not moved; looked at by one thread."""

    def __init__(self, limits: Limits) -> None:
        self.stall: Stall | None = None
        """What the last look found."""
        self._limits = limits
        self._watched: dict[tuple[Kind, TopicPartition | None], tuple[int, float]] = {}
        """For each thing that should move: how far it was, and since when."""
        self._client = 0

    def look(self, now: float, vitals: Vitals) -> Stall | None:
        """Return what has stood still for too long at ``now`` (monotonic seconds); the worst first."""
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
        """Say what of a partition should move, and where it is."""
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
        for kind in SAID:
            limit = self._limits.of(kind)
            late = {key: since for (k, key), (_, since) in self._watched.items() if k == kind and now - since > limit}
            if late:
                where = ", ".join(str(key) for key in sorted(key for key in late if key is not None))
                return Stall(kind, where, min(late.values()))
        return None
