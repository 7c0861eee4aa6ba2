"""Replacement of a Kafka client that cannot go on: each new one waits longer, up to ``watchdog.rebuilds``."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import structlog

from consumer.delivery.engine import Engine
from consumer.errors import ClientLostError, StalledError, place_of
from consumer.kafka.client_source import ClientSource
from consumer.process.lifecycle import is_cancelled
from consumer.settings.sections import WatchdogSettings

log = structlog.get_logger("consumer.process.reconnect")

HEARD_SECONDS = 30.0
"""Silence of the brokers after which another client asks whether they answer."""
LISTEN_SECONDS = 5.0
LONGEST_BACKOFF_SECONDS = 30.0


class Reconnect:
    """Polls, and replaces a lost client; owned by the daemon and as long-lived. The source holds the current client."""

    def __init__(
        self, source: ClientSource, engine: Engine, watchdog: WatchdogSettings, stopping: asyncio.Event
    ) -> None:
        self.state = "starting"
        """``starting``, ``running`` or ``rebuilding``."""
        self._source = source
        self._engine = engine
        self._stopping = stopping
        self._rebuilds = Rebuilds(watchdog.rebuilds, watchdog.window_seconds)
        self._lost: ClientLostError | None = None
        self._lost_now = asyncio.Event()
        self._failed_looks: set[str] = set()

    def lose(self, reason: str, why: str) -> None:
        """Give up the current client, though it has raised no error."""
        if not self._stopping.is_set():
            self._lost = ClientLostError(reason, why)
            self._lost_now.set()

    @staticmethod
    def silence(seconds: float) -> str | None:
        """Message that no broker has answered for ``HEARD_SECONDS``; None if that is longer than ``seconds``."""
        return f"no broker answered for {HEARD_SECONDS:g} s" if seconds > HEARD_SECONDS else None

    async def poll_forever(self) -> None:
        """Join the group and consume until the engine stops; raise StalledError after too many new clients."""
        try:
            await self._source.start(self._engine)
        except ClientLostError as lost:
            await self._replace(lost)
        while not self._stopping.is_set():
            self.state = "running"
            reason = await self._poll_until_lost()
            if reason is None:
                return
            self.state = "rebuilding"
            await self._replace(reason)

    async def listen_forever(self) -> None:
        """Replace a client that brokers do not answer although they answer a new one: they may all have moved.

        A look that fails is repeated, whatever it raised: libraries also let a CancelledError of their tasks escape.
        """
        while True:
            await asyncio.sleep(LISTEN_SECONDS)
            try:
                await self._listen()
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                self._note_failed_look(place_of(error))

    async def _listen(self) -> None:
        silent = time.monotonic() - self._source.heard_at
        if (
            self.state == "running"
            and silent > HEARD_SECONDS
            and await self._source.deaf(list(self._engine.partitions))
        ):
            self.lose("deaf", f"brokers answer a new client, but have not answered this one for {silent:.0f} s")

    def _note_failed_look(self, kind: str) -> None:
        """Log each kind of failure once."""
        if kind not in self._failed_looks:
            self._failed_looks.add(kind)
            log.warning("listen_failed", error=kind)

    async def _replace(self, lost: ClientLostError) -> None:
        """Make new clients until one has joined the group."""
        joined = False
        while not joined and not self._stopping.is_set():
            log.error("kafka_client_lost", reason=lost.reason, why=str(lost))
            await asyncio.sleep(await self._backoff(lost))
            try:
                await self._source.rebuild(lost.reason)
                joined = True
            except ClientLostError as failed:
                lost = failed
        # A loss reported during the replacement was that of an old client.
        self._lost = None
        self._lost_now.clear()

    async def _backoff(self, lost: ClientLostError) -> float:
        """Return the wait before a new client, and count the client.

        A client lost over a position, a commit or a rebalance is not counted while another client gets no answer from
        the group either: then the client is not at fault.
        """
        if lost.reason in ("position", "commit", "group") and not await self._source.group_answers():
            return LONGEST_BACKOFF_SECONDS
        return self._rebuilds.begin(time.monotonic(), lost)

    async def _poll_until_lost(self) -> ClientLostError | None:
        """Poll until the client fails or ``lose`` gives it up; return the reason, or None at the daemon's end."""
        polling = asyncio.ensure_future(self._engine.poll_forever())
        given_up = asyncio.ensure_future(self._lost_now.wait())
        try:
            await asyncio.wait([polling, given_up], return_when=asyncio.FIRST_COMPLETED)
            if self._lost is not None:
                lost, self._lost = self._lost, None
                self._lost_now.clear()
                return lost
            if polling.cancelled():
                return ClientLostError("error", "a call of the Kafka client was cancelled, though nobody cancelled it")
            polling.result()
        except ClientLostError as lost:
            return lost
        finally:
            for task in (polling, given_up):
                task.cancel()
            await asyncio.wait([polling, given_up])
        return None


class Rebuilds:
    """Counts new clients: each waits longer than the one before; too many within the window end the process."""

    def __init__(self, limit: int, window_seconds: float) -> None:
        self._limit = limit
        self._window = window_seconds
        self._times: deque[float] = deque()

    def begin(self, now: float, lost: ClientLostError) -> float:
        """Count a new client and return how many seconds to wait before it; raise StalledError if there were too many.

        A client that waits for brokers to come back is counted once and waits until they do. So an outage of the
        brokers counts as one new client at most.
        """
        while self._times and self._times[0] < now - self._window:
            self._times.popleft()
        if len(self._times) >= self._limit:
            raise StalledError(
                f"{self._limit} new Kafka clients within {self._window:g} s (watchdog.rebuilds) did not help; the last"
                f" one was given up: {lost}"
            )
        self._times.append(now)
        return float(min(2 ** (len(self._times) - 1) - 1, LONGEST_BACKOFF_SECONDS))
