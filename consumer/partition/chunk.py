"""Chunks, and the size of a raw record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from consumer.errors import DecodeError
from consumer.record import RawRecord


class Chunk(msgspec.Struct, gc=False):
    """A slice of one partition's fetch: raw records in offset order, and the offset to read after them.

    ``records`` is pulled from in place, record by record: listing them first costs a tenth of the total time.
    ``next_offset`` may lie past the last record + 1: transaction markers and compacted ranges hold no records.
    """

    first_offset: int
    records: Iterator[RawRecord]
    next_offset: int
    reread: Callable[[], Iterable[RawRecord]] | None = None
    """Reads the same records again, for a failed batch whose raw records were not kept."""


def size_of(raw: RawRecord) -> int:
    """Return the bytes of a raw record's key and value."""
    try:
        value = raw.value
    except DecodeError as error:  # its headers cannot be read
        value = error.record.value if error.record is not None else None
    return (len(raw.key) if raw.key is not None else 0) + (len(value) if value is not None else 0)
