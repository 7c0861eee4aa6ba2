"""A short storm on three brokers, and the proxy that makes its network faults; ``make chaos`` runs long ones."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from tests.chaos.harness import Plan
from tests.chaos.proxy import Proxy
from tests.chaos.storm import FAULTS, OVERRIDES, Recovery, Storm, needless
from tests.chaos.three import Three
from tests.cluster import Cluster

SLICE = (
    "leader killed",
    "coordinator refuses connections for 8 s",
    "all connections reset",
    "worker killed",
    "flaky network for 10 s",
)


SLICES = {"classic": SLICE, "consumer": (*SLICE, "coordinator killed", "worker frozen for twice its session")}


@pytest.mark.parametrize("protocol", SLICES)
async def test_a_storm_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str) -> None:
    """Through faults of brokers, network and workers nothing is lost or reordered; all partitions recover in time."""
    caplog.set_level(logging.CRITICAL, "aiokafka")  # the harness's own clients meet the faults too
    async with Three(tmp_path / "kafka", seed=5) as three:
        plan = Plan(
            seed=5,
            ordering="key",
            partitions=6,
            workers=2,
            rate=300.0,
            pause=(0.5, 1.0),
            kills=True,
            protocol=protocol,
            overrides=(f"kafka.bootstrap_servers={three.through_proxies}", *OVERRIDES),
        )
        cluster = Cluster(three.bootstrap_servers, "storm", tmp_path)
        faults = [fault for fault in FAULTS if fault.name in SLICES[protocol]]
        storm = Storm(cluster, plan, three, faults, lambda _: None)
        report = await storm.judged()
    assert report.broken == [], "\n".join(report.broken + report.said)
    assert [each.fault for each in storm.recoveries] == [fault.name for fault in faults]
    assert report.calls > 500


def test_a_needless_rebalance_is_found() -> None:
    """A rebalance after a lost leader is needless; one after a lost worker is not."""
    assert needless([Recovery("leader killed", 1.0, 15.0, 1)])
    assert not needless([Recovery("leader killed", 1.0, 15.0, 0), Recovery("worker killed", 1.0, 11.0, 2)])


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float = 0.5) -> bytes | None:
    """Send a word and return the answer; None without one in time, empty after the connection's end."""
    try:
        async with asyncio.timeout(seconds):
            writer.write(b"hello")
            return await reader.read(100)
    except TimeoutError:
        return None
    except ConnectionError:
        return b""


async def test_the_proxy_does_what_it_says() -> None:
    """Each mode has its effect on open and new connections, so the storm's faults are real."""
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        target = server.sockets[0].getsockname()[1]
        async with Proxy(0, target) as proxy:
            assert proxy._server is not None
            port = proxy._server.sockets[0].getsockname()[1]
            old = await asyncio.open_connection("127.0.0.1", port)
            assert await answer(*old) == b"hello"
            proxy.mode = "slow"
            assert await answer(*old, seconds=2) == b"hello"
            proxy.mode = "black_hole"
            assert await answer(*old) is None
            proxy.mode = "pass"
            assert await answer(*old) is None  # it stays broken without a notice
            new = await asyncio.open_connection("127.0.0.1", port)
            assert await answer(*new) == b"hello"
            proxy.mode = "one_way"
            assert await answer(*new) is None
            proxy.mode = "pass"
            third = await asyncio.open_connection("127.0.0.1", port)
            proxy.mode = "flaky"
            await asyncio.sleep(4)
            assert await answer(*third) == b""
            proxy.mode = "refuse"
            refused = await asyncio.open_connection("127.0.0.1", port)
            assert await answer(*refused) == b""
            for _, writer in (old, new, third, refused):
                writer.close()
