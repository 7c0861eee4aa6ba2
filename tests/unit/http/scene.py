"""The objects of a daemon, as a test sets them, and the reader of its status."""

from __future__ import annotations

import msgspec

from consumer.http.reader import StatusReader
from consumer.http.status import Status
from consumer.observe.counters import Counters
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from consumer.settings.sections import RouteSettings, Settings
from tests.fakes.observed import FakeObserved

WALL = 1_793_000_000.0


class Scene:
    """A daemon's objects, as a test sets them, and the reader of its status."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings(routes=[RouteSettings("voice", "calls:talk")])
        self.counters = Counters(self.settings.kafka.topics, [route.name for route in self.settings.routes])
        self.observed = FakeObserved()
        self.now = 1000.0
        self.clock_set = 0.0
        """Seconds by which the wall clock was set."""
        self.reader = StatusReader(
            self.settings,
            self.counters,
            self.observed,
            {"voice": 64},
            lambda: (WALL + self.clock_set + self.now - 1000.0, self.now),
        )

    def owns(self, number: int = 0, start: int = 100, end: int | None = None) -> Partition:
        """Assign a partition that begins at ``start``; its end is measured when given."""
        partition = Partition(TopicPartition("session-events", number), 1)
        partition.start(start)
        if end is not None:
            partition.lag.ends_at(end, partition.known_committed, self.now, WALL)
        self.observed.partitions.append(partition)
        return partition

    def read(self) -> Status:
        """Read the status as a client of ``/status.json`` gets it."""
        return msgspec.json.decode(msgspec.json.encode(self.reader.read()), type=Status)
