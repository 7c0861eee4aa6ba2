"""``session-consumer kafka``: a real Apache Kafka on this machine, in the foreground."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from consumer.kafka.local import LocalKafka
from consumer.signals import Signals


@click.command()
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="How many.")
@click.option(
    "--port", type=click.IntRange(0, 65533), default=9092, show_default=True, help="The first's; 0: a free one."
)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep records here, else they go with the brokers.")
def kafka(brokers: str, port: int, folder: Path | None) -> None:
    """Run Apache Kafka on 127.0.0.1 until Ctrl-C; needs the extra `local`, no Docker, no Java.

    The first run downloads it (about 120 MB in all, kept in the user's cache).
    """
    asyncio.run(_serve(int(brokers), port, folder))


async def _serve(brokers: int, port: int, folder: Path | None) -> None:
    stopping = asyncio.Event()
    with Signals(stopping.set, drain_seconds=20.0):
        cluster = LocalKafka(brokers=brokers, port=port, folder=folder, report=lambda line: click.echo(line, err=True))
        entering = asyncio.ensure_future(cluster.__aenter__())
        waiting = asyncio.ensure_future(stopping.wait())
        await asyncio.wait([entering, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not entering.done():
            entering.cancel()
            await asyncio.wait([entering])
            return
        await entering
        try:
            click.echo(cluster.bootstrap_servers)
            failing = asyncio.ensure_future(cluster.wait())
            await asyncio.wait([failing, waiting], return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                await failing
            failing.cancel()
        finally:
            waiting.cancel()
            await cluster.__aexit__(None, None, None)
