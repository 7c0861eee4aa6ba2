"""Dead letters as plain values: the record as it was, byte for byte, and behind its headers a block that says why.

The block speaks one of two dialects that other tools read (Kafka Connect's, Spring's) and always ours. Its first header
is ``session-consumer.reason``: everything before it is the record's own. Pure: no client, no clock.
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
    """How letters are written: where to, in which dialect, for which group."""

    settings: DeadLetterSettings
    group: str
    of_letters: bool = False
    """Whether what failed are letters that were run again: a new one speaks of the same original record."""

    def letter(self, key: TopicPartition, raw: RawRecord, cause: Cause) -> Letter:
        """Make the letter of a raw record that was consumed from ``key``."""
        origin, redrives, own = Position(*key, raw.offset), 0, list(raw.headers)
        before = read_context(own) if self.of_letters else None
        if before is not None:
            origin, redrives, own = before.origin, before.redrives + 1, list(split_headers(own)[0])
        block = write_context(self.settings.headers, origin, raw.timestamp, self.group, cause, redrives)
        return Letter(self.settings.topic_for(origin.topic), raw.key, raw.value, [*own, *block], raw.timestamp)
