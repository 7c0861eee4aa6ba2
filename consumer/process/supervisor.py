"""The supervisor thread: answers HTTP and runs the watchdog, even while a handler blocks the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

import structlog

from consumer.errors import StalledError, place_of
from consumer.http.reader import StatusReader
from consumer.http.server import HttpServer
from consumer.logs import WrittenAside
from consumer.observe.watchdog import CURABLE, Watchdog
from consumer.process.children import keep_sockets_from_children
from consumer.process.memory import give_back_memory
from consumer.process.notify import Manager
from consumer.process.reconnect import Reconnect
from consumer.process.stacks import all_stacks
from consumer.process.vitals import DaemonVitals

log = structlog.get_logger("consumer.process.supervisor")

LOOK_SECONDS = 1.0
JOIN_SECONDS = 3.0
WRITE_SECONDS = 1.0
TRIM_SECONDS = 60.0


class Supervisor:
    """Runs the supervisor thread; owned by the daemon, entered before anything is consumed, left after all has ended.

    A stall is logged with the stacks of all threads and tasks. If a new client may cure it, the daemon's event loop is
    asked to replace the client. If it lasts ``give_up_seconds``, this thread ends the process: nothing else in the
    process can be trusted to do so. The thread waits for nothing that another thread may keep, such as a write to a
    stderr that nobody reads.
    """

    def __init__(
        self,
        http: HttpServer,
        watchdog: Watchdog,
        vitals: DaemonVitals,
        reconnect: Reconnect,
        status: StatusReader,
        notify: Manager,
        give_up_seconds: float,
    ) -> None:
        self._http = http
        self._watchdog = watchdog
        self._vitals = vitals
        self._reconnect = reconnect
        self._status = status
        self._notify = notify
        self._give_up_seconds = give_up_seconds
        self._leave: Callable[[int], object] = os._exit
        self._thread: threading.Thread | None = None
        self._lines = WrittenAside()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._watched = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        begun: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(begun,), name="session-consumer-watchdog", daemon=True)
        self._thread.start()
        await asyncio.wrap_future(begun)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._own_loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the thread's loop has ended already
                self._own_loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, JOIN_SECONDS)

    def log_stacks(self) -> None:
        """Log the stacks of all threads and tasks, from the supervisor's thread; may be called in a signal handler."""
        if self._own_loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread's loop has ended already
                self._own_loop.call_soon_threadsafe(_log_stacks, self._watched)

    def _run(self, begun: Future[None]) -> None:
        # A signal must interrupt the main thread, and the system may give it to any thread that does not block it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with self._lines, asyncio.Runner() as runner:
                runner.run(self._serve(begun))
        except BaseException as error:  # also if the thread's event loop could not be made
            if begun.done():
                raise
            begun.set_exception(error)

    async def _serve(self, begun: Future[None]) -> None:
        self._own_loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        keep_sockets_from_children(self._own_loop)
        async with self._http:
            begun.set_result(None)
            trim_at = time.monotonic() + TRIM_SECONDS
            while not self._stop.is_set():
                try:
                    self._look()
                    self._notify.alive(self._vitals.state)
                    self._status.sample()  # last: a page that cannot be drawn is no reason to restart the daemon
                except Exception as error:  # a fault of the watchdog must not end the thread
                    log.error("watchdog_failed", error=place_of(error))  # noqa: TRY400
                if time.monotonic() >= trim_at:
                    trim_at = time.monotonic() + TRIM_SECONDS
                    give_back_memory()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._stop.wait()

    def _look(self) -> None:
        before = self._watchdog.stall
        stall = self._watchdog.look(time.monotonic(), self._vitals.read())
        if stall is not None and (before is None or stall.kind != before.kind):
            log.error(
                "daemon_stalled",
                why=str(stall),
                seconds=round(time.monotonic() - stall.since, 1),
                stacks=all_stacks(self._watched),
            )
            if stall.kind in CURABLE:
                with contextlib.suppress(RuntimeError):  # the daemon's loop is closed
                    self._watched.call_soon_threadsafe(self._reconnect.lose, stall.kind, str(stall))
        elif stall is None and before is not None:
            log.info("stall_ended")
        if stall is not None and time.monotonic() - stall.late_at > self._give_up_seconds:
            log.error("stall_given_up", why=str(stall), exit_code=StalledError.exit_code)
            self._lines.wait(WRITE_SECONDS)
            self._leave(StalledError.exit_code)


def _log_stacks(watched: asyncio.AbstractEventLoop) -> None:
    log.warning("stacks_requested", stacks=all_stacks(watched))
