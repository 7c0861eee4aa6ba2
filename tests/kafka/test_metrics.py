"""Metrics of a running daemon: complete from the start, and true."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from pathlib import Path

import aiohttp

from consumer.metrics.definitions import METRICS, PREFIX
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.recorded import RECORDER, cluster_caught_up, noted
from tests.kafka.test_offsets import commit
from tests.process import RunningConsumer

AGO = 100.0


async def test_every_metric_is_there_from_the_start(cluster: Cluster, tmp_path: Path) -> None:
    """Before the first record each metric has its type, and each known label set its 0."""
    await cluster.create()
    async with cluster.run(routes=a_route(RECORDER, path=tmp_path / "handled")) as daemon:
        await daemon.said("partitions_assigned")
        _, text = await daemon.get("/metrics")
        kinds = dict(re.findall(rf"^# TYPE {PREFIX}(\S+) (\w+)$", text, re.MULTILINE))
        assert kinds == {metric.name: metric.kind for metric in METRICS}
        for name, labels in {
            "outcomes_total": {"route": "all", "outcome": "handled"},
            "handler_errors_total": {"route": "all", "kind": "timeout"},
            "dead_letters_total": {"topic": cluster.topic, "reason": "exhausted"},
            "handler_seconds_count": {"route": "all"},
            "handler_seconds_bucket": {"route": "all", "le": "+Inf"},
            "batch_records_sum": {"route": "all"},
            "record_age_seconds_count": {"topic": cluster.topic},
            "client_rebuilds_total": {"reason": "deaf"},
            "loop_seconds_total": {"state": "drain"},
        }.items():
            assert await daemon.metric(name, **labels) == 0, name
        assert await daemon.metric("inline_seconds_total", route="all") < 0.1
        assert await daemon.stop() == 0


async def test_both_formats_and_compression(cluster: Cluster, tmp_path: Path) -> None:
    """A scraper gets OpenMetrics or the classic text, as it asks, and either compressed."""
    await cluster.create()
    async with cluster.run(routes=a_route(RECORDER, path=tmp_path / "handled")) as daemon:
        url = await daemon.url() + "/metrics"
        async with aiohttp.ClientSession(auto_decompress=False) as client:
            async with client.get(
                url, headers={"Accept": "application/openmetrics-text", "Accept-Encoding": "identity"}
            ) as answer:
                assert answer.content_type == "application/openmetrics-text"
                whole = await answer.read()
                assert whole.endswith(b"# EOF\n")
            async with client.get(url, headers={"Accept-Encoding": "gzip"}) as answer:
                assert (answer.content_type, answer.headers["Content-Encoding"]) == ("text/plain", "gzip")
                assert len(await answer.read()) < len(whole) / 3
        assert await daemon.stop() == 0


async def test_lag_of_partitions_that_were_never_fetched_from(cluster: Cluster, tmp_path: Path) -> None:
    """The committed offset and the lag are known before any record came."""
    await cluster.create(3)
    await cluster.produce(map(a_session, range(5)), 0)
    await cluster.produce(map(a_session, range(4)), 1)
    await commit(cluster, {0: 5, 1: 4})
    async with cluster.run(routes=a_route(RECORDER, path=tmp_path / "handled")) as daemon:
        await eventually(lambda: is_at(daemon, "lag_records", 0, partition="2"))
        for partition, committed in (("0", 5), ("1", 4), ("2", 0)):
            await eventually(partial(is_at, daemon, "committed_offset", committed, partition=partition))
            await eventually(partial(is_at, daemon, "lag_records", 0, partition=partition))
            assert await daemon.metric("position_lag_records", partition=partition) == 0
            assert await daemon.metric("lag_seconds", partition=partition) == 0
            assert 0 <= await daemon.metric("end_offset_age_seconds", partition=partition) < 10
        assert await daemon.stop() == 0


async def test_lag_in_seconds_is_the_age_of_the_oldest(cluster: Cluster, tmp_path: Path) -> None:
    """While a record is handled the lag is its age; when all is committed it is 0."""
    await cluster.create()
    out = tmp_path / "handled"
    async with cluster.producer() as producer:
        for number in range(3):
            then = int((time.time() - AGO + number) * 1000)
            await producer.send_and_wait(cluster.topic, a_session(number), partition=0, timestamp_ms=then)
    async with cluster.run(routes=a_route(RECORDER, path=out, delay=2.0)) as daemon:
        await eventually(lambda: noted(out))

        async def as_old_as_the_first() -> bool:
            return AGO - 1 < await daemon.metric("lag_seconds", partition="0") < AGO + 30

        assert await eventually(as_old_as_the_first)
        await eventually(lambda: is_at(daemon, "lag_seconds", 0, partition="0"))
        assert len(noted(out)) == 3
        assert await daemon.metric("record_age_seconds_count", topic=cluster.topic) == 3
        assert await daemon.metric("record_age_seconds_bucket", topic=cluster.topic, le="60.0") == 0
        assert await daemon.metric("handler_seconds_count", route="all") == 3
        assert await daemon.metric("handler_seconds_bucket", route="all", le="1.0") == 0
        assert await daemon.metric("commit_seconds_count") >= 1
        assert await daemon.stop() == 0


async def test_an_open_transaction_is_no_lag(cluster: Cluster, tmp_path: Path) -> None:
    """Lag ends at what a read_committed reader can reach; after the transaction it falls to 0."""
    await cluster.create()
    out = tmp_path / "handled"
    async with (
        cluster.producer(transactional_id=f"tx-{cluster.topic}") as producer,
        cluster.run(routes=a_route(RECORDER, path=out)) as daemon,
    ):
        await producer.begin_transaction()
        for number in range(4):
            await producer.send_and_wait(cluster.topic, a_session(number), partition=0)
        await daemon.said("partitions_assigned")
        began = time.monotonic()
        while time.monotonic() - began < 5:  # longer than from one look at the end to the next
            assert not await daemon.metric("lag_records", partition="0") > 0
            await asyncio.sleep(0.2)
        await producer.commit_transaction()
        await eventually(lambda: len(noted(out)) == 4)
        await eventually(lambda: is_at(daemon, "committed_offset", 5, partition="0"))
        await eventually(lambda: is_at(daemon, "lag_records", 0, partition="0"))
        assert await daemon.stop() == 0


async def test_series_vanish_with_their_partition(cluster: Cluster, tmp_path: Path) -> None:
    """A partition that moves to another member vanishes here, and its lag is right at once there."""
    await cluster.create(2)
    for partition in (0, 1):
        await cluster.produce(map(a_session, range(5)), partition)
    routes = a_route(RECORDER, path=tmp_path / "handled")
    async with cluster.run(routes=routes, name="a") as first:
        await eventually(lambda: cluster_caught_up(cluster))
        async with cluster.run(routes=routes, name="b") as second:
            await eventually(lambda: is_at(second, "assigned_partitions", 1))
            await eventually(lambda: is_at(first, "assigned_partitions", 1))
            _, text = await first.get("/metrics")
            partitions = set(re.findall(r'partition="(\d)"', text))
            assert len(partitions) == 1
            (other,) = {"0", "1"} - partitions
            await eventually(lambda: is_at(second, "committed_offset", 5, partition=other))
            await eventually(lambda: is_at(second, "lag_records", 0, partition=other))
            assert await second.stop() == 0
        assert await first.stop() == 0


async def test_the_seconds_of_the_loop_add_up(cluster: Cluster, tmp_path: Path) -> None:
    """The seconds of all loop states add up to the elapsed time, also under backpressure."""
    await cluster.create()
    await cluster.produce(map(a_session, range(400)))
    routes = a_route(RECORDER, path=tmp_path / "handled", delay=0.05)
    settings = ("delivery.ordering=unordered", "delivery.concurrency=4", "delivery.max_in_flight_records=4")
    async with cluster.run(*settings, routes=routes) as daemon:
        await daemon.said("partitions_assigned")
        before, began = await loop_seconds(daemon), time.time()
        await asyncio.sleep(3.0)
        after, lasted = await loop_seconds(daemon), time.time() - began
        spent = {state: after[state] - before[state] for state in after}
        assert abs(sum(spent.values()) - lasted) < 0.05 * lasted + 0.1
        assert spent["backpressure"] > spent["poll"]
        await eventually(lambda: cluster_caught_up(cluster))
        idle = (await loop_seconds(daemon))["poll"]
        await asyncio.sleep(1.0)
        assert (await loop_seconds(daemon))["poll"] > idle + 0.5
        assert await daemon.stop() == 0


async def loop_seconds(daemon: RunningConsumer) -> dict[str, float]:
    _, text = await daemon.get("/metrics")
    return {state: float(value) for state, value in re.findall(r'loop_seconds_total\{state="(\w+)"\} (\S+)', text)}


async def is_at(daemon: RunningConsumer, name: str, value: float, **labels: str) -> bool:
    return await daemon.metric(name, **labels) == value
