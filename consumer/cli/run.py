"""``session-consumer run``: the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from consumer.cli.options import loaded, settings_options
from consumer.errors import SettingsError
from consumer.logs import configure_logging
from consumer.observe.loop_time import TimedLoop
from consumer.process.notify import Notify
from consumer.process.signals import MARGIN_SECONDS, Signals, end_as_usual, end_at_once, end_nothing, ended_in_time
from consumer.process.workers.lifeline import Lifeline
from consumer.routes.load import load_routes
from consumer.routes.route import Route
from consumer.settings.numbered import MAX_WORKERS, numbered
from consumer.settings.sections import Settings
from consumer.settings.sources import COMMAND_LINE, Loaded

Result = TypeVar("Result")


def _worker_of(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, Lifeline] | None:
    """Return the number of this worker, and its connection to its parent; None without workers."""
    if text is None:
        return None
    number, _, descriptor = text.partition(":")
    try:
        return int(number), Lifeline(int(descriptor))
    except (ValueError, OSError) as error:
        raise click.UsageError("--worker is given by the parent of workers only; use --workers") from error


@click.command()
@settings_options
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="N",
    help="Run N processes of the daemon in one group, and a parent that starts them again when they end. Worker i"
    " serves HTTP at http.port + i, the parent at http.port.",
)
@click.option("--worker", hidden=True, callback=_worker_of, help="NUMBER:DESCRIPTOR, given by the parent.")
def run(
    config: Path | None, overrides: tuple[str, ...], workers: int | None, worker: tuple[int, Lifeline] | None
) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    The first signal drains: started calls end, finished records are committed, and the daemon leaves the group. A
    second signal ends it at once. SIGHUP makes handlers reopen their files. Without routes in the settings, every event
    is logged.
    """
    end_nothing((signal.SIGHUP, signal.SIGUSR1))  # until the daemon can follow them
    end_at_once()
    if worker is None and workers is not None:
        _run_parent(config, overrides, workers)
        return
    number, lifeline = worker or (0, None)
    with asyncio.Runner(loop_factory=TimedLoop) as runner, ended_in_time(), _naming(number):
        read = loaded(config, overrides)
        read = msgspec.structs.replace(read, settings=numbered(read.settings, number))
        configure_logging(read.settings.log, worker=number)
        runner.run(run_daemon(read) if lifeline is None else run_daemon(read, number, lifeline))


def _run_parent(config: Path | None, overrides: tuple[str, ...], workers: int) -> None:
    """Start the workers with the command of this process, and follow them."""
    from consumer.process.workers.parent import run_workers  # noqa: PLC0415 - no other command needs it

    with asyncio.Runner() as runner, ended_in_time():
        read = loaded(config, overrides)
        configure_logging(read.settings.log)
        end_as_usual()
        runner.run(run_workers(read.settings, workers, [sys.executable, *sys.orig_argv[1:]], notified(read.settings)))


@contextmanager
def _naming(worker: int) -> Iterator[None]:
    """Name the worker, if there are several, in the message of an error."""
    try:
        yield
    except Exception as error:
        if worker:
            error.add_note(f"worker {worker}")
        raise


async def run_daemon(read: Loaded, worker: int = 0, lifeline: Lifeline | None = None) -> None:
    """Run one daemon; the first signal drains it, and so does the end of the parent at ``lifeline``."""
    from consumer.process.parts import make_daemon  # noqa: PLC0415 - the parent of workers needs no Kafka client

    settings = read.settings
    manager = lifeline or notified(settings)  # before a handler can start a process
    with traced(settings, loaded_routes(read, worker)) as routes:
        daemon = make_daemon(settings, routes, manager)
        reopen = partial(asyncio.get_running_loop().call_soon_threadsafe, daemon.reopen)
        others: dict[int, Callable[[], object]] = {signal.SIGHUP: reopen, signal.SIGUSR1: daemon.log_stacks}
        signals = Signals(daemon.stop, settings.delivery.drain_seconds, others)
        end_as_usual()
        with signals, nullcontext() if lifeline is None else lifeline.stopping(signals.begin):
            await daemon.run()


def notified(settings: Settings) -> Notify:
    """Take the service manager's variables, so that no process which a handler starts speaks for this one."""
    return Notify(os.environ, settings.delivery.drain_seconds + MARGIN_SECONDS)


def loaded_routes(read: Loaded, worker: int = 0) -> list[Route]:
    """Import and make the handlers of the settings, for the worker of that number if there are several."""
    on_command_line = read.origins.get("routes") == COMMAND_LINE
    return load_routes(read.settings, os.environ, on_command_line=on_command_line, worker=worker)


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
