"""Where a partition starts: each by itself, committed before its first record, and counted when reset."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.admin import NewPartitions, RecordsToDelete

import consumer.kafka.client_source
from consumer.kafka.client import make_consumer
from consumer.process.parts import make_daemon
from consumer.record import Record
from consumer.settings.sections import Delivery, Http, Settings
from schemas.session import Session
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.recorded import RECORDER, cluster_caught_up, noted
from tests.unit.delivery.engines import a_route as a_route_of

QUICKLY_MISSED = ("kafka.session_timeout_seconds=6", "kafka.heartbeat_interval_seconds=0.5")


async def test_offset_reset_latest(cluster: Cluster, tmp_path: Path) -> None:
    """With ``latest`` a new group starts at the end, and commits that before its first record."""
    await cluster.create()
    out = tmp_path / "handled"
    await cluster.produce(map(a_session, range(7)))
    async with cluster.run("kafka.offset_reset=latest", routes=a_route(RECORDER, path=out)) as daemon:
        await daemon.said("offset_resolved")
        assert await cluster.committed() == {0: 7}
        await cluster.produce([a_session(7)])
        await eventually(lambda: noted(out))
        assert await daemon.metric("offset_resets_total", reason="no_offset") == 1
        assert await daemon.stop() == 0
    assert noted(out) == [(0, 7)]


async def test_offset_reset_none_halts(cluster: Cluster, tmp_path: Path) -> None:
    """With ``none`` a partition without a committed offset halts with its remedy."""
    await cluster.create()
    await cluster.produce(map(a_session, range(7)))
    routes = a_route(RECORDER, path=tmp_path / "handled")
    async with cluster.run("kafka.offset_reset=none", "delivery.on_halt=exit", routes=routes) as daemon:
        assert await daemon.exit_code() == 74
        assert "the group has no offset for this partition" in daemon.errors[0]


@pytest.mark.parametrize(("rule", "expected"), [("halt", []), ("earliest", [(0, 30), (0, 31)]), ("latest", [])])
async def test_an_offset_that_is_gone(
    cluster: Cluster, tmp_path: Path, rule: str, expected: list[tuple[int, int]]
) -> None:
    """When the next offset is deleted the partition halts, or goes on as ``out_of_range`` says."""
    await cluster.create()
    out = tmp_path / "handled"
    await cluster.produce(map(a_session, range(10)))
    async with cluster.run(routes=a_route(RECORDER, path=out)) as first:
        await eventually(lambda: cluster_caught_up(cluster))
        assert await first.stop() == 0
    out.unlink()
    await cluster.produce(map(a_session, range(10, 32)))
    async with cluster.admin() as admin:
        await admin.delete_records(
            {aiokafka.TopicPartition(cluster.topic, 0): RecordsToDelete(before_offset=30)}, timeout_ms=10_000
        )
    async with cluster.run(f"kafka.out_of_range={rule}", routes=a_route(RECORDER, path=out)) as daemon:
        if rule == "halt":
            line = json.loads(await daemon.said("partition_halted"))
            assert (line["offset"], line["reason"]) == (10, "out_of_range")
        else:
            await daemon.said("offset_resolved")
            await eventually(lambda: cluster_caught_up(cluster))
            assert await daemon.metric("offset_resets_total", reason="out_of_range") == 1
        assert await daemon.stop() == 0
    assert noted(out) == expected


async def test_a_partition_whose_offsets_expired(cluster: Cluster, tmp_path: Path) -> None:
    """A partition without a committed offset starts by ``offset_reset``; the others go on."""
    await cluster.create(2)
    out = tmp_path / "handled"
    for partition in (0, 1):
        await cluster.produce(map(a_session, range(5)), partition)
    await commit(cluster, {0: 3})  # as the group would be after those of partition 1 expired
    async with cluster.run(routes=a_route(RECORDER, path=out)) as daemon:
        await eventually(lambda: cluster_caught_up(cluster))
        assert await daemon.metric("offset_resets_total", reason="no_offset") == 1
        assert await daemon.stop() == 0
    assert sorted(noted(out)) == [(0, 3), (0, 4), *((1, offset) for offset in range(5))]


async def test_a_crash_before_the_first_commit_skips_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """With ``latest`` a second start skips nothing that came after the first: its position was committed."""
    await cluster.create()
    out = tmp_path / "handled"
    await cluster.produce(map(a_session, range(4)))
    settings = ("kafka.offset_reset=latest", "delivery.commit_interval_seconds=60")
    async with cluster.run(*settings, *QUICKLY_MISSED, routes=a_route(RECORDER, path=out)) as first:
        await first.said("offset_resolved")
        await cluster.produce(map(a_session, range(4, 9)))
        await eventually(lambda: len(noted(out)) == 5)
        first.signal(signal.SIGKILL)
        await first.exit_code()
    assert await cluster.committed() == {0: 4}
    async with cluster.run(*settings, routes=a_route(RECORDER, path=out)) as second:
        await eventually(lambda: len(noted(out)) == 10)
        assert await second.stop() == 0
    assert await cluster.committed() == {0: 9}


async def test_an_added_partition(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that is added while the daemon runs is found, and starts by ``offset_reset``."""

    def looking_often(*arguments: Any) -> aiokafka.AIOKafkaConsumer:
        made = make_consumer(*arguments)
        made._client._metadata_max_age_ms = 300
        return made

    monkeypatch.setattr(consumer.kafka.client_source, "make_consumer", looking_often)
    await cluster.create()
    got: list[tuple[int, int]] = []

    def handle(_event: Session, record: Record) -> None:
        got.append((record.partition, record.offset))

    settings = Settings(kafka=cluster.kafka, delivery=Delivery(commit_interval_seconds=0.1), http=Http(port=0))
    daemon = make_daemon(settings, [a_route_of(handle)])
    running = asyncio.create_task(daemon.run())
    try:
        await eventually(lambda: daemon.state == "running")
        await cluster.produce(map(a_session, range(2)))
        async with cluster.admin() as admin:
            await admin.create_partitions({cluster.topic: NewPartitions(total_count=2)})
        await cluster.produce(map(a_session, range(3)), 1)
        await eventually(lambda: len(got) == 5, seconds=40)
        await eventually(lambda: cluster_caught_up(cluster))
        assert daemon.counters.offset_resets[cluster.topic, "no_offset"] == 2
    finally:
        daemon.stop()
        await running
    assert sorted(got) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


async def commit(cluster: Cluster, offsets: dict[int, int]) -> None:
    """Commit for a group without members."""
    client = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap_servers, group_id=cluster.kafka.group_id, enable_auto_commit=False
    )
    await client.start()
    try:
        keys = {aiokafka.TopicPartition(cluster.topic, number): offset for number, offset in offsets.items()}
        client.assign(list(keys))
        await client.commit(keys)
    finally:
        await client.stop()
