"""``session-consumer replay``: runs a stretch of the topics again through chosen routes."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from consumer.cli.bounded import run_bounded
from consumer.cli.filters import milliseconds
from consumer.cli.options import loaded, require_rate, settings_options
from consumer.cli.progress import ABOVE_BARS, Progress
from consumer.cli.run import loaded_routes, until_signal
from consumer.errors import ConsumerError, SettingsError, counted, hint
from consumer.kafka.probe import with_topics
from consumer.kafka.stretch import Place, Stretch, begin_stretch, end_stretch, find_stretch
from consumer.logs import configure_logging
from consumer.process.lifecycle import Lifecycle
from consumer.redrive.replay import Chosen, Replay, make_replay, replay_kafka
from consumer.routes.route import Route
from consumer.routes.topics import Topics, load_schemas
from consumer.settings.sections import Settings

WITHOUT_EFFECTS = {"consumer.handlers.log:Log", "consumer.handlers.stats:Stats"}
"""Handlers that change nothing outside of their process."""
LATE_SECONDS = 300.0
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, in UTC; Kafka knows no time before 1970."""


def _place(_context: click.Context, option: click.Parameter, value: str | None) -> Place:
    """Parse an offset, or a time as ``dlq`` does; None is the end."""
    if value is None:
        return Place()
    if value.isdecimal():
        return Place(offset=int(value))
    time_ms = milliseconds(_context, option, value)
    if time_ms is None or not 0 <= time_ms <= LAST_MS:
        raise click.BadParameter(f"{value!r} is no time of a record; write one from 1970-01-01 to 9999-12-31, in UTC")
    return Place(time_ms=time_ms)


OPTIONS = (
    click.option(
        "--late",
        type=click.FloatRange(0, 31_536_000),
        default=LATE_SECONDS,
        show_default=True,
        help="Seconds by which a record may follow later ones: so far behind --to it is looked for.",
    ),
    click.option("--partition", "partitions", multiple=True, type=click.IntRange(0), help="Only this one; repeatable."),
    click.option("--topic", "topics", multiple=True, metavar="NAME", help="Only this topic; repeatable."),
    click.option("--route", "routes", multiple=True, metavar="NAME", help="Only this route; repeatable."),
    click.option(
        "--to",
        "end",
        metavar="TIME|OFFSET",
        callback=_place,
        help="The first that is not replayed. Without it: the end.",
    ),
    click.option(
        "--from", "begin", required=True, metavar="TIME|OFFSET", callback=_place, help="The first that is replayed."
    ),
)


def choice(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose what is replayed; the command gets them as ``chosen``."""

    @functools.wraps(command)
    def with_choice(
        *,
        begin: Place,
        end: Place,
        routes: tuple[str, ...],
        topics: tuple[str, ...],
        partitions: tuple[int, ...],
        late: float,
        **others: Any,
    ) -> None:
        pairs = (begin.offset, end.offset), (begin.time_ms, end.time_ms)
        if any(a is not None and b is not None and a >= b for a, b in pairs):
            raise click.UsageError("--from must be before --to")
        late_ms = int(late * 1000) if end.time_ms is not None else 0
        names = sorted({*topics}), sorted({*partitions}), sorted({*routes})
        command(chosen=Chosen(*names, begin, end, late_ms), **others)

    for option in OPTIONS:
        with_choice = option(with_choice)
    return with_choice


@click.command(short_help="Run a stretch of the topics again.")
@choice
@click.option("--rate", type=click.FloatRange(0, 1_000_000), default=0.0, help="Maximum calls a second; 0: no limit.")
@click.option("--restart", is_flag=True, help="Begin again where an earlier replay was stopped.")
@click.option("--dry-run", is_flag=True, help="Say how many records would be read, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
def replay(
    *,
    chosen: Chosen,
    rate: float,
    restart: bool,
    dry_run: bool,
    yes: bool,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Run a stretch of the topics again through the routes, in this process.

    A time is in ISO 8601, in UTC if it has no zone; records are chosen by their timestamps. An offset counts in each
    partition. The daemon's group is neither read nor changed, and the daemon may run beside it. A replay that was
    stopped goes on when it is started with the same options. Exits 1 when records were dead-lettered.
    """
    require_rate(rate)
    read = loaded(config, overrides)
    configure_logging(msgspec.structs.replace(read.settings.log, level="warning"), ABOVE_BARS)
    routes = loaded_routes(read)
    names = [route.name for route in routes]
    for name in chosen.routes:
        if name not in names:
            raise SettingsError(f"--route: the settings have no route {name!r}{hint(name, names)}")
    routes = [route for route in routes if not chosen.routes or route.name in chosen.routes]
    chosen = msgspec.structs.replace(chosen, routes=[route.name for route in routes])
    way = Way(rate, restart=restart, dry_run=dry_run, ask=not yes and sys.stdin.isatty())
    failed = asyncio.run(_replay(read.settings, routes, chosen, way, Progress()))
    if failed:
        raise ConsumerError(f"{counted(failed, 'record')} dead-lettered; each letter has the cause: dlq list --letters")


class Way(NamedTuple):
    """How a replay is run."""

    rate: float
    restart: bool
    dry_run: bool
    ask: bool


async def _replay(settings: Settings, routes: list[Route], chosen: Chosen, way: Way, progress: Progress) -> int:
    """Replay, and return the number of records that were dead-lettered."""
    settings = await with_topics(settings)
    subscribed = settings.kafka.topics
    for topic in chosen.topics:
        if topic not in subscribed:
            raise SettingsError(f"--topic: {topic!r} is not among kafka.topics{hint(topic, subscribed)}")
    chosen = msgspec.structs.replace(chosen, topics=chosen.topics or sorted(subscribed))
    topics = Topics(load_schemas(settings), routes)
    topics.check(chosen.topics)
    kafka = replay_kafka(settings.kafka, chosen)
    stretch = await until_signal(find_stretch(kafka, chosen.partitions, chosen.begin, chosen.reads_until))
    if stretch is None:
        return 0
    _say_stretch(progress, chosen, stretch)
    if way.dry_run or not any(bounds.end > bounds.begin for bounds in stretch.values()):
        return 0
    if way.ask and any(each.handler.reference not in WITHOUT_EFFECTS for each in routes):
        _ask(f"Call {', '.join(chosen.routes)} with them?")
    begins = await begin_stretch(kafka, stretch, restart=way.restart)
    running = make_replay(settings, topics, chosen, stretch, begins, way.rate, Lifecycle())
    if any(begins[key] > bounds.begin for key, bounds in stretch.items()):
        progress.say(f"going on where a replay was stopped: {running.total:,} left; --restart begins again")
    if running.total:

        def summarize() -> None:
            _summarize(running, progress)

        await run_bounded(settings, running, routes, progress, "replay", running.total, summarize)
    if running.complete or not running.total:
        await end_stretch(kafka, stretch)
    return running.dead_lettered


def _ask(question: str) -> None:
    """Ask, and abort without a yes. The first Ctrl-C ends the question, which asyncio's own handler would only note."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        click.confirm(question, abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, handler)


def _say_stretch(progress: Progress, chosen: Chosen, stretch: Stretch) -> None:
    count = sum(max(0, bounds.end - bounds.begin) for bounds in stretch.values())
    read = [key for key, bounds in stretch.items() if bounds.end > bounds.begin]
    where = f"{', '.join(chosen.topics)}, {counted(len(read), 'partition')}"
    progress.say(f"{count:,} offsets to read of {where}: {_named(chosen.begin)} to {_named(chosen.end)}")
    if chosen.late_ms:
        progress.say(
            f"among them those of {chosen.late_ms / 1000:g} s after the end, to find records that follow later ones;"
            " only records of the stretch are replayed"
        )
    if chosen.begin.offset is not None:
        gone = [key for key, bounds in stretch.items() if bounds.first > chosen.begin.offset]
        if gone:
            progress.say(f"no longer there: the first offsets of {counted(len(gone), 'partition')}, such as {gone[0]}")


def _named(place: Place) -> str:
    if place.time_ms is not None:
        return datetime.fromtimestamp(place.time_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return "the end" if place.offset is None else f"offset {place.offset}"


def _summarize(running: Replay, progress: Progress) -> None:
    progress.print(f"replayed {running.done:,} of {running.total:,} offsets")
    for line in running.outcomes():
        progress.print(f"  {line}")
