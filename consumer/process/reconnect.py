"""One Kafka client after the other: what cannot go on is replaced, after longer and longer waits, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import structlog

from consumer.delivery.engine import Engine
from consumer.errors import ClientLostError, StalledError
from consumer.kafka.source import KafkaSource
from consumer.settings.sections import WatchdogSettings

log = structlog.get_logger("consumer.process.reconnect")

HEARD_SECONDS = 30.0
"""For so long brokers may be silent before anybody asks why."""
LISTEN_SECONDS = 5.0
LONGEST_BACKOFF_SECONDS = 30.0


class Reconnect:
    """Owned by the daemon, as long-lived; the source holds the client of now."""

    def __init__(
        self, source: KafkaSource, engine: Engine, watchdog: WatchdogSettings, stopping: asyncio.Event
    ) -> None:
        self.state = "starting"
        """Or ``running``, or ``rebuilding``."""
        self._source = source
        self._engine = engine
        self._stopping = stopping
        self._rebuilds = Rebuilds(watchdog.rebuilds, watchdog.window_seconds)
        self._lost: ClientLostError | None = None
        self._lost_now = asyncio.Event()

    def lose(self, reason: str, why: str) -> None:
        """Say that the client of now cannot go on, though it does not know."""
        if not self._stopping.is_set():
            self._lost = ClientLostError(reason, why)
            self._lost_now.set()

    @property
    def silence(self) -> str | None:
        """Why no broker can be said to be there; None when one was heard of late."""
        silent = time.monotonic() - self._source.heard_at > HEARD_SECONDS
        return f"no broker heard for {HEARD_SECONDS:g} s" if silent else None

    async def poll_forever(self) -> None:
        """Join, and consume until the engine stops; raises StalledError when a client was one too many."""
        try:
            await self._source.start(self._engine)
        except ClientLostError as lost:
            await self._replace(lost)
        while not self._stopping.is_set():
            self.state = "running"
            found = await self._poll_until_lost()
            if found is None:
                return
            self.state = "rebuilding"
            await self._replace(found)

    async def listen_forever(self) -> None:
        """Find out when brokers answer others and not this client: they may all have moved."""
        while True:
            await asyncio.sleep(LISTEN_SECONDS)
            silent = time.monotonic() - self._source.heard_at
            if (
                self.state == "running"
                and silent > HEARD_SECONDS
                and await self._source.deaf(list(self._engine.partitions))
            ):
                self.lose("deaf", f"for {silent:.0f} s brokers answer a new client and not this one")

    async def _replace(self, lost: ClientLostError) -> None:
        """Make new clients until one has joined."""
        joined = False
        while not joined and not self._stopping.is_set():
            log.error("kafka_client_lost", reason=lost.reason, why=str(lost))
            await asyncio.sleep(await self._backoff(lost))
            try:
                await self._source.rebuild(lost.reason)
                joined = True
            except ClientLostError as failed:
                lost = failed
        # What was found meanwhile was found of a client that is no more.
        self._lost = None
        self._lost_now.clear()

    async def _backoff(self, lost: ClientLostError) -> float:
        """Count a new client, and say how long it waits; while nobody can talk to the group it is not our fault."""
        if lost.reason in ("commit", "rebalance") and not await self._source.group_answers():
            return LONGEST_BACKOFF_SECONDS
        return self._rebuilds.begin(time.monotonic(), lost)

    async def _poll_until_lost(self) -> ClientLostError | None:
        """Poll until the client is lost, or found to be; None at the daemon's end."""
        polling = asyncio.ensure_future(self._engine.poll_forever())
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
