"""Static membership, and topics that a pattern names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from consumer.kafka.client import Assignor
from tests.cluster import Cluster, a_session, eventually
from tests.process import RunningConsumer, command

LOG = '[[routes]]\nname = "log"\nhandler = "consumer.handlers.log:Log"\n'


async def assigned(consumer: RunningConsumer) -> float:
    return await consumer.metric("rebalances_total", kind="assigned")


async def handled(consumer: RunningConsumer) -> float:
    return await consumer.metric("outcomes_total", route="log", outcome="handled")


def member(cluster: Cluster, name: str, *sets: str) -> RunningConsumer:
    return cluster.run(f"kafka.group_instance_id={name}", *sets, routes=LOG, name=name)


async def test_rolling_restart_of_static_members(cluster: Cluster) -> None:
    """Members that restart within their session move no partition, not even their own."""
    await cluster.create(3, dead_letters=1)
    async with AsyncExitStack() as opened:
        running = {name: await opened.enter_async_context(member(cluster, name)) for name in "abc"}

        async def settled() -> bool:
            return [await each.metric("assigned_partitions") for each in running.values()] == [1, 1, 1]

        await eventually(settled)
        before = {name: await assigned(each) for name, each in running.items()}
        for name in "abc":
            assert await running[name].stop() == 0
            running[name] = await opened.enter_async_context(member(cluster, name))
            await running[name].said("partitions_assigned")
            before[name] = 1
        assert await settled()
        assert {name: await assigned(each) for name, each in running.items()} == before
        for partition in range(3):
            await cluster.produce(map(a_session, range(10)), partition)

        async def all_handled() -> bool:
            return sum([await handled(each) for each in running.values()]) == 30

        await eventually(all_handled)
        for each in running.values():
            assert await each.stop() == 0


@asynccontextmanager
async def records_coming(cluster: Cluster) -> AsyncIterator[None]:
    """Produce during the block, so that commits are under way all the time."""

    async def go_on() -> None:
        while True:
            await cluster.produce(map(a_session, range(5)))
            await asyncio.sleep(0.05)

    producing = asyncio.ensure_future(go_on())
    try:
        yield
    finally:
        producing.cancel()
        await asyncio.wait([producing])


@pytest.mark.parametrize("busy", [True, False])
async def test_of_two_members_with_one_id_the_first_ends(cluster: Cluster, *, busy: bool) -> None:
    """The member whose id another one takes ends, and says so; it does not take the id back."""
    await cluster.create(1, dead_letters=1)
    session = ("kafka.session_timeout_seconds=10", f"kafka.heartbeat_interval_seconds={3 if busy else 0.5}")
    async with AsyncExitStack() as opened:
        if busy:
            await opened.enter_async_context(records_coming(cluster))
        first = await opened.enter_async_context(member(cluster, "same", *session))
        await first.said("partitions_assigned")
        second = await opened.enter_async_context(
            cluster.run("kafka.group_instance_id=same", *session, routes=LOG, name="second")
        )
        assert await first.exit_code() == 1
        (said,) = first.errors
        assert "kafka.group_instance_id: another member with the id 'same' has joined group" in said
        await second.said("partitions_assigned")
        before = await handled(second)
        await cluster.produce(map(a_session, range(5)))

        async def more_handled() -> bool:
            return await handled(second) >= before + 5

        await eventually(more_handled)
        assert await assigned(second) == 1
        assert await second.stop() == 0


@pytest.mark.parametrize("order", [["b", "a"], ["a", "b"]])
def test_topics_are_named_in_order(order: list[str]) -> None:
    """Sets have another order in each process; Kafka takes another order for another subscription."""
    assert Assignor.metadata(order).encode() == Assignor.metadata(["a", "b"]).encode()


async def test_topics_of_a_pattern(cluster: Cluster) -> None:
    """Topics that match are consumed, those made later too, and dead-letter topics are not."""
    await cluster.create(1, dead_letters=1)
    await cluster.produce([b"undecodable", a_session(1)])
    pattern = f"{cluster.topic}.*"
    settings = cluster.folder / "pattern.toml"
    settings.write_text(
        f'[kafka]\nbootstrap_servers = ["{cluster.bootstrap_servers}"]\ntopic_pattern = "{pattern}"\n'
        f'group_id = "{cluster.kafka.group_id}"\n[http]\nport = 0\n[log]\nformat = "json"\n{LOG}'
    )
    code, out, err = await command("check", "-c", str(settings))
    assert code == 0, out + err
    async with RunningConsumer(settings, []) as consumer:
        await consumer.said("partitions_assigned")
        later = Cluster(cluster.bootstrap_servers, cluster.topic, cluster.folder)
        later.topic = f"{cluster.topic}-later"
        await later.create(1, dead_letters=1)
        await later.produce([a_session(2)])

        async def both_handled() -> bool:
            return await handled(consumer) == 2

        await eventually(both_handled, 60)
        assert await consumer.metric("dead_letters_total", topic=cluster.topic, reason="undecodable") == 1
        assert await consumer.metric("records_consumed_total", topic=later.topic) == 1
        _, text = await consumer.get("/metrics")
        assert ".dlq" not in text
        status = json.loads((await consumer.get("/status.json"))[1])
        assert status["subscribed"] == [pattern]
        assert await consumer.stop() == 0
    code, out, err = await command("dlq", "list", "--json", "-c", str(settings))
    assert [row["topic"] for row in json.loads(out)["letters"]] == [cluster.topic], err


async def test_a_pattern_that_matches_nothing(cluster: Cluster) -> None:
    reach = ("--set", f"kafka.bootstrap_servers={cluster.bootstrap_servers}", "--set", "http.port=0")
    code, _, err = await command("run", *reach, "--set", "kafka.topic_pattern=no-such-topic-.*")
    assert (code, "kafka.topic_pattern: it matches no topic; create one, or correct the pattern" in err) == (1, True), (
        err
    )
