"""Handlers of the redrive tests: each notes in a file its route, and the original place of its events."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from consumer import Record, Reject
from schemas.session import Session


class Notes:
    """Lines ``route topic partition offset`` in one file, written at once; several processes may append to it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, route: str, record: Record) -> None:
        topic, partition, offset = record.origin
        os.write(self._file, f"{route} {topic} {partition} {offset}\n".encode())


class Homing:
    """Handles every event and every tombstone; fails for events whose session_id begins with ``bad``."""

    def __init__(self, path: Path, route: str = "all") -> None:
        self._notes = Notes(path)
        self._route = route

    async def __call__(self, event: Session | None, record: Record) -> None:
        if event is not None and (event.session_id or "").startswith("bad"):
            raise ValueError(f"cannot handle {event.source}")
        self._notes.add(self._route, record)


class InBatches:
    """Handles batches, and rejects the events whose session_id begins with ``bad``."""

    def __init__(self, path: Path) -> None:
        self._notes = Notes(path)

    async def __call__(self, events: list[Session], records: list[Record]) -> None:
        bad = [index for index, event in enumerate(events) if (event.session_id or "").startswith("bad")]
        if bad:
            raise Reject("not these", indexes=bad)
        for record in records:
            self._notes.add("batch", record)


class Stuck:
    """Notes its first event and never ends, even when cancelled."""

    def __init__(self, path: Path) -> None:
        self._notes = Notes(path)

    async def __call__(self, _event: Any, record: Record) -> None:
        self._notes.add("stuck", record)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
