"""Commands on networks that are not as they should be: one healthy bootstrap server is enough for each of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import Cluster, a_session, eventually
from tests.process import RunningConsumer, command


async def handled(consumer: RunningConsumer, count: int) -> bool:
    return await consumer.metric("outcomes_total", route="log", outcome="handled") == count


LOG = '[[routes]]\nname = "log"\nhandler = "consumer.handlers.log:Log"\n'


@pytest.fixture
def hung() -> Iterator[list[str]]:
    """Three addresses that accept connections, in the kernel, and never answer."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64)) for _ in range(3)]
        yield [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def reach(cluster: Cluster, hung: list[str]) -> list[str]:
    servers = ",".join([*hung, cluster.bootstrap_servers])
    sets = [
        f"kafka.bootstrap_servers={servers}",
        f"kafka.topics={cluster.topic}",
        f"kafka.group_id={cluster.kafka.group_id}",
        "http.port=0",
    ]
    return [part for each in sets for part in ("--set", each)]


async def test_commands_beside_servers_that_hang(cluster: Cluster, hung: list[str], tmp_path: Path) -> None:
    """``check``, ``produce`` and ``dlq`` succeed, though aiokafka would wait a minute for each hung server."""
    await cluster.create(dead_letters=1)
    lines = tmp_path / "sessions.jsonl"
    lines.write_bytes(b"".join(a_session(number) + b"\n" for number in range(5)))
    code, out, err = await command("produce", str(lines), "--topic", cluster.topic, *reach(cluster, hung)[:2])
    assert code == 0, err
    code, out, err = await command("check", *reach(cluster, hung))
    assert code == 0, out + err
    code, out, err = await command("dlq", "list", "--json", *reach(cluster, hung))
    assert code == 0, err
    assert json.loads(out)["letters"] == []


async def test_run_beside_servers_that_hang(cluster: Cluster, hung: list[str]) -> None:
    await cluster.create(dead_letters=1)
    await cluster.produce(map(a_session, range(5)))
    servers = ",".join([*hung, cluster.bootstrap_servers])
    async with cluster.run(f"kafka.bootstrap_servers={servers}", routes=LOG) as consumer:
        await eventually(partial(handled, consumer, 5))
        assert await consumer.stop() == 0
