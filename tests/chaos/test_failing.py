"""Bad records and failing handlers on a real Kafka: exact outcomes, and nothing lost through kills."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.chaos import failing
from tests.chaos.failing import BAD, CALLER, MAX_RECORD_BYTES, PARTITIONS, Place, Sent
from tests.cluster import Cluster, a_route, eventually
from tests.process import RunningConsumer, command, started

EVENTS = 20_000
REDRIVING = ("delivery.max_record_bytes=1000000", "dead_letter.limit_ratio=1")
"""Larger records may pass then; and a redrive of nothing but undecodable letters is meant."""
QUICK_RETRIES = (
    "retry.attempts=3",
    "retry.initial_seconds=0.01",
    f"delivery.max_record_bytes={MAX_RECORD_BYTES}",
    "dead_letter.limit_ratio=0.9",
)


@pytest.fixture
def folder(cluster: Cluster) -> Path:
    """Folder in which the handler notes what it handled."""
    path = cluster.folder / "done"
    path.mkdir()
    return path


async def prepared(cluster: Cluster, events: int) -> dict[Place, Sent]:
    await cluster.create(PARTITIONS, dead_letters=PARTITIONS)
    return await failing.produce(cluster, events)


def a_daemon(cluster: Cluster, folder: Path, *overrides: str, name: str = "a") -> RunningConsumer:
    return cluster.run(*QUICK_RETRIES, *overrides, routes=a_route("failing:Failing", folder=folder), name=name)


async def dlq(cluster: Cluster, *arguments: str) -> tuple[int, str, str]:
    """Run a ``dlq`` command with the settings of the daemon ``a``."""
    daemon = a_daemon(cluster, cluster.folder / "done", *REDRIVING)
    return await command("dlq", *arguments, *daemon.arguments[2:])


async def committed(cluster: Cluster) -> bool:
    return await cluster.lag() == 0


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_every_record_has_its_outcome(cluster: Cluster, folder: Path, ordering: str) -> None:
    """Each record has its exact outcome, letters equal their records, order is kept; a redrive handles the letters."""
    sent = await prepared(cluster, EVENTS)
    kinds = Counter(each.kind for each in sent.values())
    reasons = Counter(BAD[each.kind] for each in sent.values() if each.kind in BAD)
    async with a_daemon(cluster, folder, f"delivery.ordering={ordering}") as daemon:
        await eventually(lambda: committed(cluster), seconds=240)
        await check_counts(cluster, daemon, kinds, reasons)
        assert await daemon.stop() == 0
    assert not [line for line in daemon.lines if CALLER in line]
    found = await failing.letters(cluster)
    assert failing.wrong(sent, found) == []
    assert Counter(each.context.reason for each in found) == reasons
    assert failing.lost(sent, folder, found) == []
    assert set(failing.times(folder).values()) == {1}
    assert ordering == "unordered" or failing.disorder(folder, by_key=ordering == "key") == []

    (folder / "mended").touch()
    code, out, err = await dlq(
        cluster, "redrive", "--reason", "exhausted", "--reason", "too_large", "--reason", "bad_header"
    )
    assert (code, "0 failed again" in out) == (0, True), err
    home = {"lasting", "too_large", "bad_header"}
    again = {each.place for each in failing.handled(folder) if each.redriven}
    assert again == {place for place, each in sent.items() if each.kind in home}
    assert set(failing.times(folder).values()) == {1}
    code, out, err = await dlq(cluster, "redrive")
    assert (code, f"0 handled, {reasons['undecodable']:,} failed again" in out) == (1, True), err
    assert set(failing.times(folder).values()) == {1}


async def check_counts(cluster: Cluster, daemon: RunningConsumer, kinds: Counter[str], reasons: Counter[str]) -> None:
    at_no_route = reasons.total() - reasons["exhausted"]
    for labels, count in (
        ({"route": "all", "outcome": "handled"}, kinds["asks"] + kinds["transient"]),
        ({"route": "all", "outcome": "dead_lettered"}, kinds["lasting"]),
        ({"route": "none", "outcome": "dead_lettered"}, at_no_route),
        ({"route": "none", "outcome": "skipped"}, kinds["tombstone"]),
    ):
        assert await daemon.metric("outcomes_total", **labels) == count, labels
    for reason, count in reasons.items():
        assert await daemon.metric("dead_letters_total", topic=cluster.topic, reason=reason) == count
    assert await daemon.metric("retries_total", route="all") == 2 * (kinds["transient"] + kinds["lasting"])


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_lose_no_record_and_no_letter(cluster: Cluster, folder: Path, seed: int) -> None:
    """Through kills of daemons and redrives each record is handled or a letter, and each letter is redriven."""
    random = Random(seed)
    sent = await prepared(cluster, EVENTS // 2)
    short_session = ("kafka.session_timeout_seconds=6", "kafka.heartbeat_interval_seconds=0.5")
    for number in range(5):
        async with a_daemon(cluster, folder, "delivery.ordering=key", *short_session, name=f"d{number}") as daemon:
            await daemon.said("partitions_assigned")
            await asyncio.sleep(random.uniform(0.05, 1.0))
            daemon.signal(signal.SIGKILL)
    async with a_daemon(cluster, folder, "delivery.ordering=key") as daemon:
        await daemon.said("partitions_assigned")  # those before it may have left nothing to do
        await eventually(lambda: committed(cluster), seconds=240)
        assert await daemon.stop() == 0
    found = await failing.letters(cluster)
    assert (failing.wrong(sent, found), failing.lost(sent, folder, found)) == ([], [])
    assert {(p.context.origin.partition, p.context.origin.offset) for p in found} == {
        place for place, each in sent.items() if each.kind in BAD
    }

    (folder / "mended").touch()
    arguments = ("redrive", "--reason", "exhausted", "--rate", "30", *short_session_options(short_session))
    for _ in range(3):
        await killed_after(cluster, random.uniform(3.0, 7.0), *arguments)
    code, out, err = await dlq(cluster, "redrive", "--reason", "exhausted")
    assert code == 0, (out, err)
    home = {each.place for each in failing.handled(folder) if each.redriven}
    assert home == {place for place, each in sent.items() if each.kind == "lasting"}
    code, out, err = await dlq(cluster, "list", "--reason", "exhausted", "--json")
    assert '"left":0' in out, (out, err)


async def test_a_dependency_that_is_down_dead_letters_nothing(cluster: Cluster, folder: Path) -> None:
    """While a dependency is down for 20 s the partitions of its handlers hold, then go on by themselves.

    One handler takes single events and raises a connection error. The other takes batches and raises its library's own
    error, of which the daemon knows nothing.
    """
    await cluster.create(PARTITIONS, dead_letters=1)
    (folder / "down").touch()
    async with cluster.producer() as producer:
        for number in range(400):
            value = failing.value_of("asks", number)
            await producer.send(cluster.topic, value, key=b"k%d" % number, partition=number % PARTITIONS)
    routes = a_route("failing:Failing", folder=folder) + a_route("failing:Upserts", "upserts", folder=folder)
    async with cluster.run(*QUICK_RETRIES, "retry.maximum_seconds=1", routes=routes) as daemon:
        await daemon.said("partitions_assigned")
        await asyncio.sleep(20)
        assert await daemon.metric("holding", partition="0") == 1
        assert (await daemon.get("/readyz"))[0] == 200
        (folder / "down").unlink()
        await eventually(lambda: committed(cluster), seconds=20)
        assert await daemon.metric("holding", partition="0") == 0
        for route in ("all", "upserts"):
            assert await daemon.metric("outcomes_total", route=route, outcome="handled") == 400
            assert await daemon.metric("outcomes_total", route=route, outcome="dead_lettered") == 0
    assert await failing.letters(cluster) == []


def short_session_options(overrides: tuple[str, ...]) -> list[str]:
    return [word for each in overrides for word in ("--set", each)]


async def killed_after(cluster: Cluster, seconds: float, *arguments: str) -> None:
    """Run a ``dlq`` command and kill it after some seconds, unless it ended before."""
    daemon = a_daemon(cluster, cluster.folder / "done", *REDRIVING)
    async with started("dlq", *arguments, *daemon.arguments[2:]) as process:
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            process.kill()
