"""The handler of the failure runs: each event says how it fails, and each success is noted in a file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from consumer import Record
from schemas.session import Session


class Failing:
    """Appends ``partition offset key redriven`` of each handled event, with its original partition and offset.

    Events whose session_id begins with ``transient`` fail in their first two calls in this process. Those with
    ``lasting`` always fail, unless the file ``mended`` exists. While the file ``down`` exists the handler's dependency
    is down.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"{os.getpid()}.done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._folder = folder
        self._calls: Counter[str] = Counter()

    async def __call__(self, event: Any, record: Record) -> None:
        name = event.session_id or ""
        if name.startswith("transient"):
            self._calls[name] += 1
            if self._calls[name] <= 2:
                raise TimeoutError(f"no answer for {event.source}")
        if name.startswith("lasting") and not (self._folder / "mended").exists():
            raise ValueError(f"cannot handle {event.source}")
        if name.startswith("asks") and (self._folder / "down").exists():
            raise ConnectionRefusedError(f"nobody there for {event.source}")
        origin, key = record.origin, (record.key or b"-").decode()
        redriven = int(record.letter_of is not None)
        os.write(self._file, f"{origin.partition} {origin.offset} {key} {redriven}\n".encode())


class OperationalError(Exception):
    """What a database driver raises when its server is away: not the built-in ConnectionError."""


class Upserts:
    """Takes batches, as an upsert of a database; every call fails while the file ``down`` exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(self, events: list[Session], records: list[Record]) -> None:
        if (self._folder / "down").exists():
            raise OperationalError(f"the server closed the connection of {events[0].source}")
