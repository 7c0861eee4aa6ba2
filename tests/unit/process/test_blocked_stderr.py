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
from tests.process import end
from tests.unit.process.consumers import HANDLERS, a_free_port, defaults

SMALLEST_PIPE = 4096


@asynccontextmanager
async def blocked(
    broker: FakeBroker,
    folder: Path,
    *overrides: str,
    routes: str = a_route("consumer.handlers.log:Log"),
    full: bool = False,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a daemon with a pipe that nobody reads as its stderr, and that may be full; kill the daemon at the end."""
    settings = folder / "settings.toml"
    settings.write_text(routes)
    arguments = [each for override in (*defaults(broker), *overrides) for each in ("--set", override)]
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    if full:
        os.write(writing, b"x" * SMALLEST_PIPE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "consumer", "run", "-c", str(settings), *arguments, stderr=writing
    )
    os.close(writing)
    try:
        yield process
    finally:
        await end(process)
        os.close(reading)


async def test_a_finished_process_ends(tmp_path: Path) -> None:
    """A daemon that has drained ends with 0, though lines of its watchdog wait for a reader of stderr."""
    begun, port = tmp_path / "begun", a_free_port()
    routes = f'path = ["{HANDLERS}"]\n' + a_route("recording:Blocking", path=begun, seconds=2.0)
    quiet = ("log.level=error", "watchdog.stalled_seconds=0.5", f"http.port={port}")

    async def recovered() -> bool:
        return await health(port) == 200

    async with FakeBroker(records=1) as broker, blocked(broker, tmp_path, *quiet, routes=routes, full=True) as process:
        await eventually(begun.exists)
        await eventually(lambda: sum(broker.committed.values()) == 2)
        await eventually(recovered)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0


async def test_a_failed_process_ends(tmp_path: Path) -> None:
    """A daemon whose error cannot be printed ends with the exit code of that error."""
    wrong = ("delivery.concurrency=0",)
    async with FakeBroker() as broker, blocked(broker, tmp_path, *wrong, full=True) as process:
        async with asyncio.timeout(20):
            assert await process.wait() == 2


async def test_a_thread_keeps_no_finished_process(tmp_path: Path) -> None:
    """A thread that a handler started and that does not end keeps the process for some seconds only."""
    (tmp_path / "threaded.py").write_text(
        "import threading\n\n\ndef handle(event): ...\n\n\nthreading.Thread(target=threading.Event().wait).start()\n"
    )
    tmp_path.chmod(0o700)
    routes = f'path = ["{tmp_path}"]\n' + a_route("threaded:handle")
    async with FakeBroker(records=1) as broker, blocked(broker, tmp_path, "log.level=error", routes=routes) as process:
        await eventually(lambda: sum(broker.committed.values()) == 2)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0


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
