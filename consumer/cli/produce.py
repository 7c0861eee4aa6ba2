"""``session-consumer produce``: JSON Lines, or generated sessions, onto a topic."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import click

from consumer.cli.options import loaded, settings_options
from consumer.errors import ConsumerError
from consumer.generate import keyed_values
from consumer.kafka.producer import Outgoing, create_topic, open_producer
from consumer.logs import configure_logging
from consumer.settings import Settings
from schemas.wire import session_reader


@click.command()
@click.argument("file", required=False)
@click.option("--generate", type=click.IntRange(1), metavar="N", help="Produce N made-up sessions instead of a file's.")
@click.option(
    "--rate", type=click.FloatRange(0), default=0.0, help="At most this many a second; 0: as fast as it goes."
)
@click.option("--topic", help="The topic; without it, the first of kafka.topics.")
@click.option(
    "--create-topic", "partitions", type=click.IntRange(1), metavar="PARTITIONS", help="Create it when missing."
)
@settings_options
def produce(
    file: str | None,
    generate: int | None,
    rate: float,
    topic: str | None,
    partitions: int | None,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Put the lines of FILE (or of standard input: -) on a topic, or N generated sessions.

    A line is sent as it is, byte for byte; its key is the session's id when it is a session.
    """
    if (file is None) == (generate is None):
        raise click.UsageError("name a FILE (- for standard input) or --generate N")
    settings = loaded(config, overrides).settings
    configure_logging(settings.log)
    topic = topic or settings.kafka.topics[0]
    count = asyncio.run(_produce(settings, topic, partitions, file or generate or 0, rate))
    click.echo(f"produced {count} records to topic {topic}", err=True)


async def _produce(settings: Settings, topic: str, partitions: int | None, what: str | int, rate: float) -> int:
    if partitions:
        await create_topic(settings.kafka, topic, partitions)
    async with open_producer(settings.kafka, topic) as producer:
        if isinstance(what, int):
            made = (Outgoing(key, value) for key, value in itertools.islice(keyed_values(), what))
            await producer.send_all(made, rate)
        else:
            await producer.send_all(_lines(what), rate)
        return sum(map(len, producer.acknowledged.values()))


async def _lines(name: str) -> AsyncIterator[Outgoing]:
    key_of = _key_reader()
    try:
        stream: BinaryIO = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115, ASYNC230 - one file, read line by line
    except OSError as error:
        raise ConsumerError(f"{name}: {error.strerror}") from error
    with stream:
        # A thread reads: a pipe may stay silent for long, and what was sent must be on its way meanwhile. Lines end
        # at \n only: JSON texts may hold other line separators.
        while line := await asyncio.to_thread(stream.readline):
            value = line.rstrip(b"\r\n")
            if value:
                yield Outgoing(key_of(value), value)


def _key_reader() -> Callable[[bytes], bytes | None]:
    read = session_reader()

    def key_of(value: bytes) -> bytes | None:
        try:
            session: Any = read(value)
        except Exception:
            return None  # what is not a session is sent all the same, without a key
        return session.session_id.encode() if session.session_id else None

    return key_of
