"""Dead letters as plain values: the record byte for byte, with context headers after its own.

The context headers state the cause in a dialect that other tools read (Kafka Connect's or Spring's), and always in
ours. The first one is ``session-consumer.reason``; all headers before it are the record's own. Pure: no client, no
clock.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.headers import read_context, split_headers, write_context
from consumer.record import Position, RawRecord, TopicPartition
from consumer.settings.sections import DeadLetterSettings


class Letter(msgspec.Struct, frozen=True):
    """A record to be written to a dead-letter topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int


class Writer(NamedTuple):
    """Makes letters for one consumer group, with the topic and the dialect of the settings."""

    settings: DeadLetterSettings
    group: str
    of_letters: bool = False
    """Whether the failed records are letters being redriven. A new letter then names the same original record."""

    def topic_for(self, topic: str) -> str:
        """Return the topic that takes the letters of a topic."""
        return self.settings.topic_for(topic, self.group)

    def letter(self, key: TopicPartition, raw: RawRecord, cause: Cause) -> Letter:
        """Make the letter of a raw record that was consumed from ``key``."""
        origin, redrives, own = Position(*key, raw.offset), 0, list(raw.headers)
        before = read_context(own) if self.of_letters else None
        if before is not None:
            origin, redrives, own = before.origin, before.redrives + 1, list(split_headers(own)[0])
        block = write_context(self.settings.headers, origin, raw.timestamp, self.group, cause, redrives)
        return Letter(self.topic_for(origin.topic), raw.key, raw.value, [*own, *block], raw.timestamp)
