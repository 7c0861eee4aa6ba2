"""Processes that handlers start: they end as they should, and have nothing of the daemon's."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from consumer.process.children import _descriptors
from tests.cluster import a_route, eventually
from tests.fakes.broker import FakeBroker
from tests.unit.process.consumers import a_consumer, a_free_port, lines_of, lines_to

FOUND = "[9, [-15], 16, -15]"


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_a_handler_may_start_processes(tmp_path: Path, method: str, *, threaded: bool) -> None:
    """Pools, processes, executors and commands work, and SIGTERM ends them, however they are started."""
    path = tmp_path / "found"
    routes = a_route("forking:Working", path=path, method=method) + ("threaded = true\n" if threaded else "")
    async with FakeBroker(partitions=1, records=2, step=1) as broker, a_consumer(broker, tmp_path, routes) as daemon:
        await eventually(lambda: lines_of(path) == 2, 60)
        assert path.read_text().splitlines() == [FOUND] * 2
        assert await daemon.stop() == 0


async def test_what_starts_before_the_daemon_ignores_nothing(tmp_path: Path) -> None:
    """A program and a child that a handler's constructor starts have the default handlers of signals."""
    path = tmp_path / "found"
    routes = a_route("forking:StartingEarly", path=path)
    async with FakeBroker() as broker, a_consumer(broker, tmp_path, routes) as daemon:
        await daemon.said("daemon_started")
        assert path.read_text().splitlines() == ["['SIG_DFL', 'SIG_DFL', 'SIG_DFL']"] * 2
        assert await daemon.stop() == 0


async def test_descriptors_of_others_stay() -> None:
    """What a loop has open is known in each state of a connection, and a number that was given on is not its own."""
    loop = asyncio.get_running_loop()
    before = _descriptors(loop)
    async with FakeBroker() as broker:
        listening = _descriptors(loop) - before
        assert len(listening) == 1
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", broker.port)
        number = transport.get_extra_info("socket").fileno()
        assert number in _descriptors(loop)
        transport.pause_reading()
        assert number in _descriptors(loop)
        transport.close()
        await eventually(lambda: transport.get_extra_info("socket").fileno() == -1)
        null = os.open(os.devnull, os.O_RDONLY)
        given_on = os.dup2(null, number)
        try:
            assert given_on not in _descriptors(loop)
        finally:
            os.close(null)
            if given_on != null:
                os.close(given_on)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_child_of_a_killed_daemon_keeps_nothing(tmp_path: Path, *, threaded: bool) -> None:
    """A forked child has no socket, no caught signal and no lock, and its daemon's successor starts beside it."""
    path, orphan = tmp_path / "lines.jsonl", tmp_path / "orphan"
    routes = lines_to(path) + a_route("forking:Orphaning", "orphan", path=orphan)
    routes += "threaded = true\n" if threaded else ""
    port = f"http.port={a_free_port()}"
    async with FakeBroker() as broker, a_consumer(broker, tmp_path, routes, port) as first:
        await eventually(orphan.exists)
        assert (await first.get("/healthz"))[0] == 200
        pid, caught, kinds, wakeup = orphan.read_text().splitlines()
        try:
            assert (caught, kinds, wakeup) == ("['SIGINT']", "[]", "-1")
            first.signal(signal.SIGKILL)
            await eventually(lambda: first.ended)
            before = lines_of(path)
            async with a_consumer(broker, tmp_path, routes, port) as second:
                await second.said("daemon_started")
                await eventually(lambda: lines_of(path) > before)
                os.kill(int(pid), 0)  # it is still there
                assert await second.stop() == 0
        finally:
            os.kill(int(pid), signal.SIGKILL)  # it has our end of the first one's stderr, too
