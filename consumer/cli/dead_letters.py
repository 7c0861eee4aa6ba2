"""What the commands on dead letters share: reading them all, and saying what they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from consumer.cli.options import loaded
from consumer.cli.progress import Progress
from consumer.dead_letters.filter import Filter
from consumer.dead_letters.headers import Context
from consumer.dead_letters.inventory import Inventory, read_passed
from consumer.errors import SettingsError
from consumer.kafka.probe import groups_offsets
from consumer.kafka.scan import open_scan
from consumer.logs import configure_logging
from consumer.settings.sections import Settings, dead_letter_topics

TELL_EVERY = 500


def letter_settings(config: Path | None, overrides: tuple[str, ...]) -> Settings:
    """Read the settings, and have only warnings logged; raises SettingsError when there can be no dead letters."""
    settings = loaded(config, overrides).settings
    configure_logging(msgspec.structs.replace(settings.log, level="warning"))
    if not settings.dead_letter.topic:
        raise SettingsError("dead_letter.topic is empty: there are no dead letters")
    return settings


async def take_inventory(settings: Settings, chosen: Filter, progress: Progress) -> Inventory:
    """Read how far redrives came, then all letters; the other way round one might seem home that has not been run."""
    kafka = msgspec.structs.replace(settings.kafka, topics=dead_letter_topics(settings))
    groups = await groups_offsets(kafka, Filter().group(kafka.group_id))
    passed = [read_passed(kafka.group_id, name, committed) for name, committed in groups.items()]
    inventory = Inventory(chosen, settings.kafka.topics, [each for each in passed if each is not None])
    async with open_scan(kafka) as scan:
        missing = sorted(set(kafka.topics) - {key.topic for key in scan.ends})
        if missing:
            progress.say(f"there is no topic {', '.join(missing)}: nothing was ever dead-lettered there")
        with progress.bar("reading", scan.total) as tell:
            count = 0
            async for key, raw in scan.records():
                inventory.add(key, raw)
                count += 1
                if count % TELL_EVERY == 0:
                    tell(scan.passed)
            tell(scan.total)
        return inventory


def told(context: Context, *, payload: bool = False) -> dict[str, Any]:
    """Return what a letter says of itself; nothing of it is payload, unless that is asked for."""
    message = plain(context.message)
    if message and not (context.is_ours or payload):
        message = "(written by other software: it may quote the event; dlq show --payload)"
    return {
        "record": plain(str(context.origin)),
        "reason": plain(context.reason) or "unknown",
        "route": plain(context.route),
        "attempts": context.attempts,
        "redrives": context.redrives,
        "error": plain(context.error_class),
        "message": message,
    }


def plain(text: str) -> str:
    """Escape control characters: nothing that stands in a topic may forge a line, or a colour."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def print_counts(progress: Progress, inventory: Inventory) -> None:
    """Print how many letters are left and home, and say what else there is."""
    rows = [(*(plain(each) for each in kind), f"{left:,}", f"{home:,}") for *kind, left, home in inventory.table()]
    if rows:
        progress.table([("topic", "route", "reason", "left", "home"), *rows])
    else:
        progress.print("no dead letters")
    if inventory.foreign:
        progress.say(f"{inventory.foreign:,} more records there do not say which record they were; they are left alone")
    if inventory.elsewhere:
        progress.say(
            f"{inventory.elsewhere:,} more letters there are of topics outside kafka.topics; they are left alone"
        )
