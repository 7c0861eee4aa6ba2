"""``session-consumer run``: the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from consumer.cli.options import loaded, settings_options
from consumer.errors import SettingsError
from consumer.logs import configure_logging
from consumer.observe.loop_time import TimedLoop
from consumer.process.notify import Notify
from consumer.process.parts import make_daemon
from consumer.process.signals import MARGIN_SECONDS, Signals, end_nothing, ended_in_time
from consumer.routes.load import load_routes
from consumer.routes.route import Route
from consumer.settings.sections import Settings
from consumer.settings.sources import COMMAND_LINE, Loaded

Result = TypeVar("Result")


@click.command()
@settings_options
def run(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    The first signal drains: started calls end, finished records are committed, and the daemon leaves the group. A
    second signal ends it at once. SIGHUP makes handlers reopen their files. Without routes in the settings, every event
    is logged.
    """
    end_nothing((signal.SIGHUP, signal.SIGUSR1))  # until the daemon can follow them
    with asyncio.Runner(loop_factory=TimedLoop) as runner, ended_in_time():
        read = loaded(config, overrides)
        configure_logging(read.settings.log)
        runner.run(run_daemon(read))


async def run_daemon(read: Loaded) -> None:
    """Run one daemon; the first signal drains it."""
    settings = read.settings
    notify = Notify(os.environ, settings.delivery.drain_seconds + MARGIN_SECONDS)  # before a handler starts a process
    with traced(settings, loaded_routes(read)) as routes:
        daemon = make_daemon(settings, routes, notify)
        reopen = partial(asyncio.get_running_loop().call_soon_threadsafe, daemon.reopen)
        others: dict[int, Callable[[], object]] = {signal.SIGHUP: reopen, signal.SIGUSR1: daemon.log_stacks}
        with Signals(daemon.stop, settings.delivery.drain_seconds, others):
            await daemon.run()


def loaded_routes(read: Loaded) -> list[Route]:
    """Import and make the handlers of the settings."""
    return load_routes(read.settings, os.environ, on_command_line=read.origins.get("routes") == COMMAND_LINE)


@contextmanager
def traced(settings: Settings, routes: list[Route]) -> Iterator[list[Route]]:
    """Trace the calls of the routes, if ``tracing.enabled``. Raises SettingsError without the extra ``otel``."""
    if not settings.tracing.enabled:
        yield routes
        return
    try:
        from consumer.tracing import Tracing, open_provider  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise SettingsError(
            "tracing.enabled: OpenTelemetry is not installed; install session-consumer with the extra `otel`"
        ) from error
    tracing = Tracing(open_provider(), settings.kafka)
    try:
        yield [tracing.traced(route) for route in routes]
    finally:
        tracing.close()


async def until_signal(work: Coroutine[Any, Any, Result], seconds: float = 20.0) -> Result | None:
    """Run a coroutine that the first signal cancels; then returns None.

    The coroutine has about ``seconds`` to clean up; then, or at a second signal, the process ends.
    """
    task = asyncio.ensure_future(work)
    with Signals(task.cancel, seconds):
        await asyncio.wait([task])
    return None if task.cancelled() else task.result()
