"""The composition root: makes every part of the daemon once, from the settings down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from consumer.dead_letters.letter import Writer
from consumer.delivery.committer import Committer
from consumer.delivery.decoding import Decoder
from consumer.delivery.engine import Engine, Source
from consumer.delivery.failure import FailurePolicy, Letters, Remedy
from consumer.delivery.fuse import Fuse
from consumer.delivery.pipeline import Pipeline, Pipelines
from consumer.delivery.retry import RoutePolicy
from consumer.http.reader import StatusReader
from consumer.http.server import HttpServer
from consumer.kafka.client_source import ClientSource
from consumer.kafka.consumer_source import ConsumerSource
from consumer.kafka.drains import Drains
from consumer.kafka.group import Group
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.reach import CommitNotes
from consumer.kafka.source import KafkaSource
from consumer.metrics.collector import DaemonCollector
from consumer.observe.counters import Counters
from consumer.observe.event_counts import EventCounts
from consumer.observe.loop_time import time_spent
from consumer.observe.remedy import remedy
from consumer.observe.watchdog import BROKER_AWAY_SECONDS, Limits, Watchdog
from consumer.process.daemon import Daemon, Parts
from consumer.process.fuse_note import FuseNote
from consumer.process.lifecycle import Lifecycle
from consumer.process.measuring import MEASURE_SECONDS, Measuring
from consumer.process.notify import Manager, Notify
from consumer.process.reconnect import Reconnect
from consumer.process.supervisor import Supervisor
from consumer.process.vitals import DaemonVitals, Watching
from consumer.process.waits import WaitLimits, Waits, loop_waits_for, oldest_call
from consumer.routes.route import Route
from consumer.routes.topics import Topics, load_schemas
from consumer.settings.sections import Settings, matches_topic

REQUEST_MARGIN_SECONDS = 10.0
MEASURED_WITHIN_SECONDS = 15.0


def make_daemon(settings: Settings, routes: Sequence[Route], notify: Manager | None = None) -> Daemon:
    """Make a daemon; must be called in the event loop that will run it. ``notify`` started it, if anything."""
    notify = notify or Notify({})
    lifecycle = Lifecycle()
    counters = Counters(settings.kafka.topics, [route.name for route in routes])
    letters = make_letter_box(settings)
    source = make_source(settings, counters, lifecycle)
    topics = Topics(load_schemas(settings), routes)
    pipelines = make_pipelines(topics, settings.delivery.max_record_bytes)
    engine = make_engine(settings, source, pipelines, counters, lifecycle, letters, partial(remedy, settings.kafka))
    if letters is not None:
        note = FuseNote(engine.fuse, counters)
        source.notes = CommitNotes(note.write, note.read)
        source.at_start = letters.warn_of_missing
    loop_time = time_spent()
    loop_time.waits_for = partial(loop_waits_for, engine)
    reconnect = Reconnect(source, engine, settings.watchdog, lifecycle.stopping)
    watchdog = Watchdog(watchdog_limits(settings))
    group, measuring = Group(source), Measuring(source, engine)
    source.at_answer = measuring.note_first
    source.drains = Drains(partial(oldest_call, engine), settings.delivery.drain_seconds)
    watching = Watching(watchdog, Waits(engine, routes, wait_limits(settings)), loop_time, group)
    vitals = DaemonVitals(source, engine, reconnect, lifecycle, watching, settings.kafka.rebalance_timeout_seconds)
    collector = DaemonCollector(counters, vitals, settings.delivery.max_in_flight_records)
    status = StatusReader(settings, counters, vitals, calls_allowed(settings, routes), event_counts=counting(routes))
    http = HttpServer(settings.http, vitals, collector, status)
    supervisor = Supervisor(http, watchdog, vitals, reconnect, status, notify, settings.watchdog.window_seconds)
    return Daemon(
        Parts(
            settings=settings,
            routes=routes,
            lifecycle=lifecycle,
            counters=counters,
            letters=letters,
            source=source,
            engine=engine,
            reconnect=reconnect,
            vitals=vitals,
            group=group,
            measuring=measuring,
            http=http,
            notify=notify,
            supervisor=supervisor,
        )
    )


def make_source(settings: Settings, counters: Counters, lifecycle: Lifecycle) -> ClientSource:
    """Make the source of the group protocol."""
    pattern = matches_topic(settings) if settings.kafka.topic_pattern else None
    member = ConsumerSource if settings.kafka.group_protocol == "consumer" else KafkaSource
    return member(settings.kafka, counters, lifecycle.fail, pattern)


def make_engine(
    settings: Settings,
    source: Source,
    pipelines: Pipelines,
    counters: Counters,
    lifecycle: Lifecycle,
    letters: Letters | None,
    remedy: Remedy,
) -> Engine:
    """Make an engine on a source; ``remedy`` returns what ends a partition's halt."""
    fuse = Fuse(settings.dead_letter.limit_ratio, settings.dead_letter.limit_window_records)
    policies = {route.name: RoutePolicy(route.retry or settings.retry, route.pause_on) for route in pipelines.routes}
    policy = FailurePolicy(settings.retry, fuse, letters, remedy, policies)
    committer = Committer(source, pipelines.flushes, counters, lifecycle.tasks)
    return Engine(source, pipelines, policy, settings.delivery, counters, committer, lifecycle)


def watchdog_limits(settings: Settings) -> Limits:
    """Return how long the loop and the group may stand still before the daemon counts as stalled."""
    stalled = settings.watchdog.stalled_seconds
    return Limits(
        stalled=stalled,
        group=stalled + settings.kafka.rebalance_timeout_seconds,
        away=min(BROKER_AWAY_SECONDS, max(MEASURE_SECONDS + 1, stalled / 2)),
    )


def wait_limits(settings: Settings) -> WaitLimits:
    """Return how long a partition may wait for each thing before that is a stall."""
    stalled, delivery = settings.watchdog.stalled_seconds, settings.delivery
    return WaitLimits(
        stalled=stalled,
        flush=max(stalled, delivery.drain_seconds),
        commit=max(stalled, settings.kafka.request_timeout_seconds + REQUEST_MARGIN_SECONDS),
        drain=delivery.drain_seconds,
        measured=MEASURED_WITHIN_SECONDS,
    )


def calls_allowed(settings: Settings, routes: Sequence[Route]) -> dict[str, int]:
    """Return how many calls of each route may be under way at once in one partition."""
    several = 1 if settings.delivery.ordering == "partition" else settings.delivery.concurrency
    return {route.name: 1 if route.handler.takes_batches else several for route in routes}


def counting(routes: Sequence[Route]) -> dict[str, Callable[[], EventCounts]]:
    """Return what each handler that counts events has counted, by route."""
    return {route.name: route.handler.counted_events for route in routes if route.handler.counted_events is not None}


def make_pipelines(topics: Topics, max_record_bytes: int) -> Pipelines:
    """Make the pipeline of each topic when it is first asked for."""

    def of(topic: str) -> Pipeline:
        reader, routes = topics.of(topic)
        return Pipeline(Decoder(reader, max_record_bytes), routes)

    return Pipelines(topics.routes, of)


def make_letter_box(settings: Settings) -> LetterBox | None:
    """Make the writer of dead letters; None if ``dead_letter.topic`` is empty."""
    if not settings.dead_letter.topic:
        return None
    return LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id))
