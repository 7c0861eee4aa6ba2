"""Sessions that are sent again as they fill up, through kills of the writer and of the server."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from tests.docs import ROOT
from tests.unit.handlers.databases import execute, postgres_server
from tests.unit.handlers.sql_writer import stream

COUNT = 4000


def truth(count: int) -> dict[str, dict[str, Any]]:
    """Compute the rows apart: the last value of each field that is not null, and the last offset."""
    rows: dict[str, dict[str, Any]] = {}
    for offset, event in enumerate(stream(count)):
        known = {name: value for name, value in msgspec.structs.asdict(event).items() if value is not None}
        row = rows.setdefault(str(event.session_id), dict.fromkeys(event.__struct_fields__))
        row.update(known, _topic="t", _partition=0, _offset=offset)
    return rows


async def stored(url: str) -> dict[str, dict[str, Any]]:
    rows = await execute(url, "SELECT * FROM events")
    for row in rows:
        del row["_key"]
        if isinstance(row["timestamp"], str):
            row["timestamp"] = datetime.fromisoformat(row["timestamp"])
        row |= {name: bool(row[name]) for name in row if name.startswith("is_") and row[name] is not None}
    return {row["session_id"]: row for row in rows}


class Writer:
    """A process of ``sql_writer``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self.process, self._input, self._lines = process, process.stdin, process.stdout

    def begin(self) -> int:
        """Let it begin its next batch; return the first offset."""
        offset = int(next(self._lines))
        self._go()
        return offset

    def begin_until_away(self) -> None:
        """Let it begin batches until one finds the database away."""
        while next(self._lines) != "away\n":
            self._go()

    def _go(self) -> None:
        self._input.write("\n")
        self._input.flush()

    def finish(self) -> None:
        """Let it write all that is left."""
        self._input.close()
        self._lines.read()
        assert self.process.wait() == 0


@contextmanager
def writer(url: str, file: Path) -> Iterator[Writer]:
    command = [sys.executable, "-m", "tests.unit.handlers.sql_writer", url, str(file), str(COUNT)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()


def kill_some(url: str, file: Path, kills: int) -> int:
    """Kill writers in the middle of a batch; return the number of batches that were begun again."""
    choose, begun = random.Random(kills), list[int]()
    for _ in range(kills):
        with writer(url, file) as running:
            begun += [running.begin() for _ in range(choose.randrange(3, 12))]
    return len(begun) - len(set(begun))


async def test_a_file_equals_the_truth_after_kills(tmp_path: Path) -> None:
    """SQLite: after six kills each row is what the records say, as if each was stored once."""
    url, file = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "offset"
    assert kill_some(url, file, 6) > 0
    with writer(url, file) as running:
        running.finish()
    assert await stored(url) == truth(COUNT)


async def test_a_server_equals_the_truth_after_kills(tmp_path: Path) -> None:
    """PostgreSQL: the same, through three kills of the writer and a crash of the server."""
    with postgres_server() as server:
        file = tmp_path / "offset"
        assert kill_some(server.url, file, 3) > 0
        with writer(server.url, file) as running:
            running.begin()
            server.stop()
            running.begin_until_away()
            server.start()
            running.finish()
        assert await stored(server.url) == truth(COUNT)
