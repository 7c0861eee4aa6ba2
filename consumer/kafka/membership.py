"""This member of a consumer group (KIP-848): what its next heartbeat says, and what each answer changes. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from consumer.kafka.group_errors import FENCED_MEMBER_EPOCH, Reaction, reaction
from consumer.kafka.wire import tagged
from consumer.kafka.wire_requests import HeartbeatRequest

EAGER_SECONDS = 0.1
"""Seconds between heartbeats for a while after a change: others may wait for this member, or it for them."""
LEAST_EAGER_SECONDS = 10.0
"""Length of that while: two of the broker's intervals, and at least this: a drain of others may take as long."""
MOST_SECONDS = 1.0
"""Maximum seconds between heartbeats, whatever the broker's interval: this member hears of a change with its next."""
LATE_SECONDS = 3.0
"""Silence of the coordinator after which a member whose revocation takes too long may have been removed unheard."""
JOIN, LEAVE, LEAVE_FOR_A_WHILE = 0, -1, -2
UNCHANGED_MS = -1


class Place(NamedTuple):
    """A partition as the coordinator names it."""

    topic_id: UUID
    partition: int


class Subscription(NamedTuple):
    """What a member says of itself when it joins, and after each failure."""

    group_id: str
    instance_id: str | None
    rebalance_timeout_ms: int
    topics: list[str] | None
    """None with a regular expression."""
    regex: str | None
    assignor: str | None


class Membership:
    """The member's state; owned by the source and as long-lived: its id never changes.

    Invariants:
    - the owned list of a request is empty at a join, and never missing after a failure
    - a list has all that may be used, whether it has begun or not
    - an assignment is acknowledged once nothing is left of what it took away, even if nothing was
    - an epoch that is not positive, and an interval that is not, are never adopted
    """

    def __init__(self, subscription: Subscription) -> None:
        self.member_id = str(uuid4())
        self.epoch = JOIN
        """0 while this member is in no group."""
        self.known = False
        """Whether the coordinator may know this member: a heartbeat was sent, and no leave was answered."""
        self.life = 0
        """How often this member was thrown out of its group."""
        self.interval = 5.0
        """Seconds between heartbeats, as the broker wants them."""
        self.target: frozenset[Place] = frozenset()
        """All partitions that this member may use now."""
        self.target_since = -math.inf
        """Monotonic time at which the target changed last."""
        self.changed: Callable[[], None] = lambda: None
        """Called when the target changes, when an acknowledgement was taken, and when the member was thrown out."""
        self.heard_at = -math.inf
        """Monotonic time at which the last heartbeat that was answered was sent."""
        self.answered_at = -math.inf
        """Monotonic time of the last answer to a heartbeat."""
        self.unacknowledged_since = math.inf
        """Monotonic time since which the coordinator waits for an acknowledgement; inf while it waits for none."""
        self.out_since = -math.inf
        """Monotonic time at which the member last was in no group."""
        self.settled: Callable[[], bool] = lambda: True
        """Whether no call is under way of what was lost, or is being let go of."""
        self._fenced = False
        """Whether the coordinator still had this member when it threw it out."""
        self._subscription = subscription
        self._full = True
        self._acknowledges = False
        """Whether the request in flight says that nothing is owned that the target lacks."""
        self._eager_until = -math.inf

    def seconds(self, now: float) -> float:
        """Return the seconds until the next heartbeat."""
        if now < self._eager_until or not self.acknowledged:
            return min(EAGER_SECONDS, self.interval)
        return min(MOST_SECONDS, self.interval)

    def hurry(self, now: float) -> None:
        """Send heartbeats often for a while: something has changed."""
        self._eager_until = now + max(2 * self.interval, LEAST_EAGER_SECONDS)

    @property
    def acknowledged(self) -> bool:
        """Whether the coordinator knows that this member has let go of what the target lacks."""
        return self.unacknowledged_since == math.inf

    @property
    def instance_id(self) -> str | None:
        """The id of a static member; None without one."""
        return self._subscription.instance_id

    def begin(self, now: float) -> None:
        """Join with a new client: the member id stays, and everything else begins again."""
        self.changed, self.settled = (lambda: None), (lambda: True)
        self.epoch, self.target, self._full, self.unacknowledged_since = JOIN, frozenset(), True, math.inf
        self.out_since = self.heard_at = now

    def request(self, owned: Collection[Place]) -> HeartbeatRequest:
        """Return the next heartbeat of a member that has not let go of ``owned``.

        After any failure it says everything again: the coordinator may, or may not, have acted on the one that failed.
        While something is still to be let go, it says nothing of what is owned: a part of it is no acknowledgement.
        What may be used counts as owned, begun or not: the coordinator frees at once what it takes away and a list
        lacks, and the partition may begin here before that is heard.
        """
        self.known = True
        group, instance, rebalance_timeout_ms, topics, regex, assignor = self._subscription
        full, settled = self._full or self.epoch == JOIN, self.target.issuperset(owned)
        listed = full or (settled and not self.acknowledged)
        self._acknowledges = listed and settled
        return HeartbeatRequest(
            group,
            self.member_id,
            self.epoch,
            instance,
            None,
            rebalance_timeout_ms if full else UNCHANGED_MS,
            (topics or []) if full else None,
            (regex or "") if full else None,
            assignor if full else None,
            _by_topic(() if self.epoch == JOIN else self.target.union(owned)) if listed else None,
        )

    def leaving(self) -> HeartbeatRequest:
        """Return the last heartbeat; a static member keeps its partitions until its session ends."""
        group, instance = self._subscription[:2]
        epoch = LEAVE if instance is None else LEAVE_FOR_A_WHILE
        return HeartbeatRequest(group, self.member_id, epoch, instance, None, UNCHANGED_MS, None, None, None, None)

    def waits_for_calls(self, now: float, session_seconds: float) -> bool:
        """Whether this member was fenced and is not to join before its calls have ended.

        A fenced member keeps its place at the coordinator. Its join says that nothing is owned, so what it was to let
        go of is free, and others begin it. After a session without a heartbeat the coordinator removes it in any case.
        """
        out = self._fenced and self.epoch == JOIN
        return out and now - self.out_since < session_seconds and not self.settled()

    def late(self, now: float, seconds: float) -> bool:
        """Whether the coordinator may have removed this member because it has not let go within the rebalance timeout.

        It may also when heartbeats came through until a moment before, and when the answer that took something away
        was lost.
        """
        silent = now - self.heard_at
        return silent > seconds or (now - self.unacknowledged_since > seconds and silent > LATE_SECONDS)

    def failed(self) -> None:
        """Note that a heartbeat may not have been answered: the next one says everything."""
        self._full = True

    def take(self, answer: Any, sent: float, now: float) -> Reaction | None:
        """Take the answer to the last request, sent at ``sent``; return the reaction to its error, None without one."""
        if answer.error_code:
            self._full = True
            found = reaction(answer.error_code, joining=self.epoch == JOIN)
            if found is Reaction.JOIN:
                self._fenced = answer.error_code == FENCED_MEMBER_EPOCH
                self._thrown_out(now)
            return found
        before = self.epoch, self.target, self.acknowledged
        self._full = False
        self.heard_at, self.answered_at = max(self.heard_at, sent), now
        if answer.heartbeat_interval_ms > 0:
            self.interval = answer.heartbeat_interval_ms / 1000
        if answer.member_epoch > 0:
            self.epoch = answer.member_epoch
        if self._acknowledges:
            self.unacknowledged_since = math.inf
        if answer.assignment is not None:
            self.target = frozenset(Place(topic, each) for topic, rows, _ in answer.assignment[0] for each in rows)
            self.unacknowledged_since = min(self.unacknowledged_since, sent)
            if self.target != before[1]:
                self.target_since = now
        if before != (self.epoch, self.target, self.acknowledged):
            self.hurry(now)
            self.changed()
        return None

    def _thrown_out(self, now: float) -> None:
        """Forget the group: others may have the partitions already."""
        self.epoch, self.target, self.unacknowledged_since = JOIN, frozenset(), math.inf
        self.life += 1
        self.out_since = now
        self.hurry(now)
        self.changed()


def _by_topic(places: Collection[Place]) -> list[Any]:
    """Return partitions as a request names them."""
    found: dict[UUID, list[int]] = {}
    for topic_id, partition in sorted(places):
        found.setdefault(topic_id, []).append(partition)
    return [tagged(topic_id, partitions) for topic_id, partitions in found.items()]
