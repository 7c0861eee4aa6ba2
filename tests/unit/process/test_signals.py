"""Signals of a real daemon process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cluster import a_route, eventually
from tests.fakes.broker import FakeBroker
from tests.kafka.recorded import noted
from tests.process import end
from tests.unit.process.consumers import a_consumer, lines_of, lines_to

WITHOUT_THREADS = """
import _thread, asyncio, os, signal, sys, threading
from consumer.process.signals import Signals, ended_in_time

def refuse(*_):
    raise RuntimeError("can't start new thread")

async def main(signals):
    stopping = asyncio.Event()
    with Signals(stopping.set, 1.0):
        _thread.start_new_thread = threading._start_new_thread = refuse
        for number in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stopping.wait(), 20)

with ended_in_time():
    asyncio.run(main(int(sys.argv[1])))
"""


@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 143)])
async def test_signals_without_a_thread_left(signals: int, code: int) -> None:
    """A process that may start no more threads stops at the first signal, and ends at the second."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WITHOUT_THREADS, str(signals), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == code, errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_first_signal_during_the_start(tmp_path: Path, number: signal.Signals) -> None:
    """A signal while handlers are imported exits with 0: nothing has begun."""
    begun = tmp_path / "begun"
    (tmp_path / "slow.py").write_text(
        f"import pathlib, time\n\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)\n\ndef handle(event): ...\n"
    )
    tmp_path.chmod(0o700)
    settings = tmp_path / "settings.toml"
    settings.write_text(f'path = ["{tmp_path}"]\n{a_route("slow:handle")}')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "consumer", "run", "-c", str(settings), "--set", "http.port=0"
    )
    try:
        await eventually(begun.exists)
        process.send_signal(number)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    finally:
        await end(process)


async def test_signals_that_end_nothing(tmp_path: Path) -> None:
    """SIGHUP begins the files that were moved away, SIGUSR1 logs all stacks, SIGPIPE does nothing; records go on."""
    path = tmp_path / "lines.jsonl"
    async with FakeBroker(records=10) as broker, a_consumer(broker, tmp_path, lines_to(path)) as daemon:
        await eventually(lambda: sum(broker.committed.values()) == 20)
        path.rename(tmp_path / "moved")
        daemon.signal(signal.SIGHUP)
        await eventually(path.exists)
        daemon.signal(signal.SIGUSR1)
        stacks = json.loads(await daemon.said("stacks_requested"))["stacks"]
        assert any(each.startswith("thread MainThread: ") for each in stacks)
        assert any(each.startswith("task ") and "poll_forever" in each for each in stacks)
        daemon.signal(signal.SIGPIPE)
        broker.records = 20
        await eventually(lambda: sum(broker.committed.values()) == 40)
        assert await daemon.stop() == 0
    assert (lines_of(tmp_path / "moved"), lines_of(path)) == (20, 20)


async def test_stacks_while_a_handler_blocks_the_loop(tmp_path: Path) -> None:
    """SIGUSR1 names the line at which a handler blocks the event loop, while it does."""
    begun = tmp_path / "begun"
    routes = a_route("recording:Blocking", path=begun, seconds=600.0)
    async with FakeBroker() as broker, a_consumer(broker, tmp_path, routes) as daemon:
        await eventually(begun.exists)
        daemon.signal(signal.SIGUSR1)
        assert "recording.py" in await daemon.said("stacks_requested")
        for number in (signal.SIGTERM, signal.SIGINT):  # two of one kind that wait together count as one
            daemon.signal(number)
        assert await daemon.exit_code() in (130, 143)
        assert daemon.errors == [
            "session-consumer: a second signal: exiting at once; records not committed will be delivered again"
        ]


async def test_a_reopen_that_fails_is_logged(tmp_path: Path) -> None:
    """A handler that cannot reopen its files is named in the log, the others reopen theirs, and nothing ends."""
    first, second = tmp_path / "a" / "lines.jsonl", tmp_path / "b.jsonl"
    routes = lines_to(first, "first") + lines_to(second, "second")
    async with FakeBroker(records=5) as broker, a_consumer(broker, tmp_path, routes) as daemon:
        await eventually(lambda: sum(broker.committed.values()) == 10)
        first.unlink()
        first.mkdir()
        second.rename(tmp_path / "moved")
        daemon.signal(signal.SIGHUP)
        await eventually(second.exists)
        failed = json.loads(await daemon.said("reopen_failed"))
        assert failed["route"] == "first"
        assert f"{first}: it is a folder" in failed["why"]
        assert await daemon.stop() == 0


@pytest.mark.parametrize("first", ["parent", "worker"])
async def test_a_signal_to_a_parent_and_its_worker_drains(tmp_path: Path, first: str) -> None:
    """A service manager that sends SIGTERM to all processes forces nothing: the worker ends its call, then exits."""
    out = tmp_path / "handled"
    routes = a_route("recording:Recorder", path=out, delay=1.5)
    async with FakeBroker() as broker:
        consumer = a_consumer(broker, tmp_path, routes)
        consumer.arguments += ["--workers", "1"]
        async with consumer as parent:
            pid = json.loads(await parent.said("worker_started"))["pid"]
            await eventually(lambda: noted(out))
            if first == "worker":
                os.kill(pid, signal.SIGTERM)
            else:
                parent.signal(signal.SIGTERM)
            await parent.said("daemon_draining")
            if first == "worker":
                parent.signal(signal.SIGTERM)
            else:
                os.kill(pid, signal.SIGTERM)
            assert await parent.exit_code() == 0
    assert noted(out) == noted(out, "end")
