"""``session-consumer check``: tries everything that the daemon needs, and prints a table."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.cli.options import loaded, settings_options
from consumer.cli.run import loaded_routes, traced
from consumer.errors import ConsumerError
from consumer.http.listen import listen
from consumer.kafka.connection import connection_options
from consumer.kafka.inspection import inspecting
from consumer.kafka.probe import with_topics
from consumer.kafka.record_writer import RecordWriter
from consumer.logs import configure_logging
from consumer.routes.route import Route, enter_handlers
from consumer.routes.writing import check_targets, targets_of
from consumer.settings.numbered import MAX_WORKERS, numbered, require_numbers
from consumer.settings.sections import LOG_EVERYTHING, Settings, letters_of
from consumer.settings.sources import Loaded


@click.command(short_help="Check whether the daemon would run.")
@settings_options
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="N",
    help="Check what `run --workers N` needs: the ports of all, and handlers as the first worker has them.",
)
def check(config: Path | None, overrides: tuple[str, ...], workers: int | None) -> None:
    """Check settings, handlers, HTTP port, brokers, topics and group. Exits 0 only when the daemon would run."""
    failed = asyncio.run(_check(config, overrides, workers or 0))
    if failed is not None:
        raise click.exceptions.Exit(failed.exit_code)


Row = tuple[str, str, str]


async def _check(config: Path | None, overrides: tuple[str, ...], workers: int) -> ConsumerError | None:
    """Try each step and print the table; return the first error, with which ``run`` would end."""
    rows: list[Row] = []
    failures: list[ConsumerError] = []
    try:
        read = loaded(config, overrides)
        require_numbers(read.settings, workers)
    except ConsumerError as error:
        _print([("settings", "failed", str(error))])
        return error
    configure_logging(msgspec.structs.replace(read.settings.log, level="error"))
    rows.append(("settings", "ok", _origins(read)))
    routes: list[Route] = []
    await _try("handlers", _handlers(read, min(workers, 1), routes), rows, failures)
    ports = "http ports" if workers else "http port"
    await _try(ports, _ports(read.settings, workers), rows, failures)
    try:
        settings = await with_topics(read.settings)
        topics = settings.kafka.topics
        targets = {target for route in routes for target in targets_of(route, topics).values()}
        if targets and read.settings.kafka.topic_pattern:
            await _try("targets", _fit(routes, topics, read.settings), rows, failures)
        async with inspecting(settings.kafka, letters_of(settings), targets) as asked:
            for name, step in (
                ("brokers", asked.brokers),
                ("topics", asked.topics),
                ("dead letters", asked.dead_letters),
                *([("targets", asked.targets)] if targets else []),
                ("group", asked.group),
            ):
                await _try(name, asked.answer(step), rows, failures)
    except ConsumerError as error:
        rows.append(("brokers", "failed", str(error)))
        failures.append(error)
    _print(rows)
    return failures[0] if failures else None


async def _try(name: str, step: Awaitable[str], rows: list[Row], failures: list[ConsumerError]) -> None:
    """Add the row of one step; one that fails stops no other."""
    try:
        rows.append((name, "ok", await step))
    except ConsumerError as error:
        rows.append((name, "failed", str(error)))
        failures.append(error)


def _origins(read: Loaded) -> str:
    """Return each setting that is not a default, with where it comes from."""
    if not read.origins:
        return "all defaults"
    return f"{len(read.origins)} set: {', '.join(f'{name} ({read.origins[name]})' for name in sorted(read.origins))}"


async def _handlers(read: Loaded, worker: int, loaded_ones: list[Route]) -> str:
    """Import and enter every handler as the daemon does; this finds a file that cannot be written.

    ``loaded_ones`` gets their routes.
    """
    connection_options(read.settings.kafka)  # TLS files
    with traced(read.settings, loaded_routes(read, worker)) as routes:
        async with contextlib.AsyncExitStack() as opened:
            loaded_ones += routes
            await enter_handlers(routes, opened, partial(RecordWriter, read.settings))
    handlers = ", ".join(f"{each.name} → {each.handler}" for each in read.settings.routes or [LOG_EVERYTHING])
    types = "".join(f"; events of {each.topic}: {each.type} ({each.format})" for each in read.settings.schemas)
    return f"{handlers}{types}"


async def _ports(settings: Settings, workers: int) -> str:
    """Listen on the port, and on those of the workers."""
    https = [numbered(settings, number).http for number in range(workers + 1)]
    for http in https:
        for each in listen(http):
            each.close()
    first, *others = https
    if not first.port:
        taken = f"{len(https)} free ports of {first.host} are" if others else f"a free port of {first.host} is"
        return f"{taken} taken at start; the log names {'them' if others else 'it'}"
    return f"{first.address()} is free" + (f", and so are the next {len(others)}" if others else "")


async def _fit(routes: list[Route], topics: list[str], settings: Settings) -> str:
    """Check the targets of the topics that the pattern matches now, which were not known when routes were loaded."""
    for route in routes:
        check_targets(route, topics, settings)
    return "none is consumed here"


def _print(rows: list[tuple[str, str, str]]) -> None:
    table = Table("check", "result")
    table.add_column("what", overflow="fold")
    for name, result, what in rows:
        table.add_row(name, Text(result, "green" if result == "ok" else "bold red"), Text(what))
    Console().print(table)
