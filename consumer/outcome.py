"""Outcomes of a record on a route, and reasons of a halt; metrics, logs and commits read these, never the exception."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """Outcome of one record on one route. The offset is committed only when every route has one."""

    HANDLED = "handled"
    SKIPPED = "skipped"
    DEAD_LETTERED = "dead_lettered"


class HaltReason(Enum):
    """Why a partition halted and waits for a person; the label ``reason`` of the metric ``halted``."""

    NO_DEAD_LETTER = "no_dead_letter"
    """A record must become a dead letter, and there is no dead-letter topic that accepts it."""
    OUT_OF_RANGE = "out_of_range"
    """The broker no longer has the next offset to read."""
    CORRUPT_BATCH = "corrupt_batch"
    """A batch cannot be parsed into records."""
    BATCH_TOO_LARGE = "batch_too_large"
    """A batch is larger than ``kafka.max_batch_bytes`` when uncompressed."""
    FUSE = "fuse"
    """Too large a share of the last records became dead letters: the cause is not in the records."""
    NO_OFFSET = "no_offset"
    """The group has no committed offset for this partition and ``kafka.offset_reset`` is ``none``."""
