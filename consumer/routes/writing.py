"""Writing to other topics: what a handler that does so gets, and that none of these topics is consumed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from consumer.errors import SettingsError, SinkError
from consumer.instructions import Reject
from consumer.record import NewRecord
from consumer.routes.route import Route
from consumer.settings.checks import TOPIC_NAME
from consumer.settings.sections import Settings, letters_of, matches_topic


class Writer(Protocol):
    """Writes records to topics of the daemon's brokers; owned by one handler."""

    async def write(self, records: Sequence[NewRecord]) -> Sequence[Reject | SinkError | None]:
        """Write records, those of each target partition in their order; return the outcome of each.

        None: all replicas have it. Reject: its topic will never take it. SinkError: it is not written yet, and nothing
        of this call will be written any more; the records behind it have none either, in the same target partition.
        """

    async def close(self) -> None:
        """Give up what is under way, and disconnect."""


def targets_of(route: Route, topics: Iterable[str]) -> dict[str, str]:
    """Return the topic that a route writes the records of each topic to; empty if it writes to none."""
    target_of = route.handler.target_of
    return {} if target_of is None else {topic: target_of(topic) for topic in topics if route.takes(topic)}


def check_targets(route: Route, topics: Iterable[str], settings: Settings) -> None:
    """Raise SettingsError if a route writes records of one of these topics to no topic, or in a circle."""
    for topic, target in targets_of(route, topics).items():
        if TOPIC_NAME.fullmatch(target) is None:
            raise SettingsError(
                f"{route.where}.options.topic: {target!r}, for records of {topic!r}, is no topic name; `{{topic}}`"
                " stands for the record's topic"
            )
        if why := why_circular(target, settings):
            raise SettingsError(f"{route.where}.options.topic: {why}")


def why_circular(target: str, settings: Settings) -> str:
    """Return why no record may be written to a topic; empty if it may."""
    kafka, letters = settings.kafka, settings.dead_letter
    if target in kafka.topics or (kafka.topic_pattern and matches_topic(settings).match(target)):
        return f"{target!r} is consumed by this daemon, so records would go round for ever; choose another topic"
    pattern = letters.is_topic(kafka.group_id)
    if target in letters_of(settings).values() or (
        kafka.topic_pattern and letters.topic and re.fullmatch(pattern, target)
    ):
        return f"{target!r} takes dead letters of this daemon; choose another topic"
    return ""
