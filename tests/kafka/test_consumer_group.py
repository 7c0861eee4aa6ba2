"""Members by the consumer group protocol: they come, go, die, and the records of each partition go on."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiokafka
from aiokafka.admin import NewPartitions

from consumer.kafka.producer import create_topic
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.groups import CONSUMER, group_of, short_session
from tests.kafka.recorded import RECORDER, noted
from tests.process import RunningConsumer

PARTITIONS = 6


def member(cluster: Cluster, out: Path, name: str, *sets: str, delay: float = 0.0) -> RunningConsumer:
    return cluster.run(CONSUMER, *sets, routes=a_route(RECORDER, path=out, delay=delay), name=name)


async def owned(*members: RunningConsumer) -> list[int]:
    return [int(await each.metric("assigned_partitions")) for each in members]


async def shared(*members: RunningConsumer, partitions: int = PARTITIONS) -> None:
    """Wait until the members own all partitions, as evenly as that is possible."""
    low, more = divmod(partitions, len(members))

    async def unevenly() -> list[int]:
        found = await owned(*members)
        return [] if sorted(found) == [low] * (len(members) - more) + [low + 1] * more else found

    await until_empty(unevenly)


async def until_empty(find: Callable[[], Awaitable[list[int]]]) -> None:
    """Wait until nothing is found; fail with what was found last."""
    found: list[int] = []

    async def nothing() -> bool:
        found[:] = await find()
        return not found

    try:
        await eventually(nothing, 40)
    except AssertionError:
        raise AssertionError(f"owned: {found}") from None


async def lost(*members: RunningConsumer) -> list[float]:
    return [await each.metric("rebalances_total", kind="lost") for each in members]


@asynccontextmanager
async def flowing(cluster: Cluster) -> AsyncIterator[Counter[int]]:
    """Produce to all partitions during the block; the number that was produced to each, by partition."""
    produced: Counter[int] = Counter()
    stopping = asyncio.Event()

    async def produce(producer: aiokafka.AIOKafkaProducer) -> None:
        number = 0
        while not stopping.is_set():
            partition = number % PARTITIONS
            await producer.send_and_wait(cluster.topic, a_session(number), key=b"key", partition=partition)
            produced[partition] += 1
            number += 1
            await asyncio.sleep(0.005)

    async with cluster.producer() as producer:
        task = asyncio.ensure_future(produce(producer))
        try:
            yield produced
        finally:
            stopping.set()
            await task


async def all_handled(out: Path, produced: Counter[int], *, once: bool = True) -> None:
    """Wait until each record was handled; check that none was missed, and none handled twice if ``once``."""
    wanted = {(partition, offset) for partition, count in produced.items() for offset in range(count)}
    await eventually(lambda: wanted <= set(noted(out)), 30)
    if once:
        assert [each for each, count in Counter(noted(out)).items() if count > 1] == []


async def test_members_join_and_leave(cluster: Cluster, tmp_path: Path) -> None:
    """Members share the partitions out, and give them back when they leave; every record is handled once."""
    await cluster.create(PARTITIONS, dead_letters=1)
    out = tmp_path / "handled"
    async with AsyncExitStack() as opened:
        produced = await opened.enter_async_context(flowing(cluster))
        first = await opened.enter_async_context(member(cluster, out, "a"))
        await shared(first)
        second = await opened.enter_async_context(member(cluster, out, "b"))
        await shared(first, second)
        third = await opened.enter_async_context(member(cluster, out, "c"))
        await shared(first, second, third)
        assert sorted((await group_of(cluster))["members"].values()) == [2, 2, 2]
        assert await first.stop() == 0
        await shared(second, third)
        assert await lost(second, third) == [0, 0]
        assert await second.stop() == 0
        await shared(third)
        assert [(await third.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]
        assert await third.stop() == 0
    await _finish(cluster, out, produced)


async def _finish(cluster: Cluster, out: Path, produced: Counter[int], *, once: bool = True) -> None:
    async with member(cluster, out, "last") as last:
        await shared(last)
        await all_handled(out, produced, once=once)
        assert await last.stop() == 0
    assert sum((await cluster.committed()).values()) == produced.total()  # type: ignore[arg-type]


async def test_a_rolling_restart_repeats_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Three members without instance ids, restarted one after the other: no record is handled twice, none is lost."""
    await cluster.create(PARTITIONS, dead_letters=1)
    out = tmp_path / "handled"
    async with AsyncExitStack() as opened:
        produced = await opened.enter_async_context(flowing(cluster))
        running = {name: await opened.enter_async_context(member(cluster, out, name)) for name in "abc"}
        await shared(*running.values())
        for name in "abc":
            assert await running[name].stop() == 0
            running[name] = await opened.enter_async_context(member(cluster, out, name))
            await shared(*running.values())
        for each in running.values():
            assert await each.stop() == 0
    await _finish(cluster, out, produced)


async def test_a_killed_member(cluster: Cluster, tmp_path: Path) -> None:
    """When its session has ended, the others have its partitions; nothing is lost."""
    await cluster.create(PARTITIONS, dead_letters=1)
    await short_session(cluster)
    out = tmp_path / "handled"
    async with AsyncExitStack() as opened:
        produced = await opened.enter_async_context(flowing(cluster))
        first = await opened.enter_async_context(member(cluster, out, "a"))
        second = await opened.enter_async_context(member(cluster, out, "b"))
        await shared(first, second)
        first.signal(signal.SIGKILL)
        await first.exit_code()
        await shared(second)
        assert await second.stop() == 0
    await _finish(cluster, out, produced, once=False)


async def test_a_member_that_stood_still_for_a_session(cluster: Cluster, tmp_path: Path) -> None:
    """A process that was stopped past its session begins nothing, loses all, and joins with the same id."""
    await cluster.create(PARTITIONS, dead_letters=1)
    await short_session(cluster)
    out = tmp_path / "handled"
    async with AsyncExitStack() as opened:
        produced = await opened.enter_async_context(flowing(cluster))
        first = await opened.enter_async_context(member(cluster, out, "a"))
        second = await opened.enter_async_context(member(cluster, out, "b"))
        await shared(first, second)
        members = (await group_of(cluster))["members"].keys()
        first.signal(signal.SIGSTOP)
        try:
            await shared(second)
        finally:
            first.signal(signal.SIGCONT)
        await first.said("partitions_lost")
        await shared(first, second)
        assert (await group_of(cluster))["members"].keys() == members
        assert await lost(first, second) == [1, 0]
        assert await first.metric("client_rebuilds_total") == 0
        assert await first.stop() == await second.stop() == 0
    await _finish(cluster, out, produced, once=False)


async def test_partitions_are_added(cluster: Cluster, tmp_path: Path) -> None:
    """New partitions are consumed from their first record; the others are not stopped."""
    await cluster.create(4, dead_letters=1)
    out = tmp_path / "handled"
    async with member(cluster, out, "a") as first, member(cluster, out, "b") as second:
        await shared(first, second, partitions=4)
        async with cluster.admin() as admin:
            await admin.create_partitions({cluster.topic: NewPartitions(PARTITIONS)})
        await shared(first, second)
        for partition in range(PARTITIONS):
            await cluster.produce(map(a_session, range(5)), partition)
        await eventually(lambda: len(noted(out)) == 5 * PARTITIONS)
        assert await first.stop() == await second.stop() == 0


async def test_topics_of_a_pattern(cluster: Cluster, tmp_path: Path) -> None:
    """The brokers match the pattern; a later topic is consumed, and the dead letters of a matching topic are not."""
    await cluster.create(2, dead_letters=1)
    out = tmp_path / "handled"
    await cluster.produce([b"undecodable", a_session(1)])
    settings = tmp_path / "pattern.toml"
    settings.write_text(
        f'path = ["{Path(__file__).parent.parent / "handlers"}"]\n'
        f'[kafka]\nbootstrap_servers = ["{cluster.bootstrap_servers}"]\ntopic_pattern = "{cluster.topic}.*"\n'
        f'group_protocol = "consumer"\ngroup_id = "{cluster.kafka.group_id}"\n'
        '[http]\nport = 0\n[log]\nformat = "json"\n' + a_route(RECORDER, path=out)
    )
    async with RunningConsumer(settings, []) as consumer:
        await eventually(lambda: len(noted(out)) == 1)
        later = Cluster(cluster.bootstrap_servers, cluster.topic, cluster.folder)
        later.topic = f"{cluster.topic}-later"
        await later.create(1, dead_letters=1)
        await later.produce([a_session(2)])
        await eventually(lambda: len(noted(out)) == 2, 90)
        assert await consumer.metric("dead_letters_total", topic=cluster.topic, reason="undecodable") == 1
        assert ".dlq" not in (await consumer.get("/metrics"))[1]
        assert await consumer.stop() == 0


async def test_a_static_member_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    """A static member that restarts gets its partitions back; nobody else moves, and the epoch stays."""
    await cluster.create(PARTITIONS, dead_letters=1)
    out = tmp_path / "handled"
    async with AsyncExitStack() as opened:
        produced = await opened.enter_async_context(flowing(cluster))
        running = {
            name: await opened.enter_async_context(member(cluster, out, name, f"kafka.group_instance_id={name}"))
            for name in "ab"
        }
        await shared(*running.values())
        epoch, moved = (await group_of(cluster))["epoch"], await running["b"].metric("rebalances_total", kind="revoked")
        assert await running["a"].stop() == 0
        running["a"] = await opened.enter_async_context(member(cluster, out, "a", "kafka.group_instance_id=a"))
        await shared(*running.values())
        assert (await group_of(cluster))["epoch"] == epoch
        assert await running["b"].metric("rebalances_total", kind="revoked") == moved
        for each in running.values():
            assert await each.stop() == 0
    await _finish_static(cluster, out, produced)


async def _finish_static(cluster: Cluster, out: Path, produced: Counter[int]) -> None:
    async with AsyncExitStack() as opened:
        running = [
            await opened.enter_async_context(member(cluster, out, name, f"kafka.group_instance_id={name}"))
            for name in "ab"
        ]
        await all_handled(out, produced)
        for each in running:
            assert await each.stop() == 0


async def test_an_instance_id_that_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    """The second of two living members with one id ends, and says so; the first goes on."""
    await cluster.create(2, dead_letters=1)
    await short_session(cluster, 1.0, 0.3)
    out = tmp_path / "handled"
    async with member(cluster, out, "a", "kafka.group_instance_id=same") as first:
        await shared(first, partitions=2)
        async with member(cluster, out, "b", "kafka.group_instance_id=same") as second:
            assert await second.exit_code() == 1
            (said,) = second.errors
            assert "kafka.group_instance_id: another member of group" in said
        assert await owned(first) == [2]
        assert await first.stop() == 0


async def test_a_topic_that_was_made_again(cluster: Cluster, tmp_path: Path) -> None:
    """The new topic has another id and no offsets: it is consumed from its first record."""
    await cluster.create(2, dead_letters=1)
    out = tmp_path / "handled"
    async with member(cluster, out, "a") as consumer:
        await shared(consumer, partitions=2)
        await cluster.produce(map(a_session, range(5)))
        await eventually(lambda: len(noted(out)) == 5)
        async with cluster.admin() as admin:
            await admin.delete_topics([cluster.topic])

        async def dropped() -> bool:
            return await owned(consumer) == [0]

        await eventually(dropped, 40)
        await create_topic(cluster.kafka, cluster.topic, 2)
        await shared(consumer, partitions=2)
        await cluster.produce(map(a_session, range(5, 8)))
        await eventually(lambda: noted(out)[5:] == [(0, 0), (0, 1), (0, 2)])
        assert await consumer.stop() == 0


async def test_a_topic_that_is_made_again_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """The drain of the old topic ends when the new one is there: what it commits is not of the new one."""
    await cluster.create(1, dead_letters=1)
    out = tmp_path / "handled"
    async with member(cluster, out, "a", "delivery.commit_interval_seconds=30", delay=1.0) as consumer:
        await shared(consumer, partitions=1)
        await cluster.produce(map(a_session, range(3)))
        await eventually(lambda: len(noted(out)) == 2)
        async with cluster.admin() as admin:
            await admin.delete_topics([cluster.topic])
        await create_topic(cluster.kafka, cluster.topic, 1)
        await cluster.produce(map(a_session, range(3, 8)))
        await eventually(lambda: Counter(noted(out))[0, 0] == Counter(noted(out))[0, 1] == 2 and (0, 4) in noted(out))
        assert await consumer.stop() == 0


async def test_the_assignor_of_the_brokers(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create(2, dead_letters=1)
    out = tmp_path / "handled"
    async with member(cluster, out, "a", "kafka.group_remote_assignor=range") as consumer:
        await shared(consumer, partitions=2)
        assert (await group_of(cluster))["assignor"] == "range"
        assert await consumer.stop() == 0


async def test_a_pattern_that_the_brokers_cannot_read(cluster: Cluster) -> None:
    """RE2 has no lookarounds: the daemon ends with the setting's name."""
    await cluster.create(1, dead_letters=1)
    settings = cluster.folder / "pattern.toml"
    settings.write_text(
        f'[kafka]\nbootstrap_servers = ["{cluster.bootstrap_servers}"]\ntopic_pattern = "(?=a?){cluster.topic}"\n'
        f'group_protocol = "consumer"\ngroup_id = "{cluster.kafka.group_id}"\n'
        '[http]\nport = 0\n[log]\nformat = "json"\n'
    )
    async with RunningConsumer(settings, []) as consumer:
        assert await consumer.exit_code() == 1
        assert "kafka.topic_pattern: the brokers cannot read it" in consumer.errors[0]
