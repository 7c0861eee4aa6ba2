"""How a record ends on a route; metrics, logs and commits read this, never the exception."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """A record and route end in exactly one of these; only then may the offset be committed."""

    HANDLED = "handled"
    SKIPPED = "skipped"
    DEAD_LETTERED = "dead_lettered"


class HaltReason(Enum):
    """Why a partition waits for a person; the label of the ``halted`` metric."""

    NO_DEAD_LETTER = "no_dead_letter"
    """A record can have no outcome: it is to become a dead letter, and there is no topic for them that takes it."""
    OUT_OF_RANGE = "out_of_range"
    """The broker no longer has the offset that is next."""
    CORRUPT_BATCH = "corrupt_batch"
    """A batch of the topic cannot be read: its records cannot be told apart."""
    BATCH_TOO_LARGE = "batch_too_large"
    """A batch of the topic is over ``kafka.max_batch_bytes`` when it is unpacked."""
    FUSE = "fuse"
    """Too many records in a row became dead letters: something other than the records is wrong."""
    NO_OFFSET = "no_offset"
    """The group has no committed offset here and ``kafka.offset_reset`` is ``none``."""
