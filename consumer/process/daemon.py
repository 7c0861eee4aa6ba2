"""The daemon: start, run, drain, leave the group."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import structlog

from consumer.delivery.engine import Engine
from consumer.errors import place_of
from consumer.http.server import HttpServer
from consumer.kafka.client_source import ClientSource
from consumer.kafka.connection import connection_options
from consumer.kafka.group import Group
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.record_writer import RecordWriter
from consumer.observe.counters import Counters
from consumer.process.lifecycle import Lifecycle
from consumer.process.measuring import Measuring
from consumer.process.notify import Manager
from consumer.process.reconnect import Reconnect
from consumer.process.supervisor import Supervisor
from consumer.process.vitals import DaemonVitals
from consumer.routes.route import Route, enter_handlers
from consumer.settings.sections import Settings

log = structlog.get_logger("consumer.process.daemon")


class Parts(NamedTuple):
    """The parts of a daemon; made by ``consumer/process/parts.py``."""

    settings: Settings
    routes: Sequence[Route]
    lifecycle: Lifecycle
    counters: Counters
    letters: LetterBox | None
    source: ClientSource
    engine: Engine
    reconnect: Reconnect
    vitals: DaemonVitals
    group: Group
    measuring: Measuring
    http: HttpServer
    notify: Manager
    supervisor: Supervisor


class Daemon:
    """One run of the consumer; made by ``make_daemon``, started by ``run``, ended by ``stop``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def counters(self) -> Counters:
        """The counts since the start."""
        return self._parts.counters

    @property
    def http(self) -> HttpServer:
        """The HTTP server; its port is known while the daemon runs."""
        return self._parts.http

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``rebuilding`` or ``draining``."""
        return self._parts.vitals.state

    async def run(self) -> None:
        """Consume until ``stop``. After a failure: drain, commit what is done, and raise the failure."""
        parts = self._parts
        connection_options(parts.settings.kafka)  # raises for an unusable TLS file, before anything is opened
        parts.vitals.beat()
        async with contextlib.AsyncExitStack() as opened:
            await opened.enter_async_context(parts.supervisor)
            await enter_handlers(parts.routes, opened, partial(RecordWriter, parts.settings))
            log.info("daemon_started", http=f"http://{parts.settings.http.address(parts.http.port)}")
            parts.notify.ready(parts.http.port)
            others = [
                parts.reconnect.listen_forever,
                parts.engine.commit_forever,
                parts.measuring.note_forever,
                parts.measuring.ask_forever,
                parts.vitals.beat_forever,
                parts.group.describe_forever,
            ]
            await parts.lifecycle.run(parts.engine, parts.source, parts.letters, parts.reconnect.poll_forever, others)
            parts.lifecycle.raise_failure()
        log.info("daemon_stopped")

    def stop(self) -> None:
        """Begin to drain; may be called before ``run``, and more than once."""
        self._parts.lifecycle.stop()

    def reopen(self) -> None:
        """Make the handlers reopen their files. What fails is logged; a later write may try again."""
        for route in self._parts.routes:
            if route.handler.reopen is not None:
                try:
                    route.handler.reopen()
                except Exception as error:
                    log.warning("reopen_failed", route=route.name, why=place_of(error))

    def log_stacks(self) -> None:
        """Log the stacks of all threads and tasks; may be called in a signal handler."""
        self._parts.supervisor.log_stacks()
