"""``session-consumer check``: would the daemon run? Each thing it needs, tried in order, as a table."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.cli.options import loaded, settings_options
from consumer.daemon import make_routes
from consumer.errors import ConsumerError
from consumer.kafka.probe import probe_group, probe_topics
from consumer.logs import configure_logging
from consumer.settings import LOG_EVERYTHING, Settings


@click.command()
@settings_options
def check(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Check settings, handlers, the HTTP port, brokers, topics and the group; exit 0 only when the daemon would run."""
    rows: list[tuple[str, str, str]] = []
    try:
        asyncio.run(_check(config, overrides, rows))
    except ConsumerError as error:
        rows.append((_STEPS[len(rows)], "failed", str(error)))
        _print(rows)
        raise click.exceptions.Exit(error.exit_code) from error
    _print(rows)


_STEPS = ["settings", "handlers", "http port", "topics", "group"]


async def _check(config: Path | None, overrides: tuple[str, ...], rows: list[tuple[str, str, str]]) -> None:
    read = loaded(config, overrides)
    settings = read.settings
    configure_logging(settings.log)
    changed = ", ".join(sorted(read.origins)) or "all defaults"
    rows.append(("settings", "ok", f"{len(read.origins)} set: {changed}" if read.origins else changed))
    steps: list[Callable[[Settings], Awaitable[str]]] = [_handlers, _port, _topics, _group]
    for name, step in zip(_STEPS[1:], steps, strict=True):
        rows.append((name, "ok", await step(settings)))


async def _handlers(settings: Settings) -> str:
    make_routes(settings, os.environ)
    return ", ".join(f"{each.name} → {each.handler}" for each in settings.routes or [LOG_EVERYTHING])


async def _port(settings: Settings) -> str:
    try:
        with socket.create_server((settings.http.host, settings.http.port)):
            return f"{settings.http.host}:{settings.http.port} is free"
    except OSError as error:
        where = f"{settings.http.host}:{settings.http.port}"
        raise ConsumerError(f"http.host, http.port: cannot listen on {where} ({error.strerror})") from error


async def _topics(settings: Settings) -> str:
    counts = await probe_topics(settings.kafka)
    return ", ".join(f"{topic} ({count} partitions)" for topic, count in counts.items())


async def _group(settings: Settings) -> str:
    return await probe_group(settings.kafka)


def _print(rows: list[tuple[str, str, str]]) -> None:
    table = Table("check", "result", "what", title=None)
    for name, result, what in rows:
        table.add_row(name, Text(result, "green" if result == "ok" else "bold red"), Text(what))
    Console().print(table)
