"""One local Kafka for all processes of a test run: the first that needs it starts it, and it ends with the last.

Every process that uses the broker holds a shared lock on ``users`` in the run's folder; the kernel releases it when the
process ends, however it ends. The broker waits for the exclusive lock on that file, and ends when it has it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

from consumer.kafka.local.cluster import LocalKafka

START_SECONDS = 120.0
SHORT_SESSIONS = {"group.consumer.min.session.timeout.ms": "500", "group.consumer.min.heartbeat.interval.ms": "100"}
"""Lets a test shorten the session of its group; the defaults stay."""


@contextmanager
def locked(file: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file until the end of the block; wait for it first."""
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def shared_kafka(folder: Path, module: str = __name__) -> Iterator[str]:
    """Yield the address of the run's broker, which is started if none runs; ``module`` runs ``serve`` on a folder."""
    address = folder / "address"
    with locked(folder / "users", shared=True):
        with locked(folder / "starting"):
            if not address.exists():
                start(folder, address, module)
        yield address.read_text()


def start(folder: Path, address: Path, module: str) -> None:
    """Start the broker in its own session, so that Ctrl-C does not reach it before the tests have ended."""
    log = folder / "broker.log"
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Not with Popen, which warns of a process that outlives it.
    arguments = [sys.executable, "-m", module, str(folder)]
    process_id = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=files, setsid=True)
    deadline = time.monotonic() + START_SECONDS
    while not address.exists():
        ended, _ = os.waitpid(process_id, os.WNOHANG)
        assert not ended, f"no Kafka for the tests: {log.read_text()}"
        assert time.monotonic() < deadline, f"no Kafka for the tests within {START_SECONDS:.0f} s: {log.read_text()}"
        time.sleep(0.05)


@asynccontextmanager
async def plain_kafka() -> AsyncIterator[str]:
    """Run a broker for the block, and yield its bootstrap servers."""
    async with LocalKafka(properties=SHORT_SESSIONS) as kafka:
        yield kafka.bootstrap_servers


async def serve(folder: Path, kafka: AbstractAsyncContextManager[str]) -> None:
    """Run the broker until nobody uses it; entering it returns the address."""
    address, unfinished = folder / "address", folder / "address.new"
    async with kafka as told:
        unfinished.write_text(told)
        unfinished.replace(address)
        await asyncio.to_thread(remove_when_unused, address, folder / "users")


def remove_when_unused(address: Path, users: Path) -> None:
    with locked(users):
        address.unlink()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), plain_kafka()))
