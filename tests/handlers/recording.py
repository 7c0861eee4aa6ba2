"""Handlers that note in a file what they got, so that a test can read it from outside the process."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Self

from consumer import Record
from consumer.errors import SinkError


class Recorder:
    """Appends ``partition offset session_id pid`` of each record at once; each call takes ``delay`` seconds."""

    def __init__(self, path: Path, delay: float = 0.0, fail_at: int = -1) -> None:
        self.path = path
        self.delay = delay
        self.fail_at = fail_at

    async def __call__(self, event: Any, record: Record) -> None:
        if record.offset == self.fail_at:
            raise RuntimeError(f"the caller was {event.source}")
        self.note(event, record)
        if self.delay:
            await asyncio.sleep(self.delay)
            self.note(event, record, "end")

    def note(self, event: Any, record: Record, what: str = "begin") -> None:
        with self.path.open("a") as file:
            file.write(f"{record.partition} {record.offset} {event.session_id} {os.getpid()} {what}\n")


class Batches:
    """Notes ``records`` of each batch; each call takes ``delay`` seconds."""

    def __init__(self, path: Path, delay: float) -> None:
        self.path = path
        self.delay = delay

    async def __call__(self, events: list[Any]) -> None:
        with self.path.open("a") as file:
            file.write(f"{len(events)}\n")
        await asyncio.sleep(self.delay)


class Buffering:
    """Keeps offsets in memory and writes them in ``flush``, as a sink does, unless the file ``broken`` exists."""

    def __init__(self, path: Path, broken: Path) -> None:
        self.path = path
        self.broken = broken
        self.kept: list[int] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __call__(self, _event: Any, record: Record) -> None:
        self.kept.append(record.offset)

    async def flush(self) -> None:
        if self.broken.exists():
            raise OSError("the sink is away")
        with self.path.open("a") as file:
            file.writelines(f"{offset}\n" for offset in self.kept)
        self.kept.clear()


class LeftBadly:
    """Fails at each call, and again when it is left."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        raise SinkError("the disk is full")

    def __call__(self, _event: Any) -> None:
        raise LookupError


class Blocking:
    """Blocks the event loop for ``seconds`` at each event."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.seconds = seconds

    def __call__(self, _event: Any) -> None:
        self.path.touch()
        time.sleep(self.seconds)


class Stubborn:
    """Swallows its cancellation and goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def __call__(self, _event: Any) -> None:
        self.path.touch()
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
