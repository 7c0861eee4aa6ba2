"""``session-consumer dlq redrive``: runs dead letters through their handlers, or writes the originals to a topic."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click
import msgspec

from consumer.cli.bounded import run_bounded
from consumer.cli.dead_letters import letter_settings, print_counts, take_inventory
from consumer.cli.filters import filters
from consumer.cli.options import require_rate, settings_options
from consumer.cli.progress import Progress
from consumer.cli.run import loaded_routes, until_signal
from consumer.dead_letters.cause import NO_ROUTE
from consumer.dead_letters.filter import MAX_REDRIVES, Filter
from consumer.dead_letters.letter import Writer
from consumer.errors import ConsumerError, SettingsError, counted, hint
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.probe import probe_topics
from consumer.process.lifecycle import Lifecycle
from consumer.record import Position
from consumer.redrive.handlers import republishing
from consumer.redrive.run import Redrive, make_redrive
from consumer.redrive.selection import require_fit, require_routes
from consumer.routes.route import Route
from consumer.routes.topics import Schema, Topics, load_schemas
from consumer.settings.sections import Settings, dead_letter_topics
from schemas.types import BYTES

METADATA_BYTES = 4096
"""Maximum bytes of an offset's metadata, by the default of the broker's ``offset.metadata.max.bytes``."""


@click.command()
@filters
@click.option("--dry-run", is_flag=True, help="Print what would be redriven, and do nothing.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 1_000_000),
    default=0.0,
    help="Maximum letters a second; 0: no limit.",
)
@click.option(
    "--to", "to_topic", metavar="TOPIC", help="Write the original records to this topic instead of calling handlers."
)
@click.option(
    "--max-redrives",
    type=click.IntRange(1, 1_000_000),
    default=MAX_REDRIVES,
    show_default=True,
    help="Skip letters that failed again after this number of redrives.",
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
    """Run dead letters through the route that failed, in this process.

    Letters without a route, whose records could not be decoded, run through every route that matches. A letter that
    fails again becomes a new letter. A redrive that was stopped continues when it is started with the same filters: its
    offsets are committed under a separate group for each set of filters. Exits 1 when letters failed again.
    """
    require_rate(rate)
    read = letter_settings(config, overrides)
    settings = read.settings
    chosen = msgspec.structs.replace(chosen, max_redrives=max_redrives)
    if len(chosen.as_text()) > METADATA_BYTES:
        raise click.UsageError("too many filters to store with the offsets; use fewer at a time")
    routes = [] if to_topic else loaded_routes(read)
    for name in {*chosen.routes} - {NO_ROUTE} if routes else ():
        names = [route.name for route in routes]
        if name not in names:
            raise SettingsError(f"--route: the settings have no route {name!r}{hint(name, names)}")
    if to_topic in dead_letter_topics(settings):
        raise SettingsError(f"--to: {to_topic!r} is a dead-letter topic; choose a topic for original records")
    failed = asyncio.run(_redrive(settings, routes, chosen, Progress(), rate, to_topic, dry_run=dry_run))
    if failed:
        raise ConsumerError(
            f"{counted(failed, 'letter')} failed again; each has a new letter with the cause: dlq list --letters"
        )


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
    """Redrive, and return the number of letters that failed again."""
    inventory = await until_signal(take_inventory(settings, chosen, progress))
    if inventory is None:
        progress.say("stopped before all letters were read; nothing was redriven")
        return 0
    if dry_run:
        print_counts(progress, inventory)
    if inventory.capped:
        progress.say(
            f"left out: {counted(inventory.capped, 'letter')} after {counted(chosen.max_redrives, 'failed redrive')};"
            " a higher --max-redrives includes more"
        )
    to_run = inventory.to_run
    if not to_topic:
        require_routes(to_run, [route.name for route in routes])
    if not to_run:
        progress.say("no dead letter is left to redrive")
    elif dry_run:
        progress.print(f"{counted(len(to_run), 'letter')} would be redriven; nothing was done")
    elif to_topic:
        return await _republish(settings, chosen, to_run, to_topic, progress, rate)
    else:
        if NO_ROUTE not in to_run.values():  # a handler of another route may own a file that the daemon uses
            routes = [route for route in routes if route.name in to_run.values()]
        topics = Topics(load_schemas(settings), routes)
        require_fit(
            {(each.context.origin.topic, each.context.route) for each in inventory.found if not each.redriven}, topics
        )
        running = make_redrive(settings, topics, chosen, to_run, rate, Lifecycle())
        return await _run(settings, running, routes, progress)
    return 0


async def _republish(
    settings: Settings, chosen: Filter, to_run: Mapping[Position, str], topic: str, progress: Progress, rate: float
) -> int:
    await probe_topics(msgspec.structs.replace(settings.kafka, topics=[topic]), "create it first", "--to")
    letters = LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id))
    lifecycle = Lifecycle()
    route = republishing(letters, topic, lifecycle.fail)
    unbounded = msgspec.structs.replace(settings.delivery, max_record_bytes=2**31)
    originals, topics = dict.fromkeys(to_run, route.name), Topics([("*", Schema(BYTES))], [route])
    running = make_redrive(
        msgspec.structs.replace(settings, delivery=unbounded), topics, chosen, originals, rate, lifecycle
    )
    try:
        return await _run(settings, running, [route], progress)
    finally:
        await letters.close()


async def _run(settings: Settings, running: Redrive, routes: list[Route], progress: Progress) -> int:
    total = len(running.selection.to_run)
    await run_bounded(settings, running, routes, progress, "redrive", total, partial(_summarize, running, progress))
    return running.failed_again


def _summarize(running: Redrive, progress: Progress) -> None:
    handled, unwanted = running.done - running.failed_again, len(running.selection.unwanted)
    no_route = f", {unwanted:,} matched by no route" if unwanted else ""
    progress.print(f"redriven: {handled:,} handled, {running.failed_again:,} failed again{no_route}")
