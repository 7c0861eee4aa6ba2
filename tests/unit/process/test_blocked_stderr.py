"""A stderr that nobody reads."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.cluster import a_route, eventually
from tests.fakes.broker import FakeBroker
from tests.unit.process.consumers import a_free_port, defaults

SMALLEST_PIPE = 4096


@asynccontextmanager
async def blocked(broker: FakeBroker, folder: Path, *overrides: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a daemon that logs every event to a pipe that nobody reads; kill it at the end."""
    settings = folder / "settings.toml"
    settings.write_text(a_route("consumer.handlers.log:Log"))
    arguments = [each for override in (*defaults(broker), *overrides) for each in ("--set", override)]
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "consumer", "run", "-c", str(settings), *arguments, stderr=writing
    )
    os.close(writing)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(reading)


async def health(port: int) -> int:
    try:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/healthz") as answer:
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0


async def test_a_stderr_that_nobody_reads(tmp_path: Path) -> None:
    """The event loop waits for the reader, HTTP says so, and the watchdog ends the process with 70."""
    port, seen = a_free_port(), []

    async def fails() -> bool:
        seen.append(await health(port))
        return seen[-1] == 503

    watched = ("watchdog.stalled_seconds=1", "watchdog.window_seconds=3", f"http.port={port}")
    async with FakeBroker() as broker, blocked(broker, tmp_path, *watched) as process:
        await eventually(fails)
        async with asyncio.timeout(20):
            assert await process.wait() == 70


async def test_a_stop_does_not_need_a_reader(tmp_path: Path) -> None:
    """A second signal ends the process at once, though its last line cannot be written."""
    port = a_free_port()

    async def fails() -> bool:
        return await health(port) == 503

    watched = ("watchdog.stalled_seconds=1", f"http.port={port}")
    async with FakeBroker() as broker, blocked(broker, tmp_path, *watched) as process:
        await eventually(fails)
        for number in (signal.SIGTERM, signal.SIGINT):  # two of one kind that wait together count as one
            process.send_signal(number)
        async with asyncio.timeout(20):
            assert await process.wait() in (130, 143)
