"""``session-consumer dlq``: what is in the dead-letter topics, why, and running it again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
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
from consumer.errors import ConsumerError, SettingsError
from consumer.kafka.letters import LetterBox
from consumer.kafka.probe import groups_offsets, probe_topics
from consumer.kafka.scan import open_scan
from consumer.letter import REASONS, Writer, read_context, split_headers
from consumer.logs import configure_logging
from consumer.record import Position, TopicPartition
from consumer.redrive import Redrive, republishing
from consumer.settings import Settings, dead_letter_topics
from consumer.signals import Signals
from consumer.survey import MAX_REDRIVES, Filter, Survey, read_passed, sha256

ALL = Filter(max_redrives=2**31)
POSITION = re.compile(r"(?P<topic>.+)-(?P<partition>\d+)@(?P<offset>\d+)")
WATCH_SECONDS = 0.2
TELL_EVERY = 500


@click.group()
def dlq() -> None:
    """Look at dead letters, and run them again."""


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose letters; the command gets them as ``chosen``, without a cap on redrives."""

    @functools.wraps(command)
    def with_filter(
        *,
        reasons: tuple[str, ...],
        routes: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        key: str | None,
        **others: Any,
    ) -> None:
        digest = sha256(key.encode()) if key is not None else None
        chosen = Filter(sorted(reasons), sorted(routes), _milliseconds(since), _milliseconds(until), digest, 2**31)
        command(chosen=chosen, **others)

    moment = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])
    for option in (
        click.option("--key", metavar="TEXT", help="Only letters with this key."),
        click.option("--until", type=moment, help="Only records before this time (UTC), by their own timestamps."),
        click.option("--since", type=moment, help="Only records from this time (UTC) on."),
        click.option(
            "--route", "routes", multiple=True, help="Only letters of this route; repeatable. none: of no route."
        ),
        click.option("--reason", "reasons", multiple=True, type=click.Choice(REASONS), help="Only these; repeatable."),
    ):
        with_filter = option(with_filter)
    return with_filter


def _milliseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


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
    done = asyncio.run(until_signal(_survey(settings, chosen, progress)))
    if done is None:
        return
    survey, _ends = done
    if singly:
        for each in survey.found:
            if not each.home:
                progress.print(_line(each.place, each.context, as_json=as_json))
    elif as_json:
        names = ("topic", "route", "reason", "left", "home")
        rows = [dict(zip(names, row, strict=True)) for row in survey.table()]
        progress.print(msgspec.json.encode({"letters": rows, "foreign": survey.foreign}).decode())
    else:
        _print_table(progress, survey)


def _line(place: Position, context: Any, *, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode({"letter": str(place), **_told(context)}).decode()
    told = _told(context)
    return f"{place}  of {told['record']}  {told['reason']}  route {told['route']}  {told['error']}"


def _told(context: Any) -> dict[str, Any]:
    """Return what a letter says of itself; nothing of it is payload."""
    return {
        "record": str(context.origin),
        "reason": context.reason or "unknown",
        "route": context.route,
        "attempts": context.attempts,
        "redrives": context.redrives,
        "error": context.error_class,
        "message": context.message,
    }


def _print_table(progress: Progress, survey: Survey) -> None:
    rows = [(*map(str, kind), f"{left:,}", f"{home:,}") for *kind, left, home in survey.table()]
    progress.table([("topic", "route", "reason", "left", "home"), *rows])
    if survey.foreign:
        progress.say(f"{survey.foreign:,} more records there do not say which record they were; they are left alone")


# -- show --------------------------------------------------------------------------------------------------------------


@dlq.command()
@click.argument("position")
@click.option("--payload", is_flag=True, help="Show key, headers and value too: they hold personal data.")
@settings_options
def show(*, position: str, payload: bool, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Show one letter with its cause: POSITION is that of the letter, or of the record, as session-events-0@1234."""
    settings = _settings(config, overrides)
    wanted = POSITION.fullmatch(position)
    if wanted is None:
        raise click.UsageError(f"{position!r} is not TOPIC-PARTITION@OFFSET, as session-events-0@1234")
    place = Position(wanted["topic"], int(wanted["partition"]), int(wanted["offset"]))
    progress = Progress()
    shown = asyncio.run(until_signal(_show(settings, place, progress, payload=payload)))
    if shown == 0:
        raise ConsumerError(f"there is no dead letter at, or of, {position}")


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


def _print_letter(progress: Progress, place: Position, raw: Any, context: Any, *, payload: bool) -> None:
    own = split_headers(raw.headers)[0]
    rows: dict[str, Any] = {"letter": str(place), **(_told(context) if context else {})}
    rows["timestamp"] = datetime.fromtimestamp((raw.timestamp or 0) / 1000, UTC).isoformat()
    rows["key"] = _shown(raw.key, payload=payload)
    rows["value"] = _shown(raw.value, payload=payload)
    rows["headers"] = (
        ", ".join(f"{n}={_shown(v, payload=payload)}" for n, v in own) if payload else f"{len(own)} headers"
    )
    progress.table([("", place.topic), *((name, str(value)) for name, value in rows.items())])


def _shown(data: bytes | None, *, payload: bool) -> str:
    if data is None:
        return "null"
    return data.decode("utf-8", "backslashreplace") if payload else f"{len(data)} bytes"


# -- redrive -----------------------------------------------------------------------------------------------------------


@dlq.command()
@filters
@click.option("--dry-run", is_flag=True, help="Say what would be run, and do nothing.")
@click.option(
    "--rate", type=click.FloatRange(0), default=0.0, help="At most this many letters a second; 0: all at once."
)
@click.option("--to", "to_topic", metavar="TOPIC", help="Put the original records on this topic; no handler is called.")
@click.option(
    "--max-redrives",
    type=click.IntRange(1),
    default=MAX_REDRIVES,
    show_default=True,
    help="Leave letters alone that failed this often again.",
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
    """Run dead letters through the route that failed, here and now; a bad one through all that match.

    What fails again becomes a new letter. A redrive that is stopped goes on where it was: its offsets are kept under a
    group of its own, one for each set of filters. Exits 1 when letters failed again.
    """
    settings = _settings(config, overrides)
    chosen = msgspec.structs.replace(chosen, max_redrives=max_redrives)
    progress = Progress()
    if dry_run:
        found = asyncio.run(until_signal(_survey(settings, chosen, progress)))
        if found is not None:
            _print_table(progress, found[0])
        return
    failed = asyncio.run(_redrive(settings, chosen, progress, rate, to_topic))
    if failed:
        raise ConsumerError(f"{failed:,} letters failed again; each has a new letter that says why: dlq list --letters")


async def _redrive(
    settings: Settings, chosen: Filter, progress: Progress, rate: float, to_topic: str | None
) -> int | None:
    found = await until_signal(_survey(settings, chosen, progress))
    if found is None:
        return None
    survey, ends = found
    to_run = survey.to_run
    if not to_run:
        progress.say("no dead letter is left to redrive")
        return None
    letters = LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id))
    routes, decoder = make_routes(settings, os.environ), make_decoder(settings)
    if to_topic:
        await probe_topics(msgspec.structs.replace(settings.kafka, topics=[to_topic]), "create it first")
        routes, decoder = [republishing(letters, to_topic)], Decoder(bytes, bytes, 2**31)
        to_run = dict.fromkeys(to_run, routes[0].name)
    running = Redrive(settings, routes, decoder, chosen, to_run, ends, rate)
    try:
        await _run(settings, running, routes, progress)
    finally:
        await letters.close()
    handled = running.done - running.failed_again
    progress.print(f"redriven: {handled:,} handled, {running.failed_again:,} failed again")
    return running.failed_again


async def _run(settings: Settings, running: Redrive, routes: list[Route], progress: Progress) -> None:
    total = len(running.to_run)
    async with contextlib.AsyncExitStack() as opened:
        await enter_handlers(routes, opened)
        opened.enter_context(Signals(running.stop, settings.delivery.drain_seconds))
        tell = opened.enter_context(progress.bar("redriving", total))
        work = asyncio.ensure_future(running.run())
        while not work.done():
            await asyncio.wait([work], timeout=WATCH_SECONDS)
            tell(min(running.done, total))
        work.result()


# -- what they share ---------------------------------------------------------------------------------------------------


def _settings(config: Path | None, overrides: tuple[str, ...]) -> Settings:
    settings = loaded(config, overrides).settings
    configure_logging(msgspec.structs.replace(settings.log, level="warning"))
    if not settings.dead_letter.topic:
        raise SettingsError("dead_letter.topic is empty: there are no dead letters")
    return settings


async def _survey(
    settings: Settings, chosen: Filter, progress: Progress
) -> tuple[Survey, Mapping[TopicPartition, int]]:
    """Read all dead letters and how far redrives came; return them with where the topics ended."""
    kafka = msgspec.structs.replace(settings.kafka, topics=dead_letter_topics(settings))
    passed = []
    for offsets in (await groups_offsets(kafka, f"{kafka.group_id}.redrive")).values():
        for text in {metadata for _, metadata in offsets.values()}:
            read = read_passed(text, {key: offset for key, (offset, said) in offsets.items() if said == text})
            passed += [read] if read is not None else []
    survey = Survey(chosen, passed)
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
        return survey, scan.ends
