"""How a record ends on a route; metrics, logs and commits read this, never the exception."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """A record and route end in exactly one of these; only then may the offset be committed."""

    HANDLED = "handled"
    SKIPPED = "skipped"


class HaltReason(Enum):
    """Why a partition waits for a person; the label of the ``halted`` metric."""

    NO_DEAD_LETTER = "no_dead_letter"
    """A record has no outcome: it does not decode, or its handler raised, and nothing may take it out of the way."""
    OUT_OF_RANGE = "out_of_range"
    """The broker no longer has the offset that is next."""
    CORRUPT_BATCH = "corrupt_batch"
    """A batch of the topic cannot be read: its records cannot be told apart."""
    NO_OFFSET = "no_offset"
    """The group has no committed offset here and ``kafka.offset_reset`` is ``none``."""
