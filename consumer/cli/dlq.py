"""``session-consumer dlq``: lists, shows and redrives dead letters."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from consumer.cli.dead_letters import context_rows, letter_settings, plain, print_counts, take_inventory
from consumer.cli.filters import EPOCH, filters
from consumer.cli.options import settings_options
from consumer.cli.progress import Progress
from consumer.cli.redrive import redrive
from consumer.cli.run import until_signal
from consumer.dead_letters.filter import Filter
from consumer.dead_letters.headers import Context, read_context, split_headers
from consumer.errors import ConsumerError, counted
from consumer.kafka.probe import with_topics
from consumer.kafka.scan import open_scan
from consumer.record import Position, RawRecord, TopicPartition
from consumer.settings.sections import Settings, dead_letter_topics

POSITION = re.compile(r"(?P<topic>.+)-(?P<partition>[0-9]{1,10})@(?P<offset>[0-9]{1,18})")


@click.group()
def dlq() -> None:
    """List, show and redrive dead letters.

    \b
    Count them:    session-consumer dlq list -c settings.toml
    List each one: session-consumer dlq list -c settings.toml --letters
    Show one:      session-consumer dlq show -c settings.toml session-events-0@1234
    Redrive them:  session-consumer dlq redrive -c settings.toml --route talk
    """  # noqa: D301 - \b keeps click from joining the lines


@dlq.command("list")
@filters
@click.option("--letters", "singly", is_flag=True, help="Print a line for each letter that is left, instead of counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout: one object, or with --letters one a line.")
@settings_options
def list_letters(
    *, chosen: Filter, singly: bool, as_json: bool, config: Path | None, overrides: tuple[str, ...]
) -> None:
    """Count this group's dead letters by topic, route, reason and code.

    The columns are letters left to redrive and letters redriven. Each record and route counts once, however often its
    letter was written.
    """
    settings = letter_settings(config, overrides).settings
    progress = Progress()
    inventory = asyncio.run(until_signal(take_inventory(settings, chosen, progress)))
    if inventory is None:
        progress.say("stopped before all letters were read, so there are no counts")
        return
    if singly:
        for each in inventory.found:
            if not each.redriven:
                progress.print(_line(each.place, each.context, as_json=as_json))
    elif as_json:
        names = ("topic", "route", "reason", "code", "left", "home")
        rows = [dict(zip(names, row, strict=True)) for row in inventory.table()]
        others = {
            "foreign": inventory.foreign,
            "elsewhere": inventory.elsewhere,
            "of_other_groups": inventory.of_other_groups,
        }
        progress.print(msgspec.json.encode({"letters": rows, **others}).decode())
    else:
        print_counts(progress, inventory)


def _line(place: Position, context: Context, *, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode({"letter": str(place), **context_rows(context)}).decode()
    rows = context_rows(context)
    why = f"{rows['reason']} {rows['code']}".rstrip()
    return f"{place}  of {rows['record']}  {why}  route {rows['route']}  {rows['error']}"


@dlq.command()
@click.argument("position")
@click.option("--payload", is_flag=True, help="Show key, headers and value, which hold personal data.")
@settings_options
def show(*, position: str, payload: bool, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Show one letter of this group with its cause.

    POSITION is that of the letter, such as session-events.dlq-0@12, or of the record, such as session-events-0@1234. A
    record has a letter for each route that failed, and for each redrive that failed again.
    """
    wanted = POSITION.fullmatch(position)
    if wanted is None:
        raise click.UsageError(f"{position!r} is not TOPIC-PARTITION@OFFSET, such as session-events-0@1234")
    settings = letter_settings(config, overrides).settings
    place = Position(wanted["topic"], int(wanted["partition"]), int(wanted["offset"]))
    progress = Progress()
    shown = asyncio.run(until_signal(_show(settings, place, progress, payload=payload)))
    if shown is None:
        progress.say("stopped before all letters were read")
    elif not shown.letters:
        topics = ", ".join(dead_letter_topics(settings))
        ours = f"group {settings.kafka.group_id!r}"
        others = f"; there is one of group {', '.join(sorted(shown.other_groups))}" if shown.other_groups else ""
        raise ConsumerError(
            f"there is no dead letter of {ours} at {position}, or of a record there, in {topics}{others}; dlq list"
            " --letters names the letters that are left"
        )


class Shown(NamedTuple):
    """The result of ``dlq show``."""

    letters: int
    """Number of letters that were printed."""
    other_groups: set[str]
    """Groups of letters at that position that belong to other daemons."""


async def _show(settings: Settings, place: Position, progress: Progress, *, payload: bool) -> Shown:
    kafka = msgspec.structs.replace(settings.kafka, topics=dead_letter_topics(await with_topics(settings)))
    key = TopicPartition(place.topic, place.partition)
    only = {key: place.offset} if place.topic in kafka.topics else None
    found: list[tuple[Position, RawRecord, Context | None]] = []
    others: set[str] = set()
    async with open_scan(kafka, only) as scan:
        with progress.bar("reading", scan.total) as report:
            async for where, raw in scan.records():
                context = read_context(raw.headers)
                at = Position(*where, raw.offset)
                if at == place or (context is not None and context.origin == place):
                    if context is None or context.is_of(kafka.group_id):
                        found.append((at, raw, context))
                    else:
                        others.add(plain(context.group))
                if only is not None:
                    break
                report(scan.passed)
    for at, raw, context in found:
        _print_letter(progress, at, raw, context, payload=payload)
    return Shown(len(found), others)


def _print_letter(
    progress: Progress, place: Position, raw: RawRecord, context: Context | None, *, payload: bool
) -> None:
    own = split_headers(raw.headers)[0]
    context_part = context_rows(context, payload=payload) if context is not None else {"record": "unknown"}
    rows: list[tuple[str, Any]] = [("letter", place), *context_part.items(), ("timestamp", _moment(raw.timestamp))]
    rows.append(("key", _shown(raw.key, payload=payload)))
    if payload:
        rows += [("header", f"{plain(name)} = {_shown(value, payload=True)}") for name, value in own]
    else:
        rows.append(("headers", len(own)))
    rows.append(("value", _shown(raw.value, payload=payload)))
    for name, value in rows:
        progress.print(f"{name:10} {value}")
    progress.print("" if payload else "           --payload shows key, headers and value, which hold personal data\n")


def _moment(milliseconds: int) -> str:
    if milliseconds < 0:
        return "none"
    try:
        return (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{milliseconds} ms since 1970"


def _shown(data: bytes | None, *, payload: bool) -> str:
    if data is None:
        return "null"
    return plain(data.decode("utf-8", "backslashreplace")) if payload else counted(len(data), "byte")


dlq.add_command(redrive)
