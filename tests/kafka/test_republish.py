"""Republishing on a real Kafka: what is kept, through kills, missing topics, refusals and a broker that hangs."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiokafka
import pytest

from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.producer import create_topic
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.dlq import letters
from tests.kafka.test_check import checked, made
from tests.process import RunningConsumer, command

HANDLER = "consumer.handlers.republish:Republish"
OVERRIDES = ("kafka.session_timeout_seconds=6", "kafka.heartbeat_interval_seconds=1", "retry.maximum_seconds=0.5")
EVENTS = 20_000


def a_copy(**options: Any) -> str:
    return a_route(HANDLER, "copy", **({"topic": "{topic}.clean"} | options)) + "max_seconds = 0.1\n"


async def read(cluster: Cluster, topic: str) -> list[aiokafka.ConsumerRecord[Any, Any]]:
    """Return all records of a topic, by partition and offset."""
    async with cluster.producer() as producer:
        numbers = sorted(await producer.partitions_for(topic))
    reader: Any = aiokafka.AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest")
    await reader.start()
    try:
        keys = [aiokafka.TopicPartition(topic, each) for each in numbers]
        reader.assign(keys)
        ends = await reader.end_offsets(keys)
        found: list[Any] = []
        while any([await reader.position(key) < end for key, end in ends.items()]):
            for batch in (await reader.getmany(timeout_ms=200)).values():
                found += batch
    finally:
        await reader.stop()
    return sorted(found, key=lambda each: (each.partition, each.offset))


async def until_done(cluster: Cluster, seconds: float = 60.0) -> None:
    async def caught_up() -> bool:
        return await cluster.lag() == 0

    await eventually(caught_up, seconds)


async def with_target(cluster: Cluster, partitions: int = 1, configs: Mapping[str, str] = {}) -> str:
    await cluster.create(partitions, dead_letters=1)
    target = f"{cluster.topic}.clean"
    if configs:
        await made(cluster, target, **configs)
    else:
        await create_topic(cluster.kafka, target, partitions)
    return target


async def test_a_copy_is_the_record(cluster: Cluster) -> None:
    """Key, headers, timestamp and value are kept; so are the partition of a key, and the order of keyless records."""
    target = await with_target(cluster, 3)
    headers = [("h", b"1"), ("h", b"\xff"), ("none", None), ("empty", b"")]
    async with cluster.producer() as producer:
        for number in range(60):
            key = [None, b"", b"\x00\xff", b"key-%d" % number][number % 4]
            await producer.send_and_wait(
                cluster.topic,
                a_session(number) + b" ",
                key,
                partition=None,
                timestamp_ms=1000 + number,
                headers=headers,
            )
        await producer.send_and_wait(cluster.topic, None, b"gone", timestamp_ms=7)
    routes = a_route(HANDLER, "copy", topic="{topic}.clean", original=True, batch=False) + "tombstones = true\n"
    async with cluster.run(*OVERRIDES, routes=routes) as daemon:
        await until_done(cluster)
        assert await daemon.stop() == 0
    before, after = [await read(cluster, each) for each in (cluster.topic, target)]

    def content(each: aiokafka.ConsumerRecord[Any, Any]) -> tuple[Any, ...]:
        return each.key, each.value, each.timestamp, each.headers

    assert sorted(map(content, after), key=repr) == sorted(map(content, before), key=repr)
    assert {each.key: each.partition for each in after if each.key} == {
        each.key: each.partition for each in before if each.key
    }
    for partition in range(3):
        keyless = [each.value for each in before if each.partition == partition and each.key is None]
        assert [each.value for each in after if each.key is None and each.value in keyless] == keyless


async def test_nothing_is_lost_by_a_kill(cluster: Cluster) -> None:
    """Two kills within a stream: every record is in the target, and none is a dead letter."""
    target = await with_target(cluster, 2)
    for partition in range(2):
        await cluster.produce(map(a_session, range(partition, EVENTS, 2)), partition, linger_ms=20)
    for number, share in enumerate((0.2, 0.5)):
        async with cluster.run(*OVERRIDES, routes=a_copy(), name=f"killed-{number}") as daemon:

            async def reached(share: float = share) -> bool:
                return sum(offset or 0 for offset in (await cluster.committed()).values()) >= share * EVENTS

            await eventually(reached, 60.0)
            daemon.signal(signal.SIGKILL)
            await daemon.exit_code()
    async with cluster.run(*OVERRIDES, routes=a_copy(), name="last") as daemon:
        await until_done(cluster)
        assert await daemon.stop() == 0
    numbers = Counter(int(json.loads(each.value or b"")["session_id"]) for each in await read(cluster, target))
    assert set(numbers) == set(range(EVENTS))
    assert await letters(cluster) == []


async def test_a_missing_target_holds(cluster: Cluster) -> None:
    """Records wait for their topic, which is named and not created, and nothing becomes a dead letter."""
    await cluster.create(dead_letters=1)
    await cluster.produce(map(a_session, range(50)))
    async with cluster.run(*OVERRIDES, "log.level=debug", routes=a_copy()) as daemon:
        await daemon.said(f"no topic '{cluster.topic}.clean'; create it")

        async def holding() -> bool:
            return await daemon.metric("holding", partition="0") == 1

        await eventually(holding)
        assert await cluster.committed() == {0: None} or await cluster.lag() == 50
        await create_topic(cluster.kafka, f"{cluster.topic}.clean", 1)
        await until_done(cluster)
        assert await daemon.stop() == 0
    assert len(await read(cluster, f"{cluster.topic}.clean")) == 50
    assert await letters(cluster) == []


@pytest.mark.parametrize("guilt", ["too_large", "record_refused"])
async def test_a_refused_record_costs_only_itself(cluster: Cluster, guilt: str) -> None:
    """A record over the topic's limit, and one without a key on a compacted topic, are dead letters alone."""
    large = guilt == "too_large"
    configs = {"max_message_bytes": "2000"} if large else {"cleanup_policy": "compact"}
    target = await with_target(cluster, configs=configs)
    guilty = {7, 30, 31}
    async with cluster.producer() as producer:
        for number in range(40):
            value = a_session(number)
            if number in guilty and large:
                filler = os.urandom(3000).hex().encode()
                value = value.replace(b"voice_sip_v1", filler)
            key = None if number in guilty and not large else b"key-%d" % number
            await producer.send_and_wait(cluster.topic, value, key)
    async with cluster.run(*OVERRIDES, routes=a_copy()) as daemon:
        await until_done(cluster)
        assert await daemon.stop() == 0
    numbers = [int(json.loads(each.value or b"")["session_id"]) for each in await read(cluster, target)]
    assert numbers == [each for each in range(40) if each not in guilty]
    found = [{name: (value or b"").decode() for name, value in each.headers} for each in await letters(cluster)]
    assert {(int(each["__connect.errors.offset"]), each["session-consumer.code"]) for each in found} == {
        (each, guilt) for each in guilty
    }


async def test_a_broker_that_hangs_holds(tmp_path: Path) -> None:
    """While the broker is stopped nothing is lost, dead-lettered or committed; then all is written."""
    async with LocalKafka() as kafka:
        cluster = Cluster(kafka.bootstrap_servers, "hangs", tmp_path)
        target = await with_target(cluster, 2)
        for partition in range(2):
            await cluster.produce(map(a_session, range(partition, EVENTS, 2)), partition, linger_ms=20)
        async with cluster.run(*OVERRIDES, routes=a_copy() + "max_records = 50\n") as daemon:

            async def begun() -> bool:
                return sum(offset or 0 for offset in (await cluster.committed()).values()) > 1000

            await eventually(begun)
            os.kill(kafka.process_ids[0], signal.SIGSTOP)
            try:

                async def silent() -> bool:
                    _, text = await daemon.get("/status.json")
                    return bool(json.loads(text)["brokers"]["silent"])

                await eventually(silent, 60.0)
                assert await daemon.metric("outcomes_total", route="copy", outcome="handled") < EVENTS
            finally:
                os.kill(kafka.process_ids[0], signal.SIGCONT)
            await until_done(cluster, 120.0)
            assert await daemon.stop() == 0
        numbers = Counter(int(json.loads(each.value or b"")["session_id"]) for each in await read(cluster, target))
        assert set(numbers) == set(range(EVENTS))
        assert await letters(cluster) == []


async def test_check_asks_for_the_target(cluster: Cluster) -> None:
    """``check`` names a target that is missing or consumed, and counts the partitions of one that is well."""
    await cluster.create(dead_letters=1)
    routes = f'routes=[{{name="copy", handler="{HANDLER}", options={{topic="%s"}}}}]'
    code, out = await checked(cluster, routes % "{topic}.clean")
    assert (code, f"options.topic: no topic '{cluster.topic}.clean'; create it" in out) == (1, True), out
    await create_topic(cluster.kafka, f"{cluster.topic}.clean", 3)
    code, out = await checked(cluster, routes % "{topic}.clean")
    assert (code, f"{cluster.topic}.clean (3 partitions)" in out) == (0, True), out
    code, out = await checked(cluster, routes % "{topic}")
    assert (code, "is consumed by this daemon" in out) == (2, True), out


async def test_a_pattern_that_takes_its_target(cluster: Cluster) -> None:
    """A target that the pattern would match is refused by ``check``, and gets nothing from a daemon."""
    await cluster.create(dead_letters=1)
    await cluster.produce([a_session(0)])
    settings = cluster.folder / "settings.toml"
    settings.write_text(
        f'[kafka]\nbootstrap_servers = ["{cluster.bootstrap_servers}"]\ntopic_pattern = "{cluster.topic}.*"\n'
        f'group_id = "{cluster.kafka.group_id}"\n[http]\nport = 0\n{a_copy()}'
    )
    code, out, _ = await command("check", "-c", str(settings), COLUMNS="1000")
    assert (code, "is consumed by this daemon" in out) == (2, True), out
    await create_topic(cluster.kafka, f"{cluster.topic}.clean", 1)
    async with RunningConsumer(settings, [*OVERRIDES, "log.level=debug", "log.format=json"]) as daemon:
        await daemon.said("is consumed by this daemon")
        assert await daemon.stop() == 0
    assert await read(cluster, f"{cluster.topic}.clean") == []
