"""``session-consumer dlq``: what is in the dead-letter topics, why, and running it again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from consumer.cli.filters import EPOCH, filters
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
from consumer.letter import NO_ROUTE, Context, Writer, read_context, split_headers
from consumer.logs import configure_logging
from consumer.record import Position, TopicPartition
from consumer.redrive import Redrive, republishing, require_routes
from consumer.settings import Settings, dead_letter_topics
from consumer.signals import Signals
from consumer.survey import MAX_REDRIVES, Filter, Survey, read_passed

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
