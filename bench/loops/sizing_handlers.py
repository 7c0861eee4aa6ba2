"""Handlers of ``bench.sizing``, which run in the daemons that it measures."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from consumer.record import Record


class Late:
    """Notes the records that were handled late, in a file of its process."""

    def __init__(self, path: Path, late_seconds: float) -> None:
        """Write a line for each record handled ``late_seconds`` or more after it was produced."""
        self._file = path.open("a", buffering=1)
        self._late = late_seconds

    def __call__(self, _event: bytes, record: Record) -> None:
        late = time.time() - record.timestamp_ms / 1000
        if late >= self._late:
            self._file.write(f"{record.partition} {record.timestamp_ms} {late:.3f}\n")


async def never(_event: bytes) -> None:
    """Keep a record for as long as the daemon runs."""
    await asyncio.sleep(3600)
