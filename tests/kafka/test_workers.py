"""``run --workers`` on a real Kafka: one group of several processes, which lose nothing when one of them is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.recorded import RECORDER, cluster_caught_up, noted
from tests.process import RunningConsumer
from tests.unit.process.workers.programs import is_alive

SESSION_SECONDS = 6.0
SHORT = (f"kafka.session_timeout_seconds={SESSION_SECONDS:g}", "kafka.heartbeat_interval_seconds=1")


def with_workers(daemon: RunningConsumer, count: int = 2) -> RunningConsumer:
    daemon.arguments += ["--workers", str(count)]
    return daemon


async def workers_of(parent: RunningConsumer) -> list[dict[str, Any]]:
    """Return the facts and the status of each worker, as the parent's /status.json has them."""
    found = json.loads((await parent.get("/status.json"))[1])["workers"]
    return [{**each["worker"], "partitions": each["partitions"]} for each in found]


async def shared(parent: RunningConsumer, *partitions: int) -> list[dict[str, Any]]:
    """Wait until the workers own these numbers of partitions, in any order."""

    async def is_shared() -> bool:
        return sorted(each["partitions"] or 0 for each in await workers_of(parent)) == sorted(partitions)

    await eventually(is_shared, 60.0)
    return await workers_of(parent)


async def test_workers_share_the_partitions(cluster: Cluster, tmp_path: Path) -> None:
    """Two workers take half of the partitions each and handle every record once, in order; a stop ends all with 0."""
    await cluster.create(partitions=4)
    out = tmp_path / "handled"
    routes = a_route(RECORDER, path=out, delay=0.001)
    async with with_workers(cluster.run(routes=routes)) as parent:
        found = await shared(parent, 2, 2)
        assert (await parent.get("/readyz"))[0] == 200
        for partition in range(4):
            await cluster.produce(map(a_session, range(300)), partition)
        await eventually(lambda: len(noted(out)) >= 1200, 60.0)
        await eventually(lambda: cluster_caught_up(cluster))
        assert await parent.stop() == 0
        assert not any(is_alive(each["pid"]) for each in found)
        assert {json.loads(line)["worker"] for line in parent.lines if "daemon_stopped" in line} == {1, 2}
    assert set(Counter(noted(out)).values()) == {1}
    for partition in range(4):
        assert [offset for each, offset in noted(out) if each == partition] == list(range(300))
    pids = {line.split()[3] for line in out.read_text().splitlines()}
    assert pids == {str(each["pid"]) for each in found}


async def test_a_killed_worker(cluster: Cluster, tmp_path: Path) -> None:
    """The other takes over within the session timeout + 5 s, the killed one is started again, and nothing is lost."""
    await cluster.create(partitions=2)
    out = tmp_path / "handled"
    routes = a_route(RECORDER, path=out, delay=0.001)
    async with with_workers(cluster.run(*SHORT, routes=routes)) as parent:
        first, second = await shared(parent, 1, 1)
        for partition in range(2):
            await cluster.produce(map(a_session, range(100)), partition)
        await eventually(lambda: len(noted(out)) >= 200)
        os.kill(second["pid"], signal.SIGKILL)
        line = json.loads(await parent.said("worker_ended"))
        assert (line["worker"], line["exit_code"], line["restart_in"]) == (2, 137, 1.0)
        for partition in range(2):
            await cluster.produce(map(a_session, range(100, 200)), partition)
        await eventually(lambda: len(set(noted(out))) == 400, SESSION_SECONDS + 5.0)  # without that, it takes a minute
        same, again = await shared(parent, 1, 1)
        assert same["pid"] == first["pid"]
        assert (again["restarts"], again["pid"] != second["pid"]) == (1, True)
        await eventually(lambda: cluster_caught_up(cluster))
        assert await parent.stop() == 0
    assert {*noted(out)} == {(partition, offset) for partition in range(2) for offset in range(200)}


async def test_a_killed_parent(cluster: Cluster, tmp_path: Path) -> None:
    """The workers of a killed parent end their calls, commit and leave, as at SIGTERM."""
    await cluster.create(partitions=2)
    out = tmp_path / "handled"
    async with with_workers(cluster.run(routes=a_route(RECORDER, path=out, delay=1.0))) as parent:
        found = await shared(parent, 1, 1)
        for partition in range(2):
            await cluster.produce(map(a_session, range(5)), partition)
        await eventually(lambda: len(noted(out)) == 2)
        parent.signal(signal.SIGKILL)
        await eventually(lambda: not any(is_alive(each["pid"]) for each in found), 30.0)
    assert sorted(noted(out, "end")) == sorted(noted(out))
    assert await cluster.committed() == dict(Counter(partition for partition, _ in noted(out)))


async def test_a_call_that_outlasts_the_stop_of_its_worker(cluster: Cluster, tmp_path: Path) -> None:
    """The parent exits with the code of the worker: 70."""
    await cluster.create(partitions=2)
    out = tmp_path / "handled"
    routes = a_route(RECORDER, path=out, delay=60)
    async with with_workers(cluster.run("delivery.drain_seconds=0.5", routes=routes)) as parent:
        await shared(parent, 1, 1)
        await cluster.produce([a_session(0)])
        await eventually(lambda: noted(out))
        assert await parent.stop() == 70
        assert any("exited with 70 at the stop" in line for line in parent.errors)


async def test_a_halt_with_on_halt_exit_ends_all(cluster: Cluster, tmp_path: Path) -> None:
    """A partition of one worker halts: both end, and the code is 74."""
    await cluster.create(partitions=2)
    routes = a_route(RECORDER, path=tmp_path / "handled")
    async with with_workers(cluster.run("delivery.on_halt=exit", routes=routes)) as parent:
        found = await shared(parent, 1, 1)
        await cluster.produce([b"{"])
        assert await parent.exit_code() == 74
        assert not any(is_alive(each["pid"]) for each in found)
        halted, ended = parent.errors
        assert halted.startswith("session-consumer: worker ")
        assert "a partition halted" in ended


async def test_static_members_have_the_workers_numbers(cluster: Cluster) -> None:
    """Each worker has a distinct id, under which its restart moves no partition."""
    await cluster.create(partitions=2)
    async with with_workers(cluster.run(*SHORT, "kafka.group_instance_id=one")) as parent:
        found = await shared(parent, 1, 1)
        async with aiohttp.ClientSession() as client:
            for each in found:
                async with client.get(f"http://127.0.0.1:{each['port']}/status.json") as answer:
                    assert (await answer.json())["process"]["instance_id"] == f"one-{each['number']}"
        assert await parent.stop() == 0


async def test_each_worker_has_a_file(cluster: Cluster, tmp_path: Path) -> None:
    """The files of the workers together have each event once, and the path of the settings is not written."""
    await cluster.create(partitions=4)
    path = tmp_path / "out" / "voice.jsonl"
    routes = a_route("consumer.handlers.jsonl:JsonLines", path=path, positions=True)
    async with with_workers(cluster.run(routes=routes)) as parent:
        await shared(parent, 2, 2)
        for partition in range(4):
            await cluster.produce(map(a_session, range(100)), partition)
        await eventually(lambda: cluster_caught_up(cluster))
        assert await parent.stop() == 0
    assert {each.name for each in path.parent.iterdir()} == {"voice-1.jsonl", "voice-2.jsonl"}
    lines = [json.loads(line) for each in path.parent.iterdir() for line in each.read_text().splitlines()]
    written = Counter((each["_partition"], each["_offset"]) for each in lines)
    assert written == Counter((partition, offset) for partition in range(4) for offset in range(100))


@pytest.mark.parametrize("workers", [1, 3])
async def test_prometheus_finds_the_workers(cluster: Cluster, workers: int) -> None:
    """/targets names the port of each worker, which has the metrics of that worker alone."""
    await cluster.create(partitions=3)
    async with with_workers(cluster.run(), workers) as parent:
        await shared(parent, *[3 // workers] * workers)
        targets = json.loads((await parent.get("/targets"))[1])
        assert [each["labels"] for each in targets] == [{"worker": f"{number}"} for number in range(1, workers + 1)]
        async with aiohttp.ClientSession() as client:
            texts = await asyncio.gather(*(_text(client, each["targets"][0]) for each in targets))
        assert [f"session_consumer_assigned_partitions {3 / workers}" in text for text in texts] == [True] * workers
        assert await parent.stop() == 0


async def _text(client: aiohttp.ClientSession, target: str) -> str:
    async with client.get(f"http://{target}/metrics") as answer:
        return await answer.text()
