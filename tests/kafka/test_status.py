"""The status of real daemons: who they are, what they work on, and what ends their halts."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime

import msgspec

from consumer.http.status import Status
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.tools import run_with_tools
from tests.process import RunningConsumer


async def status_of(daemon: RunningConsumer) -> Status:
    code, body = await daemon.get("/status.json")
    assert code == 200
    return msgspec.json.decode(body, type=Status)


async def test_replicas_do_not_look_alike(cluster: Cluster) -> None:
    """Each daemon names its process and its member, and both name the same members with one of them marked."""
    await cluster.create(3, dead_letters=1)
    async with cluster.run(name="a") as first, cluster.run(name="b") as second:

        async def both_know() -> list[Status]:
            found = [await status_of(each) for each in (first, second)]
            stable = all(each.group.state == "Stable" for each in found)  # one may have asked during the rebalance
            every = all(sum(each.partitions for each in one.group.members) == 3 for one in found)
            return found if stable and every else []

        statuses = await eventually(both_know, 60.0)  # the group is asked every 30 s
        assert [each.process.pid for each in statuses] == [first.pid, second.pid]
        members = [[member.member_id for member in each.group.members] for each in statuses]
        assert members[0] == members[1]
        assert len(set(members[0])) == 2
        mine = [[member.member_id for member in each.group.members if member.me] for each in statuses]
        assert mine == [[each.process.member_id] for each in statuses]


async def test_a_hold_has_its_place(cluster: Cluster) -> None:
    """A hold shows its record, the class and place of the exception, its attempts and the next one; it is in flight."""
    await cluster.create(1, dead_letters=1)
    (cluster.folder / "down").touch()
    await cluster.produce([a_session(1).replace(b'"1"', b'"asks"'), a_session(2)])
    async with cluster.run(routes=a_route("failing:Failing", folder=str(cluster.folder))) as daemon:

        async def held() -> Status | None:
            found = await status_of(daemon)
            return found if found.holds and found.holds[0].attempts > 1 and found.holds[0].next_at else None

        status = await eventually(held)
        (hold,) = status.holds
        assert (hold.topic, hold.partition, hold.offset, hold.route, hold.kind) == (cluster.topic, 0, 0, "all", "pause")
        assert hold.error.startswith("ConnectionRefusedError (")
        assert "failing.py:" in hold.error
        assert hold.next_at > status.at - 1
        assert status.verdicts[0].tone == "warn"
        assert await daemon.metric("in_flight_records", topic=cluster.topic) >= 1
        (cluster.folder / "down").unlink()

        async def committed() -> bool:
            return await cluster.committed() == {0: 2}

        await eventually(committed)


async def test_a_blocked_loop_has_its_place(cluster: Cluster) -> None:
    """While the first call blocks the loop: lag and its age are known, and the stall names route, record and place."""
    await cluster.create(1, dead_letters=1)
    await cluster.produce(map(a_session, range(100)))
    route = a_route("recording:Blocking", path=cluster.folder / "seen", seconds=30)
    async with cluster.run("watchdog.stalled_seconds=2", routes=route) as daemon:

        async def stalled() -> Status | None:
            found = await status_of(daemon)
            return found if found.stall is not None else None

        status = await eventually(stalled)
        assert status.stall is not None
        assert (status.stall.kind, status.stall.route, status.stall.offset) == ("loop", "all", 0)
        assert "recording.py:" in status.stall.places[0]
        assert status.stall.exits_at > status.at
        (partition,) = status.partitions
        assert (partition.lag_records, partition.in_flight_records) == (100, 1)
        assert partition.lag_seconds is not None
        assert partition.lag_seconds >= 1
        assert not status.brokers.silent
        assert status.verdicts[0].tone == "bad"
        daemon.signal(signal.SIGKILL)


async def test_counts_of_events(cluster: Cluster) -> None:
    """What a handler has counted is in the status and on the page; a daemon without such a handler has none."""
    await cluster.create(2, dead_letters=1)
    begin = int(time.time() // 3600) * 3600
    when = datetime.fromtimestamp(begin, UTC).isoformat()
    for partition in range(2):
        values = [
            msgspec.json.encode({"timestamp": when, "agent_name": f"<b>{number % 3}", "is_test": number == 0})
            for number in range(10)
        ]
        await cluster.produce(values, partition)
    async with cluster.run(routes=a_route("consumer.handlers.stats:Stats", "counts")) as daemon:

        async def counted() -> Status | None:
            found = await status_of(daemon)
            return found if found.routes[0].handled == 20 else None

        (stats,) = (await eventually(counted)).stats
        assert (stats.route, stats.counts.events, stats.counts.apart["is_test"]) == ("counts", 18, 2)
        assert [(each.begin, each.counts.events, each.counts.apart) for each in stats.counts.hours] == [(begin, 18, 2)]
        agents = {each.value: each.events for each in stats.counts.fields[1].top}
        assert agents == {"<b>0": 6, "<b>1": 6, "<b>2": 6}
        _, page = await daemon.get("/")
        assert "&lt;b&gt;0" in page
        assert "<b>0" not in page
        assert await daemon.stop() == 0


async def test_one_command_ends_the_halts_of_a_topic(cluster: Cluster) -> None:
    """The command of several halts, run by Kafka's own tool, moves the group past each cause and nothing else."""
    await cluster.create(3)
    for partition, before in ((0, 1), (1, 4)):
        await cluster.produce([*map(a_session, range(before)), b"{"], partition)
    async with cluster.run("dead_letter.topic=") as daemon:

        async def halted() -> str:
            found = (await status_of(daemon)).halts
            return found[0].command if found and len(found[0].partitions) == 2 else ""

        command = await eventually(halted)
        assert await daemon.stop() == 0
    await asyncio.to_thread(run_with_tools, command, cluster.folder)
    assert await cluster.committed() == {0: 2, 1: 5, 2: 0}
