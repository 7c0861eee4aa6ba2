"""A process that stores sessions in batches and notes its offset now and then, as a daemon commits; it may be killed.

``python -m tests.unit.handlers.sql_writer URL FILE COUNT``; before each batch it writes a line and reads one.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import msgspec

from consumer.errors import SinkError
from consumer.handlers.sql import Upsert
from schemas.samples import sessions
from schemas.session import Session
from tests.unit.handlers.databases import a_record

BATCH = 50
COMMIT_BATCHES = 4
OPTIONAL = [name for name in Session.__struct_fields__ if name not in ("timestamp", "session_id")]


def stream(count: int) -> list[Session]:
    """Return sessions that are sent again and again, each time with other fields unknown."""
    choose, found = random.Random(3), sessions(3)
    known = [next(found) for _ in range(count // 5)]
    unknown = [dict.fromkeys(choose.sample(OPTIONAL, 12)) for _ in range(count)]
    return [
        msgspec.structs.replace(choose.choice(known), **{**fields, "duration": float(number)})
        for number, fields in enumerate(unknown)
    ]


async def write(url: str, file: Path, count: int) -> None:
    events = stream(count)
    handler = Upsert(url, "events")
    handler.expect_events(Session)
    async with handler:
        offset = int(file.read_text()) if file.exists() else 0
        for number, begin in enumerate(range(offset, count, BATCH), 1):
            end = min(begin + BATCH, count)
            print(begin, flush=True)  # noqa: T201 - the test reads it
            sys.stdin.readline()
            while True:
                try:
                    await handler(events[begin:end], [a_record(each) for each in range(begin, end)])
                    break
                except SinkError:
                    print("away", flush=True)  # noqa: T201
                    await asyncio.sleep(0.05)
            if number % COMMIT_BATCHES == 0 or end == count:
                file.with_suffix(".new").write_text(str(end))
                file.with_suffix(".new").replace(file)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
