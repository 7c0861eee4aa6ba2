"""Common parts of the ``dlq`` commands: reading all letters, and printing their context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from consumer.cli.options import loaded
from consumer.cli.progress import ABOVE_BARS, Progress
from consumer.dead_letters.filter import Filter
from consumer.dead_letters.headers import Context
from consumer.dead_letters.inventory import Inventory, read_passed
from consumer.errors import SettingsError, counted
from consumer.kafka.probe import groups_offsets, with_topics
from consumer.kafka.scan import open_scan
from consumer.logs import configure_logging
from consumer.settings.sections import Settings, dead_letter_topics
from consumer.settings.sources import Loaded

REPORT_EVERY = 500


def letter_settings(config: Path | None, overrides: tuple[str, ...]) -> Loaded:
    """Read the settings and log only warnings. Raises SettingsError when no dead-letter topic is set."""
    read = loaded(config, overrides)
    settings = read.settings
    configure_logging(msgspec.structs.replace(settings.log, level="warning"), ABOVE_BARS)
    if not settings.dead_letter.topic:
        raise SettingsError(
            "dead_letter.topic is empty, so there are no dead letters; set it to the topic that holds them"
        )
    return read


async def take_inventory(settings: Settings, chosen: Filter, progress: Progress) -> Inventory:
    """Read the progress of redrives, then all letters.

    In the opposite order a letter could seem redriven that was never run.
    """
    settings = await with_topics(settings)
    kafka = msgspec.structs.replace(settings.kafka, topics=dead_letter_topics(settings))
    groups = await groups_offsets(kafka, Filter().group(kafka.group_id))
    passed = [read_passed(kafka.group_id, name, committed) for name, committed in groups.items()]
    found = [each for each in passed if each is not None]
    inventory = Inventory(chosen, settings.kafka.topics, settings.kafka.group_id, found)
    async with open_scan(kafka) as scan:
        missing = sorted(set(kafka.topics) - {key.topic for key in scan.ends})
        if missing:
            progress.say(f"there is no topic {', '.join(missing)}, so it has no dead letters")
        with progress.bar("reading", scan.total) as report:
            count = 0
            async for key, raw in scan.records():
                inventory.add(key, raw)
                count += 1
                if count % REPORT_EVERY == 0:
                    report(scan.passed)
            report(scan.total)
        return inventory


def context_rows(context: Context, *, payload: bool = False) -> dict[str, Any]:
    """Return the context of a letter by name; texts that may hold payload only if ``payload``."""
    message = plain(context.message)
    if message and not (context.is_ours or payload):
        message = "(written by other software: it may quote the event; dlq show --payload)"
    return {
        "record": plain(str(context.origin)),
        "reason": plain(context.reason) or "unknown",
        "code": context.code,
        "route": plain(context.route),
        "attempts": context.attempts,
        "redrives": context.redrives,
        "error": plain(context.error_class),
        "message": message,
    }


def plain(text: str) -> str:
    """Escape control characters, so that no text of a topic can forge a line or a colour."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def print_counts(progress: Progress, inventory: Inventory) -> None:
    """Print the numbers of letters that are left and redriven, and of records that are ignored."""
    rows = [
        (*(plain(each) for each in kind), f"{left:,}", f"{redriven:,}") for *kind, left, redriven in inventory.table()
    ]
    if rows:
        progress.table([("topic", "route", "reason", "code", "left", "redriven"), *rows])
    else:
        progress.print("no dead letters")
    if inventory.foreign:
        more = counted(inventory.foreign, "more record")
        progress.say(f"ignored: {more} without the name of the original record")
    if inventory.elsewhere:
        progress.say(f"ignored: {counted(inventory.elsewhere, 'more letter')} of topics outside kafka.topics")
    if inventory.of_other_groups:
        progress.say(f"ignored: {counted(inventory.of_other_groups, 'more letter')} of other consumer groups")
