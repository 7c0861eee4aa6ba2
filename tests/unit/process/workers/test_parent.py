"""The parent as a process: its signals, its death, and what a service manager hears."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from consumer.process.workers.parent import PASSED_ON, following
from tests.cluster import eventually
from tests.process import command, end
from tests.unit.process.test_blocked_stderr import SMALLEST_PIPE
from tests.unit.process.workers.programs import HERE, events, happened, is_alive, some_workers

ROOT = Path(__file__).parent.parent.parent.parent.parent
EXIT_SECONDS = 30.0


@asynccontextmanager
async def a_parent(
    folder: Path,
    workers: int = 2,
    *,
    plans: dict[str, list[str]] | None = None,
    until: str = "ready",
    stderr: int | None = None,
    **environment: str,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a parent, and wait until its workers are ready, or started; kill it at the end of the block."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "a_parent.py"),
        str(folder),
        json.dumps(plans or {}),
        str(workers),
        env={**os.environ, "PYTHONPATH": path, **environment},
        stderr=stderr,
    )
    try:
        await happened(folder, until, workers)
        yield process
    finally:
        await end(process)


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(EXIT_SECONDS):
        return await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_first_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    """All workers are stopped once, and the parent exits with 0 after them."""
    async with a_parent(tmp_path) as parent:
        parent.send_signal(number)
        assert await ended(parent) == 0
        assert len(events(tmp_path, "stopped")) == 2
        assert not any(is_alive(each.pid) for each in events(tmp_path, "started"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_kills(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A second signal ends the parent with 128 + its number, and workers that still drain with it."""
    async with a_parent(tmp_path, plans={"1": ["stuck"], "2": ["stuck"]}) as parent:
        parent.send_signal(number)
        started = await happened(tmp_path, "stopped", 2)
        parent.send_signal(number)
        assert await ended(parent) == code
        await eventually(lambda: not any(is_alive(each.pid) for each in started))


async def test_signals_that_end_nothing_are_passed_on(tmp_path: Path) -> None:
    async with a_parent(tmp_path) as parent:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            parent.send_signal(number)
            assert {each.number for each in await happened(tmp_path, number.name, 2)} == {1, 2}
        parent.send_signal(signal.SIGTERM)
        assert await ended(parent) == 0


async def test_a_parent_that_has_stopped_survives_signals(tmp_path: Path) -> None:
    """Signals that end nothing do so until the process has ended: what caught them before does so again."""

    def caught(*_: object) -> None: ...

    before = {number: signal.signal(number, caught) for number in PASSED_ON}
    try:
        with following(some_workers(tmp_path)):
            assert caught not in map(signal.getsignal, PASSED_ON)
        assert [signal.getsignal(number) for number in PASSED_ON] == [caught, caught]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_a_worker_that_still_imports_survives_signals(tmp_path: Path) -> None:
    """Signals that end nothing reach a worker only once it catches them."""
    (tmp_path / "hold").touch()
    async with a_parent(tmp_path, until="started") as parent:
        parent.send_signal(signal.SIGHUP)
        (tmp_path / "hold").unlink()
        await happened(tmp_path, "ready", 2)
        parent.send_signal(signal.SIGTERM)
        assert await ended(parent) == 0
    assert len(events(tmp_path, "started")) == 2


async def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """When the parent is killed its workers drain, as at SIGTERM, and end."""
    async with a_parent(tmp_path) as parent:
        parent.kill()
        await ended(parent)
        assert len(await happened(tmp_path, "stopped", 2)) == 2
        await eventually(lambda: not any(is_alive(each.pid) for each in events(tmp_path, "started")))


async def test_a_terminal_reaches_the_parent_alone(tmp_path: Path) -> None:
    """Workers are in sessions of their own: Ctrl-C in the parent's terminal is one signal for each of them."""
    async with a_parent(tmp_path) as parent:
        for each in events(tmp_path, "started"):
            assert os.getsid(each.pid) == each.pid != os.getsid(parent.pid)


async def test_a_stderr_that_nobody_reads(tmp_path: Path) -> None:
    """The parent waits for no reader: it starts workers, starts them again when they end, and follows signals."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * SMALLEST_PIPE)
    os.set_blocking(writing, True)
    try:
        async with a_parent(tmp_path, stderr=writing) as parent:
            os.kill(events(tmp_path, "ready")[0].pid, signal.SIGKILL)
            await happened(tmp_path, "ready", 3)
            parent.send_signal(signal.SIGTERM)
            assert await ended(parent) == 0
            assert len(events(tmp_path, "stopped")) == 2
    finally:
        os.close(reading)
        os.close(writing)


async def test_the_service_manager_hears_the_parent(tmp_path: Path) -> None:
    """READY once all workers are ready, how many run, signs of life, STOPPING; workers inherit no socket.

    The parent asks for no time while a worker imports: one that hangs there has no watchdog that ends it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20.0)
        (tmp_path / "hold").touch()
        variables: dict[str, Any] = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        async with a_parent(tmp_path, until="started", **variables) as parent:

            async def hears(text: str) -> str:
                async with asyncio.timeout(EXIT_SECONDS):
                    while text not in (heard := (await asyncio.to_thread(manager.recv, 4096)).decode()):
                        assert "READY" not in heard or text == "READY=1"
                return heard

            assert "EXTEND" not in await hears("STATUS=0 of 2 workers run")
            assert "EXTEND" not in await hears("WATCHDOG=1")
            (tmp_path / "hold").unlink()
            await hears("READY=1")
            assert await hears("STATUS=2 of 2 workers run")
            for each in events(tmp_path, "started"):
                inherited = Path(f"/proc/{each.pid}/environ").read_bytes()
                assert b"NOTIFY_SOCKET" not in inherited
                assert b"WATCHDOG" not in inherited
            parent.send_signal(signal.SIGTERM)
            await hears("STOPPING=1")
            assert await ended(parent) == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--workers", "2", "--set", "http.port=65534"], "--workers 2: of worker 2, http.port = 65536 must be"),
        (["--workers", "0"], "--workers"),
        (["--workers", "65"], "--workers"),
        (["--worker", "1:0"], "use --workers"),
        (["--workers=2", "--set", "kafka.topics=[]"], "kafka.topics is empty"),
    ],
)
async def test_what_cannot_work_is_refused_before_any_start(arguments: list[str], why: str) -> None:
    """The parent ends with 2, and starts no worker."""
    code, _, errors = await command("run", *arguments)
    assert (code, why in errors) == (2, True), errors
    assert "workers_started" not in errors


async def test_the_parent_imports_no_kafka_client() -> None:
    """The command line of the parent, and all that it imports, stays clear of aiokafka and of metrics."""
    program = (
        "import sys; sys.argv = ['session-consumer', 'run', '--workers', '2'];"
        "from consumer.cli import _is_parent; assert _is_parent(sys.argv[1:]);"
        "import consumer.cli.workers, consumer.process.workers.parent;"
        "print(sorted({'aiokafka', 'prometheus_client', 'consumer.process.parts'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert found == "[]\n"
