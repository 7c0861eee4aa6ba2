"""Workers without Kafka, and what they noted."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from consumer.process.notify import Notify
from consumer.process.workers.restarts import Pace
from consumer.process.workers.worker import Worker
from consumer.process.workers.workers import Rules, Workers
from tests.cluster import eventually

HERE = Path(__file__).parent
QUICK = Pace(first=0.01, longest=0.05)


class Event(NamedTuple):
    """What a worker noted."""

    number: int
    pid: int
    what: str


def command(folder: Path | str, plans: str) -> list[str]:
    return [sys.executable, str(HERE / "a_worker.py"), str(folder), plans]


def events(folder: Path, what: str) -> list[Event]:
    """Return the events of one kind, in their order."""
    file = folder / "events"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [Event(int(number), int(pid), each) for number, pid, each in lines if each == what]


async def happened(folder: Path, what: str, times: int) -> list[Event]:
    """Wait until an event has happened so often."""
    await eventually(lambda: len(events(folder, what)) >= times)
    return events(folder, what)


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def some_workers(
    folder: Path, count: int = 2, *, pace: Pace = QUICK, stop_seconds: float = 20.0, **plans: list[str]
) -> Workers:
    """Make workers; ``w1=["exit 1", "serve"]`` is the plan of the first: each of its processes in turn."""
    given = json.dumps({name[1:]: plan for name, plan in plans.items()})
    made = [Worker(number, command(folder, given), 0) for number in range(1, count + 1)]
    return Workers(made, Rules(stop_seconds, restarts=5, window_seconds=600.0, pace=pace), Notify({}))
