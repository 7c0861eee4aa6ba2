"""Events of the processes in ``parquet_writer``, and a handler beside the files."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec

COUNT, PARTITIONS = 4000, 2
START = datetime(2026, 1, 1, 22, tzinfo=UTC)


class Numbered(msgspec.Struct):
    """An event that states its position; some are stored."""

    timestamp: datetime
    partition: int
    number: int
    keep: bool


def event_at(partition: int, offset: int) -> Numbered:
    """Return the event of a position; days change back and forth."""
    at = START + timedelta(seconds=3 * offset, days=offset % 11 == 0)
    return Numbered(at, partition, offset, offset % 5 != 3)


async def wait(event: Numbered) -> None:
    """Take a time that differs, so that records end out of order."""
    await asyncio.sleep(event.number * 7919 % 13 / 100)
