"""The parent process of several workers: its parts, and its signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from consumer.http.workers.server import WorkersServer
from consumer.logs import WrittenAside
from consumer.process.notify import Notify
from consumer.process.signals import MARGIN_SECONDS, SECOND, leave
from consumer.process.workers.worker import Worker
from consumer.process.workers.workers import Rules, Workers
from consumer.settings.numbered import numbered, require_numbers
from consumer.settings.sections import Settings

log = structlog.get_logger("consumer.process.workers.parent")

STOPS = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (signal.SIGHUP, signal.SIGUSR1)


async def run_workers(settings: Settings, count: int, command: Sequence[str], notify: Notify) -> None:
    """Run workers until a signal, and serve HTTP for all of them. No line waits for a reader of stderr.

    Raises SettingsError before any is started, and WorkersEndedError as ``Workers.run`` does.
    """
    require_numbers(settings, count)
    made = [Worker(number, command, numbered(settings, number).http.port) for number in range(1, count + 1)]
    watchdog = settings.watchdog
    rules = Rules(settings.delivery.drain_seconds + MARGIN_SECONDS, watchdog.rebuilds, watchdog.window_seconds)
    workers = Workers(made, rules, notify)
    with following(workers), WrittenAside():
        async with WorkersServer(settings, workers) as server:
            log.info("workers_started", workers=count, http=f"http://{settings.http.address(server.port)}")
            await workers.run()


@contextmanager
def following(workers: Workers) -> Iterator[None]:
    """Follow signals: the first SIGTERM or SIGINT drains, a second one kills; others go to the workers."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if number in received:
            workers.kill()
            leave(128 + number, SECOND)
        received.extend(STOPS)
        workers.stop()

    received: list[int] = []
    before = {each: signal.getsignal(each) for each in (*STOPS, *PASSED_ON)}
    for each in STOPS:
        loop.add_signal_handler(each, stop, each)
    for each in PASSED_ON:
        loop.add_signal_handler(each, workers.send, each)
    try:
        yield
    finally:
        for each, handler in before.items():
            loop.remove_signal_handler(each)
            signal.signal(each, handler)
