"""The handler of the failure runs: what it does with an event stands in the event, and every success in a file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from consumer import Record


class Failing:
    """Appends ``partition offset key redriven`` for each event that it handled, of where it was consumed first.

    Events whose session_id begins with ``transient`` fail at their first two calls in this process, those with
    ``lasting`` always, unless the file ``mended`` exists; while the file ``down`` exists nothing it needs is there.
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
