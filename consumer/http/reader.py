"""The status reader: makes a Status from the daemon's objects, without a request and without looking at records."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

from consumer.http.history import History
from consumer.http.status import (
    HaltStatus,
    HoldStatus,
    PartitionStatus,
    RouteStatus,
    Status,
    WaitStatus,
)
from consumer.observe.counters import Counters, RouteCounters
from consumer.observe.observed import Observed
from consumer.observe.remedy import HOLD_ENDS, split_remedy
from consumer.observe.waiting import Waiting
from consumer.partition.hold import Halt, Hold
from consumer.partition.state import Partition, Phase
from consumer.record import TopicPartition
from consumer.settings.listing import plain_settings
from consumer.settings.sections import LOG_EVERYTHING, RouteSettings, Settings


class StatusReader:
    """Reads one daemon's status from its objects; owned by the daemon, called in the supervisor's thread."""

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        observed: Observed,
        clock: Callable[[], tuple[float, float]] = lambda: (time.time(), time.monotonic()),
    ) -> None:
        """``clock`` returns seconds since 1970 and monotonic seconds."""
        self._settings = settings
        self._counters = counters
        self._observed = observed
        self._clock = clock
        self._history = History()
        self._started_at = clock()[0]
        self._since = ("starting", self._started_at)
        self._plain_settings = plain_settings(settings)
        names = ("session-consumer", "aiokafka")
        self._versions = {**{name: version(name) for name in names}, "python": platform.python_version()}

    def sample(self) -> None:
        """Note a sample for the charts, and the time of a change of state; called about once a second."""
        wall, now = self._clock()
        counters = self._counters
        lags = [lag for each in self._observed.partitions if (lag := each.lag_records) is not None]
        records, size = sum(counters.records_consumed.values()), sum(counters.bytes_consumed.values())
        self._history.note(wall, now, records, size, sum(lags) if lags else None)
        self._note_state(wall, now)

    def read(self) -> Status:
        """Return the current status."""
        wall, now = self._clock()
        self._note_state(wall, now)
        settings, counters, stall = self._settings, self._counters, self._observed.stall
        partitions, waits = sorted(self._observed.partitions, key=lambda p: p.key), self._observed.waits()
        records_per_second, bytes_per_second = self._history.rate()
        return Status(
            at=wall,
            started_at=self._started_at,
            client_id=settings.kafka.client_id,
            group_id=settings.kafka.group_id,
            topics=[settings.kafka.topic_pattern] if settings.kafka.topic_pattern else settings.kafka.topics,
            state=self._since[0],
            since=self._since[1],
            stalled=str(stall) if stall is not None else None,
            unready=self._observed.unready,
            records_per_second=records_per_second,
            bytes_per_second=bytes_per_second,
            records_consumed=sum(counters.records_consumed.values()),
            last_commit_at=counters.last_commit_timestamp or None,
            max_in_flight_records=settings.delivery.max_in_flight_records,
            partitions=[_partition_status(each, waits.get(each.key, ()), wall, now) for each in partitions],
            halts=[_halt_status(each.key, each.halt) for each in partitions if each.halt is not None],
            holds=[hold for each in partitions for hold in _hold_statuses(each)],
            routes=self._routes(),
            failures=counters.failures.latest_first,
            commits=dict(counters.commits),
            rebalances=dict(counters.rebalances),
            client_rebuilds=dict(counters.client_rebuilds),
            settings=self._plain_settings,
            versions=self._versions,
            history=self._history.samples,
        )

    def _note_state(self, wall: float, now: float) -> None:
        stall = self._observed.stall
        state = "stalled" if stall is not None else self._observed.state
        if state != self._since[0]:
            self._since = (state, wall - (now - stall.since) if stall is not None else wall)

    def _routes(self) -> list[RouteStatus]:
        counters = self._counters
        known = {route.name: route for route in self._settings.routes or [LOG_EVERYTHING]}
        errors: dict[str, dict[str, int]] = {name: {} for name in counters.routes}
        for (name, kind), count in counters.handler_errors.items():
            errors[name][kind] = count
        found = [_route_status(name, known.get(name), counts, errors[name]) for name, counts in counters.routes.items()]
        return [*found, _route_status("none", None, counters.no_route, {}, skipped=counters.skipped)]


def _partition_status(partition: Partition, waits: Sequence[Waiting], wall: float, now: float) -> PartitionStatus:
    in_flight_records, in_flight_bytes = partition.in_flight
    end, position = partition.lag.end_offset, partition.position
    return PartitionStatus(
        topic=partition.key.topic,
        partition=partition.key.partition,
        state=_state_of(partition),
        lag_records=partition.lag_records,
        lag_seconds=partition.lag_seconds(wall),
        in_flight_records=in_flight_records,
        in_flight_bytes=in_flight_bytes,
        committed_offset=partition.known_committed,
        position=position,
        end_offset=max(end, position or 0) if end is not None else None,
        end_offset_age_seconds=now - partition.lag.measured_at if end is not None else None,
        waits=[
            WaitStatus(each.kind, wall - now + each.since, None if each.until is None else wall - now + each.until)
            for each in waits
        ],
    )


def _state_of(partition: Partition) -> str:
    holds = list(partition.holds)
    states = (
        (partition.halt is not None, "halted"),
        (partition.phase in (Phase.CLOSING, Phase.OVER), "draining"),
        (any(hold.kind in HOLD_ENDS for hold in holds), "holding"),
        (bool(holds), "retrying"),
        (partition.lag_records is None, "starting"),
        (partition.lag_records != 0, "reading"),
    )
    return next((state for applies, state in states if applies), "caught up")


def _halt_status(key: TopicPartition, halt: Halt) -> HaltStatus:
    mend, command = split_remedy(halt.remedy)
    return HaltStatus(*key, halt.offset, halt.reason.value, halt.explanation, mend, command)


def _hold_statuses(partition: Partition) -> list[HoldStatus]:
    """Group the holds of a partition by route and kind: there may be thousands of records."""
    groups: dict[tuple[str, str], list[Hold]] = {}
    for hold in list(partition.holds):  # copied at once, because the event loop changes the set
        if hold.kind in HOLD_ENDS:
            groups.setdefault((hold.route, hold.kind), []).append(hold)
    return [
        HoldStatus(*partition.key, route, kind, len(holds), *_first_and_since(holds), HOLD_ENDS[kind])
        for (route, kind), holds in sorted(groups.items())
    ]


def _first_and_since(holds: Sequence[Hold]) -> tuple[int, float]:
    return min(hold.offset for hold in holds), min(hold.since for hold in holds)


def _route_status(
    name: str, settings: RouteSettings | None, counts: RouteCounters, errors: dict[str, int], skipped: int = 0
) -> RouteStatus:
    return RouteStatus(
        name=name,
        handler=settings.handler if settings is not None else "",
        match_fields=list(settings.match) if settings is not None else [],
        options=list(settings.options) if settings is not None else [],
        handled=counts.handled,
        skipped=skipped,
        dead_lettered=counts.dead_lettered,
        retries=counts.retries,
        abandoned=counts.abandoned,
        waiting=counts.waiting,
        errors=errors,
    )
