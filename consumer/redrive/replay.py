"""Replay: run a stretch of topics again through chosen routes, in a group of the replay.

Nothing else is read or committed: the daemon's group stays where it is, whether the daemon runs or not. Retries, holds,
dead letters and order are as in ``run``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial

import msgspec

from consumer.errors import counted
from consumer.kafka.source import KafkaSource
from consumer.kafka.stretch import Place, Stretch
from consumer.observe.counters import Counters
from consumer.observe.remedy import remedy
from consumer.process.lifecycle import Lifecycle
from consumer.process.parts import make_engine, make_letter_box, make_pipelines
from consumer.record import RawRecord, TopicPartition
from consumer.redrive.bounded_run import BoundedParts, BoundedRun, classic
from consumer.redrive.bounded_source import BoundedSource
from consumer.redrive.handlers import limited
from consumer.redrive.rate import RateLimit
from consumer.routes.topics import Topics
from consumer.settings.sections import Kafka, Settings


class Chosen(msgspec.Struct, frozen=True):
    """What is replayed; the same choice goes on where an earlier replay of it was stopped."""

    topics: list[str]
    partitions: list[int]
    routes: list[str]
    begin: Place
    end: Place
    late_ms: int = 0
    """How much later than the end a record may have been written that belongs before it, by the clock of records."""

    @property
    def reads_until(self) -> Place:
        """The place to which records are read: those of earlier times may follow the first one of the end."""
        time_ms = self.end.time_ms
        return self.end if time_ms is None else Place(time_ms=time_ms + self.late_ms)

    def wants(self, raw: RawRecord) -> bool:
        """Whether a record's time lies in the stretch, where that has times."""
        begin, end = self.begin.time_ms, self.end.time_ms
        return (begin is None or raw.timestamp >= begin) and (end is None or raw.timestamp < end)

    def group(self, group_id: str) -> str:
        """Return the name of the consumer group that stores how far this choice was replayed."""
        return f"{group_id}.replay.{hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:8]}"


class Replay(BoundedRun):
    """One replay; made by ``make_replay``."""

    def __init__(
        self, parts: BoundedParts, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> None:
        super().__init__(parts, ends)
        self.total = sum(max(0, end - begins[key]) for key, end in ends.items())
        """Number of offsets that are left to read."""
        self._begins = begins
        self._reached = dict(begins)

    @property
    def done(self) -> int:
        """Number of offsets that were passed."""
        if self.complete and not self.shared:
            return self.total
        self.look()
        return sum(self._reached[key] - self._begins[key] for key in self._ends)

    def look(self) -> None:
        """Note how far each owned partition is; it is no longer known when the partition is revoked."""
        for key, partition in self._parts.engine.partitions.items():
            if key in self._ends:
                self._reached[key] = max(self._reached[key], min(partition.done, self._ends[key]))

    def outcomes(self) -> list[str]:
        """Return what became of the records, a line for each route."""
        counters, lines = self._parts.counters, []
        for name, route in counters.routes.items():
            failed = f", {route.dead_lettered:,} dead-lettered" if route.dead_lettered else ""
            lines.append(f"{name}: {route.handled:,} handled{failed}")
        if bad := counters.no_route.dead_lettered:
            lines.append(f"{counted(bad, 'record')} dead-lettered that could not be decoded")
        if counters.skipped:
            lines.append(f"{counted(counters.skipped, 'record')} matched by no route")
        if deleted := sum(count for (_, why), count in counters.offset_resets.items() if why == "out_of_range"):
            lines.append(
                f"the brokers deleted records before they were read: {counted(deleted, 'gap')} in what was read"
            )
        return lines

    @property
    def dead_lettered(self) -> int:
        """Number of dead letters written."""
        counters = self._parts.counters
        return sum(each.dead_lettered for each in [*counters.routes.values(), counters.no_route])


def replay_kafka(kafka: Kafka, chosen: Chosen) -> Kafka:
    """Return the Kafka settings of a replay: its group and its topics."""
    return msgspec.structs.replace(
        classic(kafka),
        topics=chosen.topics,
        topic_pattern="",
        group_instance_id="",
        group_id=chosen.group(kafka.group_id),
        offset_reset="earliest",  # of partitions that were not chosen, of which nothing is read
        out_of_range="earliest",
    )


def make_replay(
    settings: Settings,
    topics: Topics,
    chosen: Chosen,
    stretch: Stretch,
    begins: Mapping[TopicPartition, int],
    rate: float,
    lifecycle: Lifecycle,
) -> Replay:
    """Make a replay. ``topics`` has the chosen routes; ``begins`` the offsets to go on with, or above the group's.

    ``rate`` is in records a second and calls of handlers; 0 means no limit.
    """
    rate_limit = RateLimit(rate, lifecycle.stopping) if rate else None
    topics = topics.with_routes([limited(route, rate_limit) for route in topics.routes])
    kafka = replay_kafka(settings.kafka, chosen)
    ends = {key: bounds.end for key, bounds in stretch.items() if bounds.end > begins[key]}
    counters = Counters(kafka.topics, [route.name for route in topics.routes])
    letters = make_letter_box(settings)  # a letter is the daemon's group's, which redrives it
    source = KafkaSource(kafka, counters, lifecycle.fail)
    timed = chosen.begin.time_ms is not None or chosen.end.time_ms is not None
    bounded = BoundedSource(
        source, ends, chosen.wants if timed else None, {key: bounds.begin for key, bounds in stretch.items()}
    )
    delivery = msgspec.structs.replace(settings.delivery, on_halt="exit")
    engine = make_engine(
        msgspec.structs.replace(settings, kafka=kafka, delivery=delivery),
        bounded,
        make_pipelines(topics, settings.delivery.max_record_bytes),
        counters,
        lifecycle,
        letters,
        partial(remedy, kafka),
    )
    return Replay(BoundedParts(lifecycle, counters, letters, source, bounded, engine), begins, ends)
