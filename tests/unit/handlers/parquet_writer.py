"""Processes that store events in Parquet files and are killed, or stopped and resumed, at random calls of the system.

``python -m tests.unit.handlers.parquet_writer FOLDER ORDERING KILLS SEED`` prints how many were resumed. Each process
begins at the offsets that the last one has committed, as a member of the group would.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from consumer import testing
from consumer.handlers import parquet, parquet_folder
from consumer.record import Record
from tests.unit.handlers.parquet_events import COUNT, PARTITIONS, event_at

CALLS = ("fsync", "rename", "replace", "pwrite", "mkdir", "ftruncate", "close")
SETTINGS = """
[delivery]
ordering = "{ordering}"
concurrency = 8
[kafka]
topics = ["t"]
[[schemas]]
topic = "t"
type = "tests.unit.handlers.parquet_events:Numbered"
[[routes]]
name = "slow"
handler = "tests.unit.handlers.parquet_events:wait"
[[routes]]
name = "files"
handler = "consumer.handlers.parquet:Parquet"
match = {{ keep = true }}
max_records = 40
options = {{ path = "{folder}" }}
"""


def end_at(call: int, ending: signal.Signals) -> None:
    """Send this process a signal before or after one of its next calls of the system, in whichever thread that is."""
    calls, after = itertools.count(1), random.random() < 0.5

    def wrapped(plain: Callable[..., Any]) -> Callable[..., Any]:
        def ended(*args: Any, **kwargs: Any) -> Any:
            # Each call has its own number, for a second thread may count on while the chosen call is under way. The
            # chosen one may fail: a folder is made that is there.
            chosen = next(calls) == call
            if chosen and not after:
                os.kill(os.getpid(), ending)
            try:
                return plain(*args, **kwargs)
            finally:
                if chosen and after:
                    os.kill(os.getpid(), ending)

        return ended

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


async def consume(work: Path, epoch: int) -> None:
    """Consume from the committed offsets on, and commit; another epoch's process commits nothing."""
    file = work / "committed.json"
    committed = {int(key): at for key, at in json.loads(file.read_text()).items()} if file.exists() else {}
    at = {partition: committed.get(partition, 0) for partition in range(PARTITIONS)}
    async with testing.consumer(settings=work / "settings.toml") as app:
        while any(offset < COUNT for offset in at.values()):
            partition = random.choice([each for each, offset in at.items() if offset < COUNT])
            until = min(COUNT, at[partition] + random.randrange(1, 90))
            await app.give(*(record(partition, each) for each in range(at[partition], until)), wait=False)
            at[partition] = until
            await app.advance(random.choice([0.1, 0.4, 1.1]))
            note(file, epoch, app)
        while any(at < COUNT for at in app.committed.values()):
            await app.advance(5)
        note(file, epoch, app)


def record(partition: int, offset: int) -> Record:
    value = msgspec.json.encode(event_at(partition, offset))
    return Record("t", partition, offset, 1_767_000_000_000 + offset, b"%d" % (offset % 7), value)


def note(file: Path, epoch: int, app: testing.App) -> None:
    """Keep what is committed, as the group does for the owner of a partition."""
    if int((file.parent / "epoch").read_text()) == epoch:
        known = json.loads(file.read_text()) if file.exists() else {}
        known |= {str(key.partition): at for key, at in app.committed.items()}
        new = file.with_suffix(f".{epoch}")
        new.write_text(json.dumps(known))
        new.replace(file)


def life(work: Path, epoch: int, call: int, ending: signal.Signals | None) -> int:
    """Fork a process and return its id; with ``ending`` it gets this signal at a call of the system."""
    (work / "epoch").write_text(str(epoch))
    if pid := os.fork():
        return pid
    random.seed(os.getpid())
    with open(work / f"log.{epoch}", "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    parquet.BUFFER_BYTES = random.choice([20_000, 1_000_000])
    parquet_folder.LOCK_SECONDS = 0.1
    if ending is not None:
        end_at(call, ending)
    try:
        asyncio.run(consume(work, epoch))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(work: Path, ordering: str, kills: int, seed: int) -> None:
    (work / "settings.toml").write_text(SETTINGS.format(ordering=ordering, folder=work / "out"))
    choose, stopped, resumed = random.Random(seed), list[int](), 0
    for epoch in range(kills):
        ending = signal.SIGKILL if epoch % 3 else signal.SIGSTOP
        calls = 40 if ending == signal.SIGSTOP else 150  # one that is to stop does so before it can come to its end
        pid = life(work, epoch, choose.randrange(3, calls), ending)
        status = waited(pid, 2.0 if stopped else 60.0)  # a stopped process may keep the lock that this one waits for
        if status is not None and os.WIFSTOPPED(status):
            stopped.append(pid)
        elif status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if stopped and (status is None or choose.random() < 0.5):
            resumed += 1
            resume(stopped.pop(0))
    for pid in stopped:
        resume(pid)
    status = waited(life(work, kills, 0, None), 200.0)
    print(json.dumps({"resumed": resumed + len(stopped), "ended": status == 0}))  # noqa: T201 - the test reads it


def waited(pid: int, seconds: float) -> int | None:
    """Return the status of a process that ended or was stopped; None if it goes on."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found:
            return status
        time.sleep(0.005)
    return None


def resume(pid: int) -> None:
    """Let a stopped process go on for a while, as one that has lost its partitions, and kill it."""
    os.kill(pid, signal.SIGCONT)
    if (status := waited(pid, 0.3)) is None or os.WIFSTOPPED(status):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
