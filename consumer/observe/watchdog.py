"""The watchdog: distinguishes a stall from waiting, rebalancing, holding and a halt.

Runs in a separate thread (``supervisor.py``), because a blocked event loop is one of the faults. Everything that a
partition waits for has its own clock and its own limit (``process/waits.py``); the watchdog compares them with the
time, which is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Literal, NamedTuple

from consumer.observe.waiting import CallUnderWay, Kind, Waiting
from consumer.record import TopicPartition

BROKER_AWAY_SECONDS = 30.0
SUSPENDED_SECONDS = 15.0
"""Time between two looks after which the process was suspended: no clock may count that time."""


class Vital(NamedTuple):
    """What one partition waits for."""

    key: TopicPartition
    waits: Sequence[Waiting]
    progress: tuple[int, int] | None
    """Its position and the offset below which all is done, if it has work and nothing says why it waits."""


class Vitals(NamedTuple):
    """The progress of the daemon, read from its objects without a request."""

    beat: float
    """Monotonic time of the last round of the event loop."""
    heard_at: float
    """Monotonic time of a broker's last answer; -inf before the group is joined."""
    group_since: float | None
    """Monotonic time since which the daemon waits for its group; None if it does not."""
    partitions: Sequence[Vital]
    client: int = 0
    """Number of the Kafka client. What stood still with an earlier client starts again with this one."""


StallKind = Literal["loop"] | Kind


class Stall(NamedTuple):
    """A stall: work waits and nothing moves."""

    kind: StallKind
    partitions: tuple[TopicPartition, ...]
    """The partitions concerned; empty if the stall concerns the daemon."""
    since: float
    """Monotonic time of the last progress."""
    late_at: float
    """Monotonic time since which it is a stall."""
    call: CallUnderWay | None = None
    """The call that should have ended first, if calls do not end."""
    call_of: TopicPartition | None = None
    """Its partition."""

    def __str__(self) -> str:
        return f"{MESSAGES[self.kind]}{f' ({self.where})' if self.partitions else ''}"

    @property
    def where(self) -> str:
        """The partitions concerned, as text."""
        return ", ".join(map(str, self.partitions))


MESSAGES: dict[StallKind, str] = {
    "loop": "the event loop is blocked, most likely by a handler that waits without await",
    "call": "a handler's call does not end",
    "earlier_epoch": "a call of the partition's earlier epoch does not end",
    "flush": "a handler's flush does not end",
    "batch": "a batch is not called",
    "progress": "records are under way and none is finished",
    "position": "the group's offset does not arrive",
    "data": "records wait at the brokers and none arrives",
    "commit": "finished records are not committed",
    "group": "the group does not answer, or assigns no partitions",
}
CURABLE: frozenset[StallKind] = frozenset({"position", "data", "commit", "group"})
"""Kinds of stalls that a new Kafka client may end."""


class Limits(NamedTuple):
    """Seconds after which what is not a partition's wait is a stall."""

    stalled: float
    group: float
    away: float = BROKER_AWAY_SECONDS
    """Seconds without an answer of a broker after which nothing is expected to move, because an outage is no stall.
    Shorter than the other limits, or each outage would be a stall."""


class Watchdog:
    """Compares what is waited for with its limits; used by one thread."""

    def __init__(self, limits: Limits) -> None:
        self.stall: Stall | None = None
        """What the last look found."""
        self._limits = limits
        self._looked_at: float | None = None
        self._resumed_at = float("-inf")
        """Time before which no clock counts: the process was suspended until then."""
        self._counts_from = float("-inf")
        """Time before which no clock counts but the loop's: brokers were away, or the client was replaced."""
        self._client = 0
        self._progress: dict[TopicPartition, tuple[tuple[int, int], float]] = {}
        """Progress of each partition that cannot say what it waits for, and since when it has not changed."""

    def look(self, now: float, vitals: Vitals) -> Stall | None:
        """Return the worst stall at ``now`` (monotonic seconds), or None."""
        if self._looked_at is not None and now - self._looked_at > SUSPENDED_SECONDS:
            self._resumed_at = self._counts_from = now
        self._looked_at = now
        if now - vitals.heard_at > self._limits.away or vitals.client != self._client:
            self._counts_from = now
        self._client = vitals.client
        self.stall = self._blocked(now, vitals) or self._late(now, vitals)
        return self.stall

    def _blocked(self, now: float, vitals: Vitals) -> Stall | None:
        since = max(vitals.beat, self._resumed_at)
        late_at = since + self._limits.stalled
        return Stall("loop", (), since, late_at) if now > late_at else None

    def _late(self, now: float, vitals: Vitals) -> Stall | None:
        """Return the stall of the first kind in ``MESSAGES``, with every partition that it concerns."""
        waits: list[tuple[TopicPartition | None, Waiting]] = []
        since = vitals.group_since
        if since is not None:
            self._progress.clear()
            waits.append((None, Waiting("group", since, late_at=since + self._limits.group)))
        else:
            waits += [(each.key, wait) for each in vitals.partitions for wait in each.waits]
            waits += self._without_progress(now, vitals.partitions)
        late: dict[StallKind, list[tuple[TopicPartition | None, Waiting, float]]] = {}
        for key, wait in waits:
            late_at = wait.late_at + max(0.0, self._counts_from - wait.since)
            if now > late_at:
                late.setdefault(wait.kind, []).append((key, wait, late_at))
        for kind in MESSAGES:
            if found := late.get(kind):
                keys = tuple(sorted(key for key, *_ in found if key is not None))
                key, first, late_at = min(found, key=itemgetter(2))
                return Stall(kind, keys, min(wait.since for _, wait, _ in found), late_at, first.call, key)
        return None

    def _without_progress(self, now: float, partitions: Sequence[Vital]) -> list[tuple[TopicPartition, Waiting]]:
        before = self._progress
        self._progress = {}
        for key, _, progress in partitions:
            if progress is not None:
                known = before.get(key)
                self._progress[key] = known if known is not None and known[0] == progress else (progress, now)
        return [
            (key, Waiting("progress", since, late_at=since + self._limits.stalled))
            for key, (_, since) in self._progress.items()
        ]
