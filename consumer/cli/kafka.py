"""``session-consumer kafka``: a local Apache Kafka in the foreground."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import click

from consumer.cli.run import until_signal
from consumer.kafka.local.cluster import LocalKafka


@click.command()
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="Number of brokers.")
@click.option(
    "--port",
    type=click.IntRange(0, 65533),
    default=9092,
    show_default=True,
    help="Port of the first broker; 0 picks a free one.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder that keeps the records; without it they are removed at the end.",
)
def kafka(brokers: str, port: int, folder: Path | None) -> None:
    """Run Apache Kafka on 127.0.0.1 until Ctrl-C. Needs the extra `local`, but no Docker and no Java.

    The first run downloads 45 MB into the user's Maven folder; later runs use them.
    """
    asyncio.run(until_signal(_serve(int(brokers), port, folder)))


async def _serve(brokers: int, port: int, folder: Path | None) -> None:
    report = functools.partial(click.echo, err=True)
    async with LocalKafka(brokers=brokers, port=port, folder=folder, report=report) as cluster:
        click.echo(cluster.bootstrap_servers)
        await cluster.wait()
