"""``session-consumer run``: the daemon."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from consumer.cli.options import loaded, settings_options
from consumer.daemon import Daemon, make_routes
from consumer.logs import configure_logging
from consumer.settings import Settings
from consumer.signals import Signals


@click.command()
@settings_options
def run(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    The first signal drains: started calls end, what is done is committed, the group is left. A second one leaves at
    once. Without routes in the settings, every event is logged.
    """
    settings = loaded(config, overrides).settings
    configure_logging(settings.log)
    asyncio.run(run_daemon(settings))


async def run_daemon(settings: Settings) -> None:
    """Run one daemon with signals caught."""
    daemon = Daemon(settings, make_routes(settings, os.environ))
    async with supervised(daemon, settings.delivery.drain_seconds) as running:
        await asyncio.wait([running])


@asynccontextmanager
async def supervised(daemon: Daemon, drain_seconds: float) -> AsyncIterator[asyncio.Task[None]]:
    """Run a daemon beside the block, with signals caught; stop it at the end and raise what it raised."""
    with Signals(daemon.stop, drain_seconds):
        running = asyncio.create_task(daemon.run())
        try:
            yield running
        finally:
            daemon.stop()
            await asyncio.wait([running])
        await running
