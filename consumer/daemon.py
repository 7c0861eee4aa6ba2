"""The daemon: where all parts meet once, and the life of the process: start, run, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from consumer.decoding import Decoder
from consumer.dispatch import Route
from consumer.engine import MEASURE_SECONDS, Engine
from consumer.errors import ClientLostError, ConsumerError, SettingsError, StalledError, StuckCallError, place_of
from consumer.handler import extend_path, load_handler
from consumer.http.server import HttpServer
from consumer.kafka.client import connection_options
from consumer.kafka.letters import LetterBox
from consumer.kafka.source import KafkaSource
from consumer.letter import Writer
from consumer.metrics.collector import DaemonCollector, exposition
from consumer.routing import compile_match
from consumer.settings import LOG_EVERYTHING, Settings
from consumer.supervisor import Supervisor
from consumer.tally import Tally
from consumer.watchdog import BROKER_AWAY_SECONDS, Limits, Stall, Vitals, Watchdog
from consumer.way_out import way_out
from schemas.session import Session
from schemas.wire import TwoSpellings

log = structlog.get_logger("consumer.daemon")

HEARD_SECONDS = 30.0
LISTEN_SECONDS = 5.0
BEAT_SECONDS = 0.25
REQUEST_MARGIN_SECONDS = 10.0
LONGEST_BACKOFF_SECONDS = 30.0


def make_routes(settings: Settings, environment: Mapping[str, str]) -> list[Route]:
    """Import every handler and compile every match; raise SettingsError for the first that is wrong."""
    extend_path(settings.path, sys.path)
    routes = []
    for index, each in enumerate(settings.routes or [LOG_EVERYTHING]):
        where = f"routes[{index}] ({each.name})"
        matches = compile_match(Session, each.match, where)
        routes.append(Route(each.name, matches, load_handler(each, where, environment), each.tombstones))
    return routes


def make_decoder(settings: Settings) -> Decoder:
    """Make the decoder of session events."""
    spellings = TwoSpellings(Session)
    return Decoder(spellings.first, spellings.both, settings.delivery.max_record_bytes)


async def enter_handlers(routes: Sequence[Route], opened: contextlib.AsyncExitStack) -> None:
    """Enter every handler that is a context manager; raise SettingsError naming the route of the first that fails."""
    for route in routes:
        if route.handler.context is not None:
            try:
                await opened.enter_async_context(route.handler.context)
            except Exception as error:
                why = (
                    str(error) if isinstance(error, ConsumerError) else f"entering the handler raised {place_of(error)}"
                )
                raise SettingsError(f"routes ({route.name}): {why}") from error


def make_letter_box(settings: Settings) -> LetterBox | None:
    """Make what writes dead letters; None when ``dead_letter.topic`` is empty."""
    if not settings.dead_letter.topic:
        return None
    return LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id))


class Daemon:
    """One run of the consumer, from ``run`` to its return; made by a command, asked to end with ``stop``."""

    def __init__(self, settings: Settings, routes: Sequence[Route]) -> None:
        self.state = "starting"
        self.tally = Tally(settings.kafka.topics, [route.name for route in routes])
        self.http = HttpServer(settings.http, self._scrape, self._unhealthy, self._unready)
        self.engine: Engine | None = None
        self._settings = settings
        self._routes = routes
        self._letters = make_letter_box(settings)
        self._source = KafkaSource(settings.kafka, self.tally, self.fail)
        self._collector = DaemonCollector(
            self.tally,
            lambda: self.engine.partitions.values() if self.engine else (),
            lambda: self.state,
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
            self.http, Watchdog(limits, self._vitals, time.monotonic), self._cure, watchdog.window_seconds
        )
        self._beat = time.monotonic()
        self._lost: ClientLostError | None = None
        self._lost_now = asyncio.Event()
        self._rebuilt = Rebuilds(watchdog.rebuilds, watchdog.window_seconds)
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until ``stop``; raise what ended it otherwise, after draining and committing what was done."""
        connection_options(self._settings.kafka)  # TLS files are looked at before anything is begun
        async with contextlib.AsyncExitStack() as opened:
            self._beat = time.monotonic()
            await opened.enter_async_context(self._supervisor)
            await enter_handlers(self._routes, opened)
            log.info("started", http=f"http://{self._settings.http.host}:{self.http.port}")
            await self._consume()
            self._exit_if_stuck()
        if self._failure is not None:
            raise self._failure
        log.info("stopped")

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
                tally=self.tally,
                tasks=tasks,
                fail=self.fail,
                retry=self._settings.retry,
                dead_letter=self._settings.dead_letter,
                letters=letters,
                way_out=partial(way_out, self._settings.kafka),
            )
            loops = [
                tasks.create_task(self._guard(loop))
                for loop in (self._poll, engine.commit_forever, engine.measure_forever, self._listen, self._be_alive)
            ]
            await self._stopping.wait()
            self.state = "draining"
            if self._source.joined:
                log.info("draining", seconds=self._settings.delivery.drain_seconds)
            await engine.stop()
            loops[0].cancel()  # it may be making a client, which goes with it
            await asyncio.wait(loops[:1])
            await self._source.stop()
            if letters is not None:
                await letters.close()
            for loop in loops:
                loop.cancel()
            self._exit_if_stuck()

    async def _guard(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run one of the daemon's loops; if it raises, everything drains and the daemon ends with that error."""
        try:
            await loop()
        except Exception as error:
            log.debug("a loop ended", error=place_of(error))
            self.fail(error)

    def _exit_if_stuck(self) -> None:
        """End the process at once when a call outlived its cancellation: no task group could ever be left."""
        if self.engine is not None and self.engine.stuck_calls:
            log.error("a handler's call would not end; leaving without it", calls=self.engine.stuck_calls)
            sys.stderr.flush()
            os._exit(StuckCallError.exit_code)

    # -- the client, and the next one ----------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Consume through one client after the other: one that cannot go on is replaced, a few times at the most."""
        assert self.engine is not None
        try:
            await self._source.start(self.engine)
        except ClientLostError as lost:
            await self._replace_client(lost)
        while not self._stopping.is_set():
            self.state = "running"
            found = await self._poll_until_lost(self.engine)
            if found is None:
                return
            self.state = "rebuilding"
            await self._replace_client(found)

    async def _replace_client(self, lost: ClientLostError) -> None:
        """Make new clients until one has joined; raises StalledError when that is one too many."""
        joined = False
        while not joined and not self._stopping.is_set():
            log.error("this Kafka client cannot go on; making another", reason=lost.reason, why=str(lost))
            await asyncio.sleep(await self._backoff(lost))
            try:
                await self._source.rebuild(lost.reason)
                joined = True
            except ClientLostError as again:
                lost = again
        # What was found meanwhile was found of a client that is no more.
        self._lost = None
        self._lost_now.clear()

    async def _backoff(self, lost: ClientLostError) -> float:
        """Count a new client, and say how long it waits; while nobody can talk to the group it is not our fault."""
        if lost.reason in ("commit", "rebalance") and not await self._source.group_answers():
            return LONGEST_BACKOFF_SECONDS
        return self._rebuilt.begin(time.monotonic(), lost)

    async def _poll_until_lost(self, engine: Engine) -> ClientLostError | None:
        """Poll until the client is lost, or found to be; None at the daemon's end."""
        polling = asyncio.ensure_future(engine.poll_forever())
        told = asyncio.ensure_future(self._lost_now.wait())
        try:
            await asyncio.wait([polling, told], return_when=asyncio.FIRST_COMPLETED)
            if self._lost is not None:
                lost, self._lost = self._lost, None
                self._lost_now.clear()
                return lost
            polling.result()
        except ClientLostError as lost:
            return lost
        finally:
            for task in (polling, told):
                task.cancel()
            await asyncio.wait([polling, told])
        return None

    def _lose(self, lost: ClientLostError) -> None:
        self._lost = lost
        self._lost_now.set()

    def _cure(self, stall: Stall) -> None:
        """Take up what the watchdog found."""
        if not self._stopping.is_set():
            self._lose(ClientLostError(stall.kind, str(stall)))

    async def _listen(self) -> None:
        """Find out when brokers answer others and not this client: they may all have moved."""
        while True:
            await asyncio.sleep(LISTEN_SECONDS)
            silent = time.monotonic() - self._source.heard_at
            keys = list(self.engine.partitions) if self.engine is not None else []
            if self.state == "running" and silent > HEARD_SECONDS and await self._source.deaf(keys):
                self._lose(ClientLostError("deaf", f"for {silent:.0f} s brokers answer a new client and not this one"))

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
            client=sum(self.tally.client_rebuilds.values()),
        )

    def _scrape(self, accept: str) -> tuple[bytes, str]:
        return exposition(self._collector, accept)

    def _unhealthy(self) -> str | None:
        return self._supervisor.unhealthy

    def _unready(self) -> str | None:
        if self._stopping.is_set():
            return "stopping"
        if not self._source.joined or self.engine is None:
            return "not joined yet"
        if time.monotonic() - self._source.heard_at > HEARD_SECONDS:
            return f"no broker heard for {HEARD_SECONDS:g} s"
        if self._supervisor.unhealthy is not None:
            return self._supervisor.unhealthy
        rebalancing = self._source.rebalancing_for(time.monotonic())
        if rebalancing > self._settings.kafka.rebalance_timeout_seconds:
            return f"rebalancing for {rebalancing:.0f} s"
        halted = [str(p.key) for p in self.engine.partitions.values() if p.halt is not None]
        return f"halted: {', '.join(halted)}" if halted else None


class Rebuilds:
    """Counts new clients: each waits longer than the one before, and one too many ends the process."""

    def __init__(self, most: int, window_seconds: float) -> None:
        self._most = most
        self._window = window_seconds
        self._times: deque[float] = deque()

    def begin(self, now: float, lost: ClientLostError) -> float:
        """Note one, and return how many seconds to wait first; raises StalledError when there were too many.

        Those that wait for brokers to come back begin once and end when they are back: an outage is one at the most.
        """
        while self._times and self._times[0] < now - self._window:
            self._times.popleft()
        if len(self._times) >= self._most:
            raise StalledError(
                f"{self._most} new Kafka clients within {self._window:g} s (watchdog.rebuilds) did not help; the last"
                f" one was lost as {lost}"
            )
        self._times.append(now)
        return float(min(2 ** (len(self._times) - 1) - 1, LONGEST_BACKOFF_SECONDS))
