"""A slice of one partition's fetch, and the size of a raw record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from consumer.errors import DecodeError


class Chunk(msgspec.Struct, gc=False):
    """A slice of one partition's fetch: raw records in offset order, and the offset to read after them.

    ``records`` is pulled from in place, record by record: listing them first costs a tenth of the whole. A raw record
    has ``offset``, ``timestamp``, ``key``, ``value`` and ``headers``. ``next_offset`` may lie past the last record + 1:
    transaction markers and compacted ranges hold no records.
    """

    first_offset: int
    records: Iterator[Any]
    next_offset: int
    reread: Callable[[], Iterable[Any]] | None = None
    """Reads the same records once more: for a batch that failed, whose raw records were not kept."""


def size_of(raw: Any) -> int:
    """Bytes of a raw record's key and value."""
    try:
        value = raw.value
    except DecodeError as error:  # its headers cannot be read
        value = error.record.value
    return (len(raw.key) if raw.key is not None else 0) + (len(value) if value is not None else 0)
