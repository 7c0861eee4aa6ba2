"""The daemon: where all parts meet once, and the life of the process: start, run, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from functools import partial

import structlog

from consumer.delivery.engine import MEASURE_SECONDS, Engine
from consumer.http.reader import StatusReader
from consumer.http.server import HttpServer
from consumer.kafka.client import connection_options
from consumer.kafka.source import KafkaSource
from consumer.metrics.collector import DaemonCollector, exposition
from consumer.observe.counters import Counters
from consumer.observe.loop_time import STATES, LoopTime, TimedLoop
from consumer.observe.watchdog import BROKER_AWAY_SECONDS, Limits, Vitals, Watchdog
from consumer.partition.remedy import remedy
from consumer.partition.state import Partition
from consumer.process.lifecycle import exit_if_stuck, guarded
from consumer.process.parts import make_decoder, make_letter_box
from consumer.process.reconnect import Reconnect
from consumer.process.supervisor import Supervisor
from consumer.routes.route import Route, enter_handlers
from consumer.settings.sections import Settings

log = structlog.get_logger("consumer.process.daemon")

BEAT_SECONDS = 0.25
REQUEST_MARGIN_SECONDS = 10.0


class Daemon:
    """One run of the consumer, from ``run`` to its return; made by a command, asked to end with ``stop``."""

    def __init__(self, settings: Settings, routes: Sequence[Route]) -> None:
        self._draining = False
        self.counters = Counters(settings.kafka.topics, [route.name for route in routes])
        self.engine: Engine | None = None
        self._status = StatusReader(
            settings, self.counters, self._partitions, lambda: self.state, lambda: self._supervisor.stall, self._unready
        )
        self.http = HttpServer(settings.http, self._scrape, self._unhealthy, self._unready, self._status.read)
        self._settings = settings
        self._routes = routes
        self._letters = make_letter_box(settings)
        self._source = KafkaSource(settings.kafka, self.counters, self.fail)
        self._stopping = asyncio.Event()
        self._clients = Reconnect(self._source, settings.watchdog, self._stopping)
        self._collector = DaemonCollector(
            self.counters,
            self._partitions,
            lambda: self.state,
            lambda: self._loop_time.seconds() if self._loop_time is not None else dict.fromkeys(STATES, 0.0),
            settings.delivery.max_in_flight_records,
        )
        watchdog = settings.watchdog
        limits = Limits(
            watchdog.stalled_seconds,
            max(watchdog.stalled_seconds, settings.kafka.request_timeout_seconds + REQUEST_MARGIN_SECONDS),
            watchdog.stalled_seconds + settings.kafka.rebalance_timeout_seconds,
            min(BROKER_AWAY_SECONDS, max(MEASURE_SECONDS + 1, watchdog.stalled_seconds / 2)),
        )
        self._supervisor = Supervisor(
            self.http,
            Watchdog(limits, self._vitals, time.monotonic),
            lambda stall: self._clients.lose(stall.kind, str(stall)),
            watchdog.window_seconds,
            self._status.sample,
        )
        self._beat = time.monotonic()
        self._loop_time: LoopTime | None = None
        self._failure: Exception | None = None

    @property
    def state(self) -> str:
        """What it does now: ``starting``, ``running``, ``rebuilding`` or ``draining``."""
        return "draining" if self._draining else self._clients.state

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until ``stop``; raise what ended it otherwise, after draining and committing what was done."""
        connection_options(self._settings.kafka)  # TLS files are looked at before anything is begun
        async with contextlib.AsyncExitStack() as opened:
            self._beat = time.monotonic()
            await opened.enter_async_context(self._supervisor)
            await enter_handlers(self._routes, opened)
            log.info("daemon_started", http=f"http://{self._settings.http.host}:{self.http.port}")
            await self._consume()
        if self._failure is not None:
            raise self._failure
        log.info("daemon_stopped")

    def stop(self) -> None:
        """Begin to drain; harmless before ``run`` and more than once."""
        self._stopping.set()

    def fail(self, error: Exception) -> None:
        """Drain and end with this error; the first one counts."""
        self._failure = self._failure or error
        self._stopping.set()

    async def _consume(self) -> None:
        letters = self._letters
        async with asyncio.TaskGroup() as tasks:
            self.engine = engine = Engine(
                source=self._source,
                decoder=make_decoder(self._settings),
                routes=self._routes,
                delivery=self._settings.delivery,
                counters=self.counters,
                tasks=tasks,
                fail=self.fail,
                retry=self._settings.retry,
                dead_letter=self._settings.dead_letter,
                letters=letters,
                remedy=partial(remedy, self._settings.kafka),
            )
            if isinstance(running := asyncio.get_running_loop(), TimedLoop):
                self._loop_time = running.time_spent
                self._loop_time.waits_for = engine.waits_for
            loops = [
                tasks.create_task(guarded(loop, self.fail))
                for loop in (
                    partial(self._clients.poll_forever, engine),
                    partial(self._clients.listen_forever, engine),
                    engine.commit_forever,
                    engine.measure_forever,
                    self._be_alive,
                )
            ]
            await self._stopping.wait()
            self._draining = True
            if self._source.joined:
                log.info("daemon_draining", seconds=self._settings.delivery.drain_seconds)
            await engine.stop()
            loops[0].cancel()  # it may be making a client, which goes with it
            await asyncio.wait(loops[:1])
            await self._source.stop()
            if letters is not None:
                await letters.close()
            for loop in loops:
                loop.cancel()
            exit_if_stuck(engine)

    async def _be_alive(self) -> None:
        """Show that the event loop goes round."""
        while True:
            self._beat = time.monotonic()
            if self.engine is not None:
                self.engine.doubt(doubtful=self._source.doubtful(self._beat))
            await asyncio.sleep(BEAT_SECONDS)

    # -- what others may ask, from another thread ----------------------------------------------------------------

    def _vitals(self) -> Vitals:
        joined, engine = self._source.joined and self.state != "rebuilding", self.engine
        return Vitals(
            beat=self._beat,
            heard_at=self._source.heard_at if joined else -math.inf,
            rebalancing=self._source.rebalancing or self._source.doubtful(self._beat),
            flushing=engine is not None and engine.flushing,
            partitions=engine.vitals() if engine is not None and joined else (),
            client=sum(self.counters.client_rebuilds.values()),
        )

    def _partitions(self) -> list[Partition]:
        return list(self.engine.partitions.values()) if self.engine is not None else []

    def _scrape(self, accept: str) -> tuple[bytes, str]:
        return exposition(self._collector, accept)

    def _unhealthy(self) -> str | None:
        return self._supervisor.unhealthy

    def _unready(self) -> str | None:
        if self._stopping.is_set():
            return "stopping"
        if not self._source.joined or self.engine is None:
            return "not joined yet"
        if self._clients.silence is not None:
            return self._clients.silence
        if self._supervisor.unhealthy is not None:
            return self._supervisor.unhealthy
        rebalancing = self._source.rebalancing_for(time.monotonic())
        if rebalancing > self._settings.kafka.rebalance_timeout_seconds:
            return f"rebalancing for {rebalancing:.0f} s"
        halted = [str(p.key) for p in self.engine.partitions.values() if p.halt is not None]
        return f"halted: {', '.join(halted)}" if halted else None
