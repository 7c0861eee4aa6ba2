"""``check`` against set-ups that are each broken in one way: it names the cause, and exits as ``run`` would."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiokafka
import pytest
from aiokafka import OffsetAndMetadata
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from tests.cluster import Cluster, a_session, eventually
from tests.process import command

HANDLERS = Path(__file__).parent.parent / "handlers"
HOUR_MS = 3_600_000


async def checked(cluster: Cluster, *sets: str, **environment: str) -> tuple[int, str]:
    """Run ``check`` on the test's cluster; return its exit code and its table, unfolded."""
    first = [
        f"kafka.bootstrap_servers={cluster.bootstrap_servers}",
        f"kafka.topics={cluster.topic}",
        f"kafka.group_id={cluster.kafka.group_id}",
        "http.port=0",
    ]
    given = [part for each in [*first, *sets] for part in ("--set", each)]
    code, out, err = await command("check", *given, **{"COLUMNS": "1000", **environment})  # type: ignore[arg-type]
    assert "Traceback" not in err
    return code, out


async def made(cluster: Cluster, topic: str, **configs: str) -> None:
    """Create a topic with settings of its own."""
    async with cluster.admin() as admin:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=named)])

        async def shown() -> bool:
            return topic in await admin.list_topics()

        await eventually(shown)


async def committed(cluster: Cluster, offset: int) -> None:
    """Commit an offset of partition 0 for the test's group."""
    client = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap_servers, group_id=cluster.kafka.group_id, enable_auto_commit=False
    )
    await client.start()
    try:
        partition = aiokafka.TopicPartition(cluster.topic, 0)
        client.assign([partition])
        await client.commit({partition: OffsetAndMetadata(offset, "")})
    finally:
        await client.stop()


async def test_all_is_well(cluster: Cluster) -> None:
    """A good set-up passes, and nothing has changed by it: no member, no record, no topic."""
    await cluster.create(2, dead_letters=1)
    await cluster.produce(map(a_session, range(3)))
    code, out = await checked(cluster)
    assert code == 0, out
    assert f"{cluster.topic} (2 partitions)" in out
    assert f"{cluster.topic}.dlq (1 partition)" in out
    assert "no committed offsets; starts at earliest" in out
    async with cluster.admin() as admin:
        described: Any
        (described,) = await admin.describe_consumer_groups([cluster.kafka.group_id])
        ((_, _, state, _, _, members, *_),) = described.groups
        assert (state, members) in [("Empty", []), ("Dead", [])]
    assert await cluster.committed() == {0: None, 1: None}
    await committed(cluster, 3)
    code, out = await checked(cluster)
    assert (code, "offsets committed for 1 partition" in out) == (0, True), out


async def test_a_member_is_not_disturbed(cluster: Cluster) -> None:
    """To ask whether this client may join moves no partition of the members."""
    await cluster.create(1, dead_letters=1)
    async with cluster.run(routes='[[routes]]\nname = "log"\nhandler = "consumer.handlers.log:Log"\n') as consumer:
        await consumer.said("partitions_assigned")
        await cluster.produce([a_session(0)])

        async def consumed() -> bool:
            return await consumer.metric("records_consumed_total", topic=cluster.topic) == 1

        await eventually(consumed)
        before = await consumer.metric("rebalances_total", kind="assigned")
        code, out = await checked(cluster)
        assert code == 0, out
        assert await consumer.metric("rebalances_total", kind="assigned") == before, "\n".join(consumer.lines)
        assert await consumer.stop() == 0


async def no_topic(_cluster: Cluster) -> None:
    """Create nothing."""


async def no_dead_letters(cluster: Cluster) -> None:
    await cluster.create()


async def compacted(cluster: Cluster) -> None:
    await cluster.create()
    await made(cluster, f"{cluster.topic}.dlq", cleanup_policy="compact")


async def small_letters(cluster: Cluster) -> None:
    await cluster.create()
    await made(cluster, f"{cluster.topic}.dlq", max_message_bytes="1000")


async def short_letters(cluster: Cluster) -> None:
    await made(cluster, cluster.topic, retention_ms=str(48 * HOUR_MS))
    await made(cluster, f"{cluster.topic}.dlq", retention_ms=str(HOUR_MS))


async def offset_gone(cluster: Cluster) -> None:
    await cluster.create(dead_letters=1)
    await cluster.produce(map(a_session, range(5)))
    await committed(cluster, 1)
    async with cluster.admin() as admin:
        await admin.delete_records({aiokafka.TopicPartition(cluster.topic, 0): RecordsToDelete(before_offset=4)})


async def offset_past_the_end(cluster: Cluster) -> None:
    await cluster.create(dead_letters=1)
    await committed(cluster, 500)


async def offset_soon_gone(cluster: Cluster) -> None:
    await made(cluster, cluster.topic, retention_ms=str(10 * HOUR_MS))
    await made(cluster, f"{cluster.topic}.dlq")
    async with cluster.producer() as producer:
        written = int(time.time() * 1000) - 9 * HOUR_MS
        for number in range(2):
            await producer.send_and_wait(cluster.topic, a_session(number), partition=0, timestamp_ms=written)
    await committed(cluster, 1)


async def clocks_differ(cluster: Cluster) -> None:
    await cluster.create(dead_letters=1)
    async with cluster.producer() as producer:
        ahead = int(time.time() * 1000) + HOUR_MS // 2 + 60_000
        await producer.send_and_wait(cluster.topic, a_session(0), partition=0, timestamp_ms=ahead)


async def well(cluster: Cluster) -> None:
    await cluster.create(dead_letters=1)


class Broken(NamedTuple):
    """A set-up that is broken in one way."""

    prepare: Callable[[Cluster], Awaitable[None]]
    code: int
    says: str
    sets: tuple[str, ...] = ()


ROUTE = 'routes=[{{name="a", handler="{}", options={{}}}}]'
BROKEN = {
    "topic": Broken(no_topic, 1, "kafka.topics: no topic '{topic}'; create it, or correct the name"),
    "dead-letter topic": Broken(
        no_dead_letters, 1, "dead_letter.topic: no topic '{topic}.dlq'; create it, or the first"
    ),
    "letters compacted": Broken(compacted, 1, "dead_letter.topic: '{topic}.dlq' is compacted: it refuses letters"),
    "letters too small": Broken(
        small_letters, 1, "'{topic}.dlq' takes records of 1000 bytes, but '{topic}' of 1048588"
    ),
    "letters too short": Broken(
        short_letters, 1, "'{topic}.dlq' deletes records after 1:00:00, but '{topic}' after 2 days"
    ),
    "offset gone": Broken(
        offset_gone, 1, "kafka.group_id: the group's offset 1 of {topic}-0 is gone: its log begins at 4"
    ),
    "offset past the end": Broken(
        offset_past_the_end, 1, "the group's offset 500 of {topic}-0 is gone: its log begins at 0 and ends at 0"
    ),
    "no offset": Broken(well, 1, 'kafka.offset_reset is "none" and group', ("kafka.offset_reset=none",)),
    "offset soon gone": Broken(offset_soon_gone, 1, "the next record of {topic}-0, at offset 1, will be deleted in "),
    "clocks": Broken(clocks_differ, 1, "the newest record is 0:3"),
    "session timeout": Broken(
        well,
        1,
        "kafka.session_timeout_seconds = 3000 is outside the broker's range (group.min.session.timeout.ms to",
        ("kafka.session_timeout_seconds=3000",),
    ),
    "refused": Broken(well, 69, "127.0.0.1:1 refused the connection", ("kafka.bootstrap_servers=127.0.0.1:1",)),
    "no such host": Broken(
        well, 69, "no-such-host.invalid:9092 cannot be resolved", ("kafka.bootstrap_servers=no-such-host.invalid:9092",)
    ),
    "TLS against plain": Broken(
        well, 1, "does not speak TLS; set kafka.security.protocol to", ("kafka.security.protocol=SSL",)
    ),
    "SASL against plain": Broken(
        well,
        1,
        "expects no SASL; set kafka.security.protocol to PLAINTEXT",
        ("kafka.security.protocol=SASL_PLAINTEXT",),
    ),
    "URL": Broken(
        well, 2, "kafka.bootstrap_servers: number 1 is a URL", ("kafka.bootstrap_servers=kafka://u:pw@h:9092",)
    ),
    "port": Broken(well, 2, "number 1 has a port that is not from 1 to 65535", ("kafka.bootstrap_servers=h:99999",)),
    "heartbeat": Broken(
        well,
        2,
        "kafka.heartbeat_interval_seconds = 40.0 must be at most a third",
        ("kafka.heartbeat_interval_seconds=40",),
    ),
    "drain": Broken(
        well, 2, "delivery.drain_seconds = 59.0 must be at least 7 s below", ("delivery.drain_seconds=59",)
    ),
    "request timeout": Broken(
        well,
        2,
        "kafka.request_timeout_seconds = 10.0 must be at least 5 s above",
        ("kafka.request_timeout_seconds=10",),
    ),
    "letters into the topic": Broken(
        well, 2, "is one of kafka.topics, so dead letters", ("dead_letter.topic={topic}",)
    ),
    "handler": Broken(well, 2, "there is no module 'nowhere'", (ROUTE.format("nowhere:f"),)),
    "attribute": Broken(well, 2, "did you mean 'Log'?", (ROUTE.format("consumer.handlers.log:Lug"),)),
    "option": Broken(well, 2, "routes[0] (a)", (ROUTE.format("consumer.handlers.jsonl:JsonLines"),)),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_the_cause_is_named(cluster: Cluster, name: str) -> None:
    """What is broken is named with the way out, and the exit code is the one with which ``run`` would end."""
    broken = BROKEN[name]
    await broken.prepare(cluster)
    secrets = {
        "SESSION_CONSUMER_KAFKA__SECURITY__USERNAME": "u",
        "SESSION_CONSUMER_KAFKA__SECURITY__PASSWORD": "pass-word",
    }
    environment = secrets if "SASL" in name else {}
    code, out = await checked(cluster, *broken.sets, **environment)
    assert broken.says.format(topic=cluster.topic) in out
    assert code == broken.code, out
    assert "pass-word" not in out
    assert "u:pw" not in out


async def test_a_hung_server_is_named(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        server = f"127.0.0.1:{hung.getsockname()[1]}"
        code, out = await checked(cluster, f"kafka.bootstrap_servers={server}", "kafka.start_timeout_seconds=1")
    assert (code, f"{server} accepted the connection and did not answer within 0.4 s" in out) == (69, True), out


async def test_a_port_in_use_is_named(cluster: Cluster) -> None:
    await cluster.create(dead_letters=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out = await checked(cluster, f"http.port={port}")
    assert (code, f"cannot listen on 127.0.0.1:{port} (Address already in use); choose another port" in out) == (
        1,
        True,
    )


@asynccontextmanager
async def a_member_with_another_assignor(cluster: Cluster) -> AsyncIterator[None]:
    client = aiokafka.AIOKafkaConsumer(
        cluster.topic,
        bootstrap_servers=cluster.bootstrap_servers,
        group_id=cluster.kafka.group_id,
        partition_assignment_strategy=(RoundRobinPartitionAssignor,),
    )
    await client.start()
    try:
        yield
    finally:
        await client.stop()


async def test_a_group_with_another_assignor_is_named(cluster: Cluster) -> None:
    await cluster.create(dead_letters=1)
    async with a_member_with_another_assignor(cluster):
        code, out = await checked(cluster)
    says = f"the members of group '{cluster.kafka.group_id}' use another protocol or another assignor"
    assert (code, says in out) == (1, True), out


async def test_an_offset_that_is_gone_may_be_allowed(cluster: Cluster) -> None:
    """What the settings say to do about an offset that is gone is no failure."""
    await offset_gone(cluster)
    code, out = await checked(cluster, "kafka.out_of_range=earliest")
    assert code == 0, out


async def test_tracing_without_its_packages(cluster: Cluster) -> None:
    """``check`` fails where ``run`` would, for want of an optional package."""
    await cluster.create(dead_letters=1)
    (cluster.folder / "opentelemetry.py").write_text("raise ImportError")
    code, out = await checked(cluster, "tracing.enabled=true", PYTHONPATH=str(cluster.folder))
    assert (code, "OpenTelemetry is not installed" in out) == (2, True), out
