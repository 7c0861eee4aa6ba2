"""``session-consumer produce``: writes JSON Lines, or generated sessions, to a topic."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from consumer.cli.options import loaded, require_rate, settings_options
from consumer.cli.run import until_signal
from consumer.errors import SettingsError, counted
from consumer.kafka.probe import probe_topics
from consumer.kafka.producer import Outgoing, create_topic, open_producer
from consumer.logs import configure_logging
from consumer.record import TopicPartition
from consumer.settings.sections import Settings
from schemas.samples import keyed_values
from schemas.wire import session_reader

Counts = dict[TopicPartition, list[int]]


@click.command()
@click.argument("file", required=False)
@click.option("--generate", type=click.IntRange(1), metavar="N", help="Produce N generated sessions instead of a file.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Maximum records a second; 0: no limit.")
@click.option("--topic", help="Topic to write to; without it, the first of kafka.topics.")
@click.option(
    "--create-topic",
    "partitions",
    type=click.IntRange(1),
    metavar="PARTITIONS",
    help="Create the topic and its dead-letter topic, if they are missing.",
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
    """Write lines or generated sessions to a topic.

    The lines are those of FILE (- for standard input). A line is written byte for byte. Its key is the session's id, if
    it is a session.
    """
    if (file is None) == (generate is None):
        raise click.UsageError("name a FILE (- for standard input) or --generate N")
    require_rate(rate)
    settings = loaded(config, overrides).settings
    configure_logging(settings.log)
    if not topic and not settings.kafka.topics:
        raise click.UsageError("the settings have kafka.topic_pattern and no topics; name one with --topic")
    topic = topic or settings.kafka.topics[0]
    acknowledged: Counts = {}
    asyncio.run(until_signal(_produce(settings, topic, partitions, file or generate or 0, rate, acknowledged)))
    click.echo(f"produced {counted(sum(map(len, acknowledged.values())), 'record')} to topic {topic}", err=True)


async def _produce(
    settings: Settings, topic: str, partitions: int | None, what: str | int, rate: float, acknowledged: Counts
) -> None:
    with _opened(what) as stream:
        kafka = msgspec.structs.replace(settings.kafka, topics=[topic])
        if partitions:
            for name in filter(None, (topic, settings.dead_letter.topic_for(topic, settings.kafka.group_id))):
                await create_topic(kafka, name, partitions)
        else:
            await probe_topics(kafka, "choose another with --topic, or create it with --create-topic N")
        async with open_producer(kafka, topic, acknowledged) as producer:
            if stream is None:
                made = (Outgoing(key, value) for key, value in itertools.islice(keyed_values(), int(what)))
                await producer.send_all(made, rate)
            else:
                await producer.send_all(_lines(stream), rate)


@contextmanager
def _opened(what: str | int) -> Iterator[BinaryIO | None]:
    """Open the file, before the topic is used; yields None when sessions are generated."""
    if isinstance(what, int):
        yield None
    elif what == "-":
        yield sys.stdin.buffer
    else:
        try:
            stream = Path(what).open("rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise SettingsError(f"{what}: {error.strerror}") from error
        with stream:
            yield stream


async def _lines(stream: BinaryIO) -> AsyncIterator[Outgoing]:
    key_of = _key_reader()
    # Lines end at \n only: JSON may contain other line separators.
    while line := await _read_line(stream):
        value = line.rstrip(b"\r\n")
        if value:
            yield Outgoing(key_of(value), value)


async def _read_line(stream: BinaryIO) -> bytes:
    """Read a line in a daemon thread.

    A pipe may be silent for long; records must still be sent during that time, and a signal must end the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def answer(line: bytes) -> None:
        if not future.done():
            future.set_result(line)

    def read() -> None:
        try:
            line = stream.readline()
        except (OSError, ValueError):
            line = b""
        with contextlib.suppress(RuntimeError):  # the loop is closed, because the command was interrupted
            loop.call_soon_threadsafe(answer, line)

    threading.Thread(target=read, daemon=True).start()
    return await future


def _key_reader() -> Callable[[bytes], bytes | None]:
    read = session_reader()

    def key_of(value: bytes) -> bytes | None:
        try:
            session: Any = read(value)
        except Exception:
            return None  # a line that is not a session is sent without a key
        return session.session_id.encode() if session.session_id else None

    return key_of
