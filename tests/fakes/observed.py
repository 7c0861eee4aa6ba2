"""A daemon as metrics, probes and the status page see it, with what a test sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from consumer.http.status import Status
from consumer.observe.members import GroupDescription, Membership
from consumer.observe.waiting import Standing, Waiting
from consumer.observe.watchdog import Stall
from consumer.partition.state import Partition
from consumer.record import TopicPartition


@dataclass
class FakeObserved:
    """Implements ``Observed``."""

    state: str = "running"
    stall: Stall | None = None
    unhealthy: str | None = None
    unready: str | None = None
    partitions: list[Partition] = field(default_factory=list)
    waiting: dict[TopicPartition, Sequence[Waiting]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    heard_at: float = float("-inf")
    unheard_seconds: float = 0.0
    ran_at: float = float("inf")
    member_id: str = ""
    group: GroupDescription | None = None
    membership: Membership = field(default_factory=Membership)
    stands: Standing = field(default_factory=Standing)

    def standing(self) -> Standing:
        return self.stands

    def waits(self) -> Mapping[TopicPartition, Sequence[Waiting]]:
        return self.waiting

    def loop_seconds(self) -> Mapping[str, float]:
        return self.seconds


class FakeMetrics:
    """Answers a scrape with one sample."""

    def scrape(self, accept: str) -> tuple[bytes, str]:
        return b"a 1\n", "text/plain"


@dataclass
class FakeStatus:
    """Reads a status as the test makes it."""

    make: Callable[[], Status]

    def read(self) -> Status:
        return self.make()
