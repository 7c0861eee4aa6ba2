"""A group that migrates from the classic protocol to the consumer protocol and back, member by member."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from consumer.kafka.local.cluster import LocalKafka
from tests.cluster import Cluster, a_route, eventually
from tests.kafka.groups import CONSUMER, group_of, short_session
from tests.kafka.recorded import RECORDER
from tests.kafka.test_check import checked
from tests.kafka.test_consumer_group import PARTITIONS, all_handled, flowing, shared
from tests.process import RunningConsumer

CLASSIC = "kafka.group_protocol=classic"


async def test_up_and_down_by_rolling_restarts(cluster: Cluster, tmp_path: Path) -> None:
    """Two members change the protocol one after the other, and back; nothing is lost, and nothing handled twice."""
    await cluster.create(PARTITIONS, dead_letters=1)
    await short_session(cluster, 6.0, 0.5)
    out = tmp_path / "handled"

    def member(name: str, protocol: str) -> RunningConsumer:
        short = () if protocol == CONSUMER else ("kafka.session_timeout_seconds=6",)
        return cluster.run(protocol, *short, routes=a_route(RECORDER, path=out), name=name)

    async def is_consumer_group(*, wanted: bool) -> bool:
        return ((await group_of(cluster))["code"] == 0) is wanted

    async with AsyncExitStack() as opened:
        produced = await opened.enter_async_context(flowing(cluster))
        running = {name: await opened.enter_async_context(member(name, CLASSIC)) for name in "ab"}
        await shared(*running.values())
        assert await is_consumer_group(wanted=False)
        code, row = await checked(cluster, CONSUMER)
        assert (code, "classic now with 2 members: it migrates when the first member joins" in row) == (0, True), row
        for protocol in (CONSUMER, CLASSIC):
            for name in "ab":
                assert await running[name].stop() == 0
                running[name] = await opened.enter_async_context(member(name, protocol))
                await shared(*running.values())
            await eventually(partial(is_consumer_group, wanted=protocol == CONSUMER))
            assert [(await each.get("/readyz"))[0] for each in running.values()] == [200, 200]
        for each in running.values():
            assert await each.stop() == 0
    async with member("last", CLASSIC) as last:
        await all_handled(out, produced)
        assert await last.stop() == 0


async def test_brokers_that_do_not_migrate(tmp_path: Path) -> None:
    """A group with classic members is not taken over: the daemon ends with what to set, and so does ``check``."""
    async with LocalKafka(properties={"group.consumer.migration.policy": "disabled"}) as kafka:
        cluster = Cluster(kafka.bootstrap_servers, "no-migration", tmp_path)
        await cluster.create(2, dead_letters=1)
        routes = a_route(RECORDER, path=tmp_path / "handled")
        async with cluster.run(routes=routes, name="classic") as classic:
            await shared(classic, partitions=2)
            code, row = await checked(cluster, CONSUMER)
            assert (code, "set group.consumer.migration.policy of the brokers" in row) == (1, True), row
            async with cluster.run(CONSUMER, routes=routes, name="consumer") as refused:
                assert await refused.exit_code() == 1
                assert "set group.consumer.migration.policy of the brokers" in refused.errors[0]
            assert await classic.stop() == 0


async def test_brokers_without_the_protocol(tmp_path: Path) -> None:
    """The setting is named; there is no silent way back to the classic protocol."""
    async with LocalKafka(properties={"group.coordinator.rebalance.protocols": "classic"}) as kafka:
        cluster = Cluster(kafka.bootstrap_servers, "classic-only", tmp_path)
        await cluster.create(2, dead_letters=1)
        code, row = await checked(cluster, CONSUMER)
        assert (code, 'kafka.group_protocol = "consumer" is not supported by these brokers' in row) == (1, True), row
        async with cluster.run(CONSUMER, routes=a_route(RECORDER, path=tmp_path / "handled")) as refused:
            assert await refused.exit_code() == 1
            assert 'kafka.group_protocol = "consumer" is not supported by these brokers' in refused.errors[0]
