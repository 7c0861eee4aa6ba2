"""The handler of the chaos tests: it notes begin and end of each call for the checker."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

from consumer import Record


class Logged:
    """Appends a line at the begin and at the end of each call to a file of this process, at once."""

    def __init__(self, folder: Path, delay: float) -> None:
        self._file = os.open(folder / f"{os.getpid()}.calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._delay = delay
        self._random = random.Random(os.getpid())

    async def __call__(self, _event: Any, record: Record) -> None:
        where = f"{record.partition} {record.offset} {(record.key or b'-').decode()}"
        self._note("begin", where)
        if self._random.random() < 0.5:  # half of the calls never give the loop back
            await asyncio.sleep(self._random.random() * self._delay)
        self._note("end", where)

    def _note(self, what: str, where: str) -> None:
        os.write(self._file, f"{what} {where} {time.time_ns()}\n".encode())
