"""Conditions that keep records from being handled: halts, holds, stalls and dead letters, as parts of the status.

Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from consumer.observe.remedy import HOLD_ENDS, joint_remedy
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt, Hold
from consumer.partition.state import Partition
from consumer.settings.sections import Kafka


class HaltedPartition(msgspec.Struct, frozen=True):
    """One partition of a halt."""

    partition: int
    offset: int | None
    """Offset of the cause; None if the partition has no offset."""
    explanation: str
    since: float


class HaltStatus(msgspec.Struct, frozen=True):
    """Halted partitions of one topic with the same reason; they wait for a person."""

    topic: str
    reason: str
    mend: str
    """What to do before a restart."""
    command: str
    """Command that moves the group past all the causes instead; empty if that would not help, or is not known yet."""
    since: float
    """Time of the first halt."""
    partitions: list[HaltedPartition]


class HoldStatus(msgspec.Struct, frozen=True):
    """Records of one partition and route that wait for the same thing, and are then tried again."""

    topic: str
    partition: int
    route: str
    kind: str
    """``retry``, ``pause``, ``dead_letter`` or ``group``; ``error`` or ``timeout`` for a retry by policy."""
    records: int
    offset: int
    """Lowest offset of the records."""
    since: float
    """Start of the longest wait."""
    error: str
    """Class and place of the last exception of the record at ``offset``; empty without one."""
    attempts: int
    """Failed attempts for the record at ``offset``: calls, or writes of its dead letter."""
    next_at: float | None
    """Time of the next attempt; None while one is under way, and while the hold waits for another record."""
    ends: str
    """What ends the hold."""


class StallStatus(msgspec.Struct, frozen=True):
    """A stall: work waits and nothing moves."""

    kind: str
    """``loop``, or the kind of the wait that is late."""
    why: str
    since: float
    """Time of the last progress."""
    exits_at: float
    """Time at which the process ends with exit code 70 if the stall lasts."""
    partitions: list[str]
    """Partitions concerned, that of the record at ``offset`` first; empty if the stall concerns the daemon."""
    route: str
    """Route of the call that does not end; empty if it is not a call."""
    offset: int | None
    """Offset of the record of that call; None if it is not known."""
    places: list[str]
    """Places in the code where the call, or the event loop, stands, innermost first."""


class DeadLetteringStatus(msgspec.Struct, frozen=True):
    """Dead letters among the last records of one topic: 1 % or more in the last minutes, or of 100 records."""

    topic: str
    reason: str
    """The most frequent reason."""
    route: str
    """The route with most dead letters; ``none`` if the records reached no route."""
    dead_lettered: int
    records: int
    """Records among which they were counted."""
    since: float


def halt_statuses(kafka: Kafka, partitions: Iterable[Partition]) -> list[HaltStatus]:
    """Group the halts by topic and reason: each group is ended by one command."""
    groups: dict[tuple[str, HaltReason], dict[int, Halt]] = {}
    for each in partitions:
        if (halt := each.halt) is not None:
            groups.setdefault((each.key.topic, halt.reason), {})[each.key.partition] = halt
    return [_halt_status(kafka, topic, reason, halts) for (topic, reason), halts in groups.items()]


def _halt_status(kafka: Kafka, topic: str, reason: HaltReason, halts: Mapping[int, Halt]) -> HaltStatus:
    mend, command = joint_remedy(kafka, topic, halts)
    partitions = [
        HaltedPartition(number, halt.offset if halt.offset >= 0 else None, halt.explanation, halt.since)
        for number, halt in halts.items()
    ]
    return HaltStatus(topic, reason.value, mend, command, min(each.since for each in partitions), partitions)


def hold_statuses(partition: Partition) -> list[HoldStatus]:
    """Group the holds of a partition by route and kind: there may be thousands of records."""
    if not partition.holds:
        return []
    groups: dict[tuple[str, str], list[Hold]] = {}
    for hold in list(partition.holds):  # copied at once, because the event loop changes the set
        groups.setdefault((hold.route, hold.kind), []).append(hold)
    return [_hold_status(partition, route, kind, holds) for (route, kind), holds in sorted(groups.items())]


def _hold_status(partition: Partition, route: str, kind: str, holds: Sequence[Hold]) -> HoldStatus:
    first = min(holds, key=lambda hold: hold.offset)
    return HoldStatus(
        *partition.key,
        route,
        kind,
        len(holds),
        first.offset,
        min(hold.since for hold in holds),
        first.error,
        first.attempts,
        first.next_at,
        HOLD_ENDS.get(kind, ""),
    )
