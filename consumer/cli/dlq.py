"""``session-consumer dlq``: what is in the dead-letter topics, why, and running it again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from consumer.cli.options import loaded, settings_options
from consumer.cli.progress import Progress
from consumer.cli.run import until_signal
from consumer.daemon import enter_handlers, make_decoder, make_routes
from consumer.decoding import Decoder
from consumer.dispatch import Route
from consumer.errors import ConsumerError, SettingsError, hint
from consumer.kafka.letters import LetterBox
from consumer.kafka.probe import groups_offsets, probe_topics
from consumer.kafka.scan import open_scan
from consumer.letter import NO_ROUTE, REASONS, Context, Writer, read_context, split_headers
from consumer.logs import configure_logging
from consumer.record import Position, TopicPartition
from consumer.redrive import Redrive, republishing, require_routes
from consumer.settings import Settings, dead_letter_topics
from consumer.signals import Signals
from consumer.survey import MAX_REDRIVES, NO_CAP, Filter, Survey, read_passed, sha256

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POSITION = re.compile(r"(?P<topic>.+)-(?P<partition>[0-9]{1,10})@(?P<offset>[0-9]{1,18})")
WATCH_SECONDS = 0.2
WAITING_SECONDS = 5.0
TELL_EVERY = 500
METADATA_BYTES = 4096
"""What a broker keeps beside an offset, unless its ``offset.metadata.max.bytes`` says otherwise."""


@click.group()
def dlq() -> None:
    """Look at dead letters, and run them again.

    \b
    How many are left:     session-consumer dlq list -c settings.toml
    Which, and why:        session-consumer dlq list -c settings.toml --letters
    One of them:           session-consumer dlq show -c settings.toml session-events-0@1234
    Run them again:        session-consumer dlq redrive -c settings.toml --route talk
    """  # noqa: D301 - \b keeps click from joining the lines


def _milliseconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Read a time as people and ``dlq show`` write it, UTC when it names no zone; milliseconds since 1970."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is no time; write 2024-10-21, 2024-10-21T14:05:00 or 2024-10-21T14:05:00+02:00"
        ) from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose letters; the command gets them as ``chosen``, without a cap on redrives."""

    @functools.wraps(command)
    def with_filter(
        *,
        reasons: tuple[str, ...],
        routes: tuple[str, ...],
        since: int | None,
        until: int | None,
        key: str | None,
        **others: Any,
    ) -> None:
        if since is not None and until is not None and since >= until:
            raise click.UsageError("--since is not before --until, so no letter is between them")
        digest = sha256(os.fsencode(key)) if key is not None else None
        chosen = Filter(sorted({*reasons}), sorted({*routes}), since, until, digest, NO_CAP)
        command(chosen=chosen, **others)

    for option in (
        click.option("--key", metavar="TEXT", help="Only letters with this key."),
        click.option(
            "--until",
            metavar="TIME",
            callback=_milliseconds,
            help="Only records before this time, by their own timestamps.",
        ),
        click.option("--since", metavar="TIME", callback=_milliseconds, help="Only records from this time (UTC) on."),
        click.option(
            "--route",
            "routes",
            multiple=True,
            metavar="NAME",
            help="Only letters of this route; repeatable. none: of no route.",
        ),
        click.option("--reason", "reasons", multiple=True, type=click.Choice(REASONS), help="Only these; repeatable."),
    ):
        with_filter = option(with_filter)
    return with_filter


# -- list --------------------------------------------------------------------------------------------------------------


@dlq.command("list")
@filters
@click.option("--letters", "singly", is_flag=True, help="A line for each letter that is left, instead of counts.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout: one object, or with --letters one a line.")
@settings_options
def list_letters(
    *, chosen: Filter, singly: bool, as_json: bool, config: Path | None, overrides: tuple[str, ...]
) -> None:
    """Count dead letters by topic, route and reason: those left to redrive, and those that are home.

    A letter is counted once for each record and route, however often it was written.
    """
    settings = _settings(config, overrides)
    progress = Progress()
    survey = asyncio.run(until_signal(_survey(settings, chosen, progress)))
    if survey is None:
        progress.say("stopped before all letters were read: nothing is counted")
        return
    if singly:
        for each in survey.found:
            if not each.home:
                progress.print(_line(each.place, each.context, as_json=as_json))
    elif as_json:
        names = ("topic", "route", "reason", "left", "home")
        rows = [dict(zip(names, row, strict=True)) for row in survey.table()]
        others = {"foreign": survey.foreign, "elsewhere": survey.elsewhere}
        progress.print(msgspec.json.encode({"letters": rows, **others}).decode())
    else:
        _print_table(progress, survey)


def _line(place: Position, context: Context, *, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode({"letter": str(place), **_told(context)}).decode()
    told = _told(context)
    return f"{place}  of {told['record']}  {told['reason']}  route {told['route']}  {told['error']}"


def _told(context: Context, *, payload: bool = False) -> dict[str, Any]:
    """Return what a letter says of itself; nothing of it is payload, unless that is asked for."""
    message = _plain(context.message)
    if message and not (context.is_ours or payload):
        message = "(written by other software: it may quote the event; dlq show --payload)"
    return {
        "record": _plain(str(context.origin)),
        "reason": _plain(context.reason) or "unknown",
        "route": _plain(context.route),
        "attempts": context.attempts,
        "redrives": context.redrives,
        "error": _plain(context.error_class),
        "message": message,
    }


def _plain(text: str) -> str:
    """Escape control characters: nothing that stands in a topic may forge a line, or a colour."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _print_table(progress: Progress, survey: Survey) -> None:
    rows = [(*(_plain(each) for each in kind), f"{left:,}", f"{home:,}") for *kind, left, home in survey.table()]
    if rows:
        progress.table([("topic", "route", "reason", "left", "home"), *rows])
    else:
        progress.print("no dead letters")
    if survey.foreign:
        progress.say(f"{survey.foreign:,} more records there do not say which record they were; they are left alone")
    if survey.elsewhere:
        progress.say(f"{survey.elsewhere:,} more letters there are of topics outside kafka.topics; they are left alone")


# -- show --------------------------------------------------------------------------------------------------------------


@dlq.command()
@click.argument("position")
@click.option("--payload", is_flag=True, help="Show key, headers and value too: they hold personal data.")
@settings_options
def show(*, position: str, payload: bool, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Show one letter with its cause.

    POSITION is that of the letter, as session-events.dlq-0@12, or of the record, as session-events-0@1234; a record has
    a letter for each route that gave it up, and for each time it failed again.
    """
    wanted = POSITION.fullmatch(position)
    if wanted is None:
        raise click.UsageError(f"{position!r} is not TOPIC-PARTITION@OFFSET, as session-events-0@1234")
    settings = _settings(config, overrides)
    place = Position(wanted["topic"], int(wanted["partition"]), int(wanted["offset"]))
    progress = Progress()
    shown = asyncio.run(until_signal(_show(settings, place, progress, payload=payload)))
    if shown is None:
        progress.say("stopped before all letters were read")
    elif shown == 0:
        topics = ", ".join(dead_letter_topics(settings))
        raise ConsumerError(
            f"there is no dead letter at {position}, or of a record there, in {topics}; dlq list --letters names those"
            " that are left"
        )


async def _show(settings: Settings, place: Position, progress: Progress, *, payload: bool) -> int:
    kafka = msgspec.structs.replace(settings.kafka, topics=dead_letter_topics(settings))
    key = TopicPartition(place.topic, place.partition)
    only = {key: place.offset} if place.topic in kafka.topics else None
    count = 0
    async with open_scan(kafka, only) as scan:
        with progress.bar("reading", scan.total) as tell:
            async for where, raw in scan.records():
                context = read_context(raw.headers)
                at = Position(*where, raw.offset)
                if at == place or (context is not None and context.origin == place):
                    count += 1
                    _print_letter(progress, at, raw, context, payload=payload)
                if only is not None:
                    break
                tell(scan.passed)
    return count


def _print_letter(progress: Progress, place: Position, raw: Any, context: Context | None, *, payload: bool) -> None:
    own = split_headers(raw.headers)[0]
    told = _told(context, payload=payload) if context is not None else {"record": "it does not say"}
    rows: list[tuple[str, Any]] = [("letter", place), *told.items(), ("timestamp", _moment(raw.timestamp))]
    rows.append(("key", _shown(raw.key, payload=payload)))
    if payload:
        rows += [("header", f"{_plain(name)} = {_shown(value, payload=True)}") for name, value in own]
    else:
        rows.append(("headers", len(own)))
    rows.append(("value", _shown(raw.value, payload=payload)))
    for name, value in rows:
        progress.print(f"{name:10} {value}")
    progress.print("" if payload else "           --payload shows key, headers and value: they hold personal data\n")


def _moment(milliseconds: int) -> str:
    try:
        return (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{milliseconds} ms since 1970"


def _shown(data: bytes | None, *, payload: bool) -> str:
    if data is None:
        return "null"
    return _plain(data.decode("utf-8", "backslashreplace")) if payload else f"{len(data):,} bytes"


# -- redrive -----------------------------------------------------------------------------------------------------------


@dlq.command()
@filters
@click.option("--dry-run", is_flag=True, help="Say what would be run, and do nothing.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 1_000_000),
    default=0.0,
    help="At most this many letters a second; 0: all at once.",
)
@click.option("--to", "to_topic", metavar="TOPIC", help="Put the original records on this topic; no handler is called.")
@click.option(
    "--max-redrives",
    type=click.IntRange(1, 1_000_000),
    default=MAX_REDRIVES,
    show_default=True,
    help="Leave letters alone that were redriven and failed so often.",
)
@settings_options
def redrive(
    *,
    chosen: Filter,
    dry_run: bool,
    rate: float,
    to_topic: str | None,
    max_redrives: int,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Run dead letters through the route that failed, here and now.

    Those of no route, as they could not be read, run through every route that matches. What fails again becomes a new
    letter. A redrive that is stopped goes on where it was when it is started with the same filters: its offsets are
    kept under a group of its own, one for each set of filters. Exits 1 when letters failed again.
    """
    settings = _settings(config, overrides)
    chosen = msgspec.structs.replace(chosen, max_redrives=max_redrives)
    if len(chosen.as_text()) > METADATA_BYTES:
        raise click.UsageError("so many filters cannot be kept with the offsets; choose fewer at a time")
    routes = [] if to_topic else make_routes(settings, os.environ)
    for name in {*chosen.routes} - {NO_ROUTE} if routes else ():
        names = [route.name for route in routes]
        if name not in names:
            raise SettingsError(f"--route: the settings have no route {name!r}{hint(name, names)}")
    if to_topic in dead_letter_topics(settings):
        raise SettingsError(f"--to: {to_topic!r} is a topic for dead letters; the originals would be lost among them")
    failed = asyncio.run(_redrive(settings, routes, chosen, Progress(), rate, to_topic, dry_run=dry_run))
    if failed:
        raise ConsumerError(f"{failed:,} letters failed again; each has a new letter that says why: dlq list --letters")


async def _redrive(
    settings: Settings,
    routes: list[Route],
    chosen: Filter,
    progress: Progress,
    rate: float,
    to_topic: str | None,
    *,
    dry_run: bool,
) -> int:
    """Return how many failed again."""
    survey = await until_signal(_survey(settings, chosen, progress))
    if survey is None:
        progress.say("stopped before all letters were read: nothing was run")
        return 0
    if dry_run:
        _print_table(progress, survey)
    if survey.capped:
        progress.say(f"{survey.capped:,} letters failed again {chosen.max_redrives} times; --max-redrives lets them in")
    to_run = survey.to_run
    if not to_topic:
        require_routes(to_run, [route.name for route in routes])
    if not to_run:
        progress.say("no dead letter is left to redrive")
    elif dry_run:
        progress.print(f"{len(to_run):,} letters would be run; nothing was done")
    elif to_topic:
        return await _republish(settings, chosen, to_run, to_topic, progress, rate)
    else:
        if NO_ROUTE not in to_run.values():  # a handler may own something that the daemon uses now
            routes = [route for route in routes if route.name in to_run.values()]
        running = Redrive(settings, routes, make_decoder(settings), chosen, to_run, rate)
        return await _run(settings, running, routes, progress)
    return 0


async def _republish(
    settings: Settings, chosen: Filter, to_run: Mapping[Position, str], topic: str, progress: Progress, rate: float
) -> int:
    await probe_topics(msgspec.structs.replace(settings.kafka, topics=[topic]), "create it first", "--to")
    letters = LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id))
    route = republishing(letters, topic, lambda error: running.fail(error))  # noqa: PLW0108 - made below
    running = Redrive(settings, [route], Decoder(bytes, bytes, 2**31), chosen, dict.fromkeys(to_run, route.name), rate)
    try:
        return await _run(settings, running, [route], progress)
    finally:
        await letters.close()


async def _run(settings: Settings, running: Redrive, routes: list[Route], progress: Progress) -> int:
    total = len(running.to_run)
    async with contextlib.AsyncExitStack() as opened:
        opened.enter_context(Signals(running.stop, settings.delivery.drain_seconds))
        await enter_handlers(routes, opened)
        tell = opened.enter_context(progress.bar("redriving", total))
        work = asyncio.ensure_future(running.run())
        await asyncio.wait([work], timeout=WAITING_SECONDS)
        if not running.joined and not work.done():
            progress.say(
                f"waiting for group {running.group}: a redrive that was killed stays in it for"
                f" kafka.session_timeout_seconds = {settings.kafka.session_timeout_seconds:g}"
            )
        while not work.done():
            tell(min(running.done, total - 1))
            await asyncio.wait([work], timeout=WATCH_SECONDS)
        tell(total if running.complete else running.done)
        try:
            work.result()
        finally:
            _summarize(running, progress)
    return running.failed_again


def _summarize(running: Redrive, progress: Progress) -> None:
    handled, unwanted = running.done - running.failed_again, len(running.unwanted)
    no_route = f", {unwanted:,} matched no route" if unwanted else ""
    progress.print(f"redriven: {handled:,} handled, {running.failed_again:,} failed again{no_route}")
    if not running.complete:
        progress.say("stopped before the end; the same command goes on from there")


# -- what they share ---------------------------------------------------------------------------------------------------


def _settings(config: Path | None, overrides: tuple[str, ...]) -> Settings:
    settings = loaded(config, overrides).settings
    configure_logging(msgspec.structs.replace(settings.log, level="warning"))
    if not settings.dead_letter.topic:
        raise SettingsError("dead_letter.topic is empty: there are no dead letters")
    return settings


async def _survey(settings: Settings, chosen: Filter, progress: Progress) -> Survey:
    """Read how far redrives came, then all letters; the other way round one might seem home that has not been run."""
    kafka = msgspec.structs.replace(settings.kafka, topics=dead_letter_topics(settings))
    groups = await groups_offsets(kafka, Filter().group(kafka.group_id))
    passed = [read_passed(kafka.group_id, name, committed) for name, committed in groups.items()]
    survey = Survey(chosen, settings.kafka.topics, [each for each in passed if each is not None])
    async with open_scan(kafka) as scan:
        missing = sorted(set(kafka.topics) - {key.topic for key in scan.ends})
        if missing:
            progress.say(f"there is no topic {', '.join(missing)}: nothing was ever dead-lettered there")
        with progress.bar("reading", scan.total) as tell:
            count = 0
            async for key, raw in scan.records():
                survey.add(key, raw)
                count += 1
                if count % TELL_EVERY == 0:
                    tell(scan.passed)
            tell(scan.total)
        return survey
