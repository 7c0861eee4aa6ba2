"""The status reader: makes a Status from the daemon's objects, without a request and without looking at records."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import msgspec

from consumer.dead_letters.cause import NO_ROUTE
from consumer.http.conditions import (
    DeadLetteringStatus,
    StallStatus,
    halt_statuses,
    hold_statuses,
)
from consumer.http.group import group_status
from consumer.http.history import History
from consumer.http.partitions import Moment, partition_status
from consumer.http.rebalances import Rebalances
from consumer.http.recent import Recent
from consumer.http.status import (
    BrokersStatus,
    PartitionStatus,
    ProcessStatus,
    RouteStatus,
    StatsStatus,
    Status,
    TopicStatus,
)
from consumer.http.trend import Trend
from consumer.http.verdict import judge
from consumer.observe.counters import Counters
from consumer.observe.event_counts import EventCounts
from consumer.observe.observed import Observed
from consumer.settings.listing import plain_settings
from consumer.settings.sections import LOG_EVERYTHING, RouteSettings, Settings

SILENT_SECONDS = 10.0
"""Time without an answer after which what brokers answered last is old. Answers to fetches come once a second."""
NO_ROUTE_STATUS = RouteStatus(NO_ROUTE, "", [], [], 0, 0, 0, 0, 0, 0, 0, {}, 0.0, None, None, 0, 0, None)


class StatusReader:
    """Reads one daemon's status from its objects; owned by the daemon, called in the supervisor's thread."""

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        observed: Observed,
        calls_allowed: Mapping[str, int],
        clock: Callable[[], tuple[float, float]] = lambda: (time.time(), time.monotonic()),
        event_counts: Mapping[str, Callable[[], EventCounts]] = {},
    ) -> None:
        """``calls_allowed`` has the calls at once in a partition by route; ``clock`` both times of ``Moment``.

        ``event_counts`` returns what handlers have counted, by route.
        """
        self._settings = settings
        self._counters = counters
        self._observed = observed
        self._calls_allowed = calls_allowed
        self._clock = clock
        self._event_counts = event_counts
        self._history = History()
        self._recent = Recent(counters)
        self._rebalances = Rebalances()
        self._trends: dict[str, Trend] = {}
        started_at = clock()[0]
        self._since = ("starting", started_at)
        self._plain_settings = plain_settings(settings)
        names = ("session-consumer", "aiokafka")
        self._versions = {**{name: version(name) for name in names}, "python": platform.python_version()}
        self._process = ProcessStatus(
            socket.gethostname(),
            os.getpid(),
            self._versions["session-consumer"],
            started_at,
            settings.kafka.client_id,
            settings.kafka.group_instance_id,
            "",
        )

    def sample(self) -> None:
        """Note a sample for charts and trends, and the time of a change of state; called about once a second."""
        now, counters = Moment(*self._clock()), self._counters
        lags: dict[str, dict[int, int]] = {}
        for each in self._observed.partitions:
            if (lag := each.lag_records) is not None:
                lags.setdefault(each.key.topic, {})[each.key.partition] = lag
        total = sum(sum(found.values()) for found in lags.values()) if lags else None
        self._history.note(now.wall, now.monotonic, counters, total)
        self._recent.note(now.monotonic)
        self._rebalances.note(now.wall, counters.rebalances["revoked"] + counters.rebalances["lost"])
        for topic, found in lags.items():
            self._trends.setdefault(topic, Trend()).note(now.monotonic, found)
        for topic in self._trends.keys() - lags.keys():  # its partitions were revoked
            del self._trends[topic]
        self._note_state(now)

    def read(self) -> Status:
        """Return the current status."""
        now = Moment(*self._clock())
        self._note_state(now)
        settings, counters, history = self._settings, self._counters, self._history
        owned, waits = sorted(self._observed.partitions, key=lambda p: p.key), self._observed.waits()
        partitions = [partition_status(each, waits.get(each.key, ()), now) for each in owned]
        status = Status(
            at=now.wall,
            verdicts=[],
            process=msgspec.structs.replace(self._process, member_id=self._observed.member_id),
            group=group_status(self._observed, settings.kafka.group_id, self._rebalances, now),
            brokers=self._brokers(now),
            subscribed=[settings.kafka.topic_pattern] if settings.kafka.topic_pattern else settings.kafka.topics,
            state=self._since[0],
            since=self._since[1],
            loop_ran_at=min(now.wall, now.wall_of(self._observed.ran_at)),
            unready=self._observed.unready,
            stall=self._stall(now),
            halts=halt_statuses(settings.kafka, owned),
            holds=[hold for each in owned for hold in hold_statuses(each)],
            dead_lettering=self._dead_lettering(now),
            records_per_second=history.records_per_second(),
            bytes_per_second=history.bytes_per_second(),
            records_consumed=counters.consumed,
            last_commit_at=counters.last_commit_timestamp or None,
            max_in_flight_records=settings.delivery.max_in_flight_records,
            topics=self._topics(now, partitions),
            partitions=partitions,
            routes=self._routes(now, len(owned)),
            failures=counters.failures.latest_first,
            commits=dict(counters.commits),
            rebalances=dict(counters.rebalances),
            client_rebuilds=dict(counters.client_rebuilds),
            settings=self._plain_settings,
            versions=self._versions,
            history=history.samples,
            stats=[StatsStatus(route, counts()) for route, counts in self._event_counts.items()],
        )
        return msgspec.structs.replace(status, verdicts=judge(status))

    def _note_state(self, now: Moment) -> None:
        stall = self._observed.stall
        state = "stalled" if stall is not None else self._observed.state
        if state != self._since[0]:
            self._since = (state, now.wall_of(stall.since) if stall is not None else now.wall)

    def _brokers(self, now: Moment) -> BrokersStatus:
        """Return whether brokers answer; a blocked event loop hears none, and they may be well."""
        heard_at, servers = self._observed.heard_at, self._settings.kafka.bootstrap_servers
        if heard_at == float("-inf"):
            return BrokersStatus(servers, None, silent=now.wall - self._process.started_at > SILENT_SECONDS)
        return BrokersStatus(servers, now.wall_of(heard_at), self._observed.unheard_seconds > SILENT_SECONDS)

    def _stall(self, now: Moment) -> StallStatus | None:
        stall = self._observed.stall
        if stall is None:
            return None
        standing = self._observed.standing()
        partitions = list(map(str, stall.partitions))
        if standing.partition:  # first, because the offset and the places are of its record
            partitions = [standing.partition, *(each for each in partitions if each != standing.partition)]
        exits_at = now.wall_of(stall.late_at) + self._settings.watchdog.window_seconds
        return StallStatus(
            stall.kind,
            str(stall),
            now.wall_of(stall.since),
            exits_at,
            partitions,
            standing.route,
            standing.offset,
            list(standing.places),
        )

    def _dead_lettering(self, now: Moment) -> list[DeadLetteringStatus]:
        found = self._recent.letters()
        return [DeadLetteringStatus(*each, self._in_trouble(now, "topic", each.topic) or now.wall) for each in found]

    def _in_trouble(self, now: Moment, kind: str, name: str) -> float | None:
        """Return the time since which a topic has dead letters, or a route fails."""
        since = self._recent.since(kind, name)
        return None if since is None else now.wall_of(since)

    def _topics(self, now: Moment, partitions: Sequence[PartitionStatus]) -> list[TopicStatus]:
        by_topic: dict[str, list[PartitionStatus]] = {}
        for each in partitions:
            by_topic.setdefault(each.topic, []).append(each)
        return [self._topic(now, topic, found) for topic, found in by_topic.items()]

    def _topic(self, now: Moment, topic: str, partitions: Sequence[PartitionStatus]) -> TopicStatus:
        lags = [each.lag_records for each in partitions if each.lag_records is not None]
        ages = [each.lag_seconds for each in partitions if each.lag_seconds is not None]
        trend, rate = self._trends.get(topic, Trend()), self._history.records_per_second(topic)
        growing_since = trend.growing_since
        return TopicStatus(
            topic,
            len(partitions),
            sum(lags) if lags else None,
            max(ages, default=None),
            rate,
            trend.catch_up_seconds if rate or not sum(lags) else None,  # nothing moves: no rate to catch up at
            None if growing_since is None else now.wall_of(growing_since),
        )

    def _routes(self, now: Moment, partitions: int) -> list[RouteStatus]:
        known = {route.name: route for route in self._settings.routes or [LOG_EVERYTHING]}
        found = [self._route(now, name, known.get(name), partitions) for name in self._counters.routes]
        none, skipped = self._counters.no_route, self._counters.skipped
        replaced = {"skipped": skipped, "dead_lettered": none.dead_lettered, "abandoned": none.abandoned}
        return [*found, msgspec.structs.replace(NO_ROUTE_STATUS, **replaced)]

    def _route(self, now: Moment, name: str, settings: RouteSettings | None, partitions: int) -> RouteStatus:
        counts, calls = self._counters.routes[name], self._recent.calls(name)
        errors = {kind: count for (route, kind), count in self._counters.handler_errors.items() if route == name}
        return RouteStatus(
            name=name,
            handler=settings.handler if settings is not None else "",
            match_fields=list(settings.match) if settings is not None else [],
            options=list(settings.options) if settings is not None else [],
            handled=counts.handled,
            skipped=0,
            dead_lettered=counts.dead_lettered,
            retries=counts.retries,
            abandoned=counts.abandoned,
            waiting=counts.waiting,
            allowed=self._calls_allowed.get(name, 0) * partitions,
            errors=errors,
            records_per_second=self._history.handled_per_second(name),
            call_seconds_p50=calls.p50,
            call_seconds_p99=calls.p99,
            calls=calls.calls,
            calls_failed=calls.failed,
            failing_since=self._in_trouble(now, "route", name),
        )
