"""The daemon as a process on a real Kafka: nothing is lost or needlessly repeated, and it ends as specified."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.recorded import RECORDER, cluster_caught_up, noted


async def test_consume_stop_start(cluster: Cluster, tmp_path: Path) -> None:
    """Stopped by SIGTERM and started again, the daemon handles every record once, in order, and commits all."""
    await cluster.create(partitions=3)
    out = tmp_path / "handled"
    routes = a_route(RECORDER, path=out)
    for partition in range(3):
        await cluster.produce(map(a_session, range(500)), partition)
    async with cluster.run(routes=routes) as first:
        await eventually(lambda: len(noted(out)) > 300)
        assert await first.stop() == 0
    before = len(noted(out))
    assert await cluster.lag() == 1500 - before
    for partition in range(3):
        await cluster.produce(map(a_session, range(500)), partition)
    async with cluster.run(routes=routes) as second:
        await eventually(lambda: len(noted(out)) >= 3000)
        assert await second.stop() == 0
    assert await cluster.committed() == {0: 1000, 1: 1000, 2: 1000}
    for partition in range(3):
        assert [offset for each, offset in noted(out) if each == partition] == list(range(1000))


async def test_two_processes_share_the_partitions(cluster: Cluster, tmp_path: Path) -> None:
    """A second process takes its share while records flow and gives it back: nothing is lost or repeated."""
    await cluster.create(partitions=4)
    out = tmp_path / "handled"
    routes = a_route(RECORDER, path=out, delay=0.001)
    enough = asyncio.Event()
    flowing = asyncio.create_task(produce_until(enough, cluster, partitions=4))
    async with cluster.run(routes=routes, name="a") as first:
        await eventually(lambda: len(noted(out)) > 100)
        async with cluster.run(routes=routes, name="b") as second:

            async def shared() -> bool:
                return await first.metric("assigned_partitions") == await second.metric("assigned_partitions") == 2

            await eventually(shared)
            await eventually(lambda: len({line.split()[3] for line in out.read_text().splitlines()}) == 2)
            assert await second.stop() == 0
        enough.set()
        produced = await flowing
        await eventually(lambda: len(noted(out)) >= produced)
        await eventually(lambda: cluster_caught_up(cluster))
        assert await first.stop() == 0
    assert set(Counter(noted(out)).values()) == {1}
    assert len(noted(out)) == produced
    for partition in range(4):
        offsets = [offset for each, offset in noted(out) if each == partition]
        assert offsets == sorted(offsets)


async def produce_until(enough: asyncio.Event, cluster: Cluster, partitions: int) -> int:
    count = 0
    async with cluster.producer() as producer:
        while not enough.is_set():
            for partition in range(partitions):
                for _ in range(20):
                    await producer.send(cluster.topic, a_session(count), partition=partition)
                    count += 1
            await producer.flush()
            await asyncio.sleep(0.1)  # spreads the load; nothing waits for it
    return count


async def test_a_kill_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """After a kill at most uncommitted records are repeated, and nothing is lost."""
    await cluster.create()
    out = tmp_path / "handled"
    routes = a_route(RECORDER, path=out, delay=0.001)
    await cluster.produce(map(a_session, range(1000)))
    async with cluster.run(
        "kafka.session_timeout_seconds=6", "kafka.heartbeat_interval_seconds=1", routes=routes
    ) as first:
        await eventually(lambda: len(noted(out)) > 200)
        first.signal(signal.SIGKILL)
        await first.exit_code()
    committed = (await cluster.committed())[0] or 0
    async with cluster.run(routes=routes) as second:
        await eventually(lambda: (0, 999) in noted(out, "end"))
        assert await second.stop() == 0
    calls = Counter(offset for _, offset in noted(out))
    assert set(calls) == set(range(1000))
    assert all(offset >= committed for offset, times in calls.items() if times > 1)


async def test_undecodable_record_halts_its_partition_alone(cluster: Cluster, tmp_path: Path) -> None:
    """Without a dead-letter topic an undecodable record halts its partition; the other goes on."""
    await cluster.create(partitions=2)
    out = tmp_path / "handled"
    others = {(0, 0), (0, 1), *((1, offset) for offset in range(5))}
    await cluster.produce([a_session(0), a_session(1), b'{"timestamp":"+18045550100"}', a_session(3)], 0)
    async with cluster.run(routes=a_route(RECORDER, path=out)) as daemon:
        line = json.loads(await daemon.said("partition_halted"))
        assert (line["partition"], line["offset"], line["reason"]) == (0, 2, "no_dead_letter")
        await cluster.produce(map(a_session, range(5)), 1)
        await eventually(lambda: {*noted(out)} >= others)
        assert await daemon.metric("halted", partition="0", reason="no_dead_letter") == 1
        assert await daemon.metric("decode_errors_total", topic=cluster.topic, reason="undecodable") == 1
        status, reason = await daemon.get("/readyz")
        assert (status, f"halted: {cluster.topic}-0" in reason) == (503, True)
        assert (await daemon.get("/healthz"))[0] == 200
        assert await daemon.stop() == 0
        assert "+18045550100" not in "".join(daemon.lines)
    assert await cluster.committed() == {0: 2, 1: 5}
    assert {*noted(out)} - {(0, 3)} == others  # the record behind it may have been called before the letter was refused


@pytest.mark.parametrize(
    ("bad", "why"),
    [(b"{", "is not an event (DecodeError)"), (b"[" * 100_000, "RecursionError"), (b"\xff", "is not an event")],
)
async def test_on_halt_exit(cluster: Cluster, tmp_path: Path, bad: bytes, why: str) -> None:
    """With ``on_halt = "exit"`` the process ends with 74 and one line naming topic, partition and offset."""
    await cluster.create()
    await cluster.produce([a_session(0), bad, a_session(2)])
    async with cluster.run("delivery.on_halt=exit", routes=a_route(RECORDER, path=tmp_path / "handled")) as daemon:
        assert await daemon.exit_code() == 74
        (line,) = daemon.errors
        assert f"topic {cluster.topic}, partition 0, offset 1: " in line
        assert why in line
    assert await cluster.committed() == {0: 1}


async def test_failing_handler_halts(cluster: Cluster, tmp_path: Path) -> None:
    """Without dead letters a handler that keeps raising halts its partition; the log shows nothing of the record."""
    await cluster.create()
    await cluster.produce(map(a_session, range(10)))
    routes = a_route(RECORDER, path=tmp_path / "handled", fail_at=4)
    async with cluster.run("delivery.on_halt=exit", routes=routes) as daemon:
        assert await daemon.exit_code() == 74
        assert "offset 4: the handler of route 'all' raised RuntimeError (" in daemon.errors[0]
        assert "the caller was" not in "".join(daemon.lines)
    assert await cluster.committed() == {0: 4}


async def test_too_large_value_is_not_decoded(cluster: Cluster, tmp_path: Path) -> None:
    """Without dead letters a value over ``max_record_bytes`` halts its partition with its size."""
    await cluster.create()
    await cluster.produce([a_session(0) + b" " * 200])
    routes = a_route(RECORDER, path=tmp_path / "handled")
    async with cluster.run("delivery.on_halt=exit", "delivery.max_record_bytes=100", routes=routes) as daemon:
        assert await daemon.exit_code() == 74
        assert "is over delivery.max_record_bytes = 100" in daemon.errors[0]


async def test_tombstones_and_unmatched_events_are_skipped(cluster: Cluster, tmp_path: Path) -> None:
    """Null values and unmatched events are skipped, counted and committed."""
    await cluster.create()
    await cluster.produce([None, a_session(1), b'{"timestamp":"2024-10-21T14:05:00Z","isTest":true}'])
    routes = a_route(RECORDER, path=tmp_path / "handled") + "match = { is_test = false }\n"
    async with cluster.run(routes=routes) as daemon:

        async def skipped() -> bool:
            return await daemon.metric("outcomes_total", route="none", outcome="skipped") == 2

        await eventually(skipped)
        assert await daemon.metric("outcomes_total", route="all", outcome="handled") == 1
        await daemon.said("event_unmatched")
        assert await daemon.stop() == 0
    assert await cluster.committed() == {0: 3}


async def test_a_started_call_ends_before_the_stop(cluster: Cluster, tmp_path: Path) -> None:
    """On SIGTERM the running call ends and is committed; no other starts."""
    await cluster.create()
    out = tmp_path / "handled"
    await cluster.produce(map(a_session, range(5)))
    async with cluster.run(routes=a_route(RECORDER, path=out, delay=1.0)) as daemon:
        await eventually(lambda: len(noted(out)) == 1)
        assert await daemon.stop() == 0
    assert noted(out) == noted(out, "end") == [(0, 0)]
    assert await cluster.committed() == {0: 1}


async def test_a_call_that_outlasts_the_drain(cluster: Cluster, tmp_path: Path) -> None:
    """A call that outlasts the drain is cancelled, counted and not committed; the process exits 70."""
    await cluster.create()
    out = tmp_path / "handled"
    await cluster.produce(map(a_session, range(3)))
    async with cluster.run("delivery.drain_seconds=0.5", routes=a_route(RECORDER, path=out, delay=60)) as daemon:
        await eventually(lambda: noted(out))
        assert await daemon.stop() == 70
        assert "did not end within delivery.drain_seconds" in daemon.errors[0]
    assert (await cluster.committed())[0] in (None, 0)


async def test_a_call_that_swallows_its_cancellation(cluster: Cluster, tmp_path: Path) -> None:
    """A call that swallows its cancellation cannot keep the process: it leaves the group and exits 70."""
    await cluster.create()
    begun = tmp_path / "begun"
    await cluster.produce([a_session(0)])
    async with cluster.run("delivery.drain_seconds=0.5", routes=a_route("recording:Stubborn", path=begun)) as daemon:
        await eventually(begun.exists)
        assert await daemon.stop() == 70
        await daemon.said("exit_forced")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_leaves_at_once(
    cluster: Cluster, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The first signal drains; a second one ends the process with 128 + its number."""
    await cluster.create()
    out = tmp_path / "handled"
    await cluster.produce([a_session(0)])
    async with cluster.run(routes=a_route(RECORDER, path=out, delay=60)) as daemon:
        await eventually(lambda: noted(out))
        daemon.signal(number)
        await daemon.said("daemon_draining")
        daemon.signal(number)
        assert await daemon.exit_code() == code


async def test_a_blocked_loop_can_be_left(cluster: Cluster, tmp_path: Path) -> None:
    """A second signal ends the process also while a handler blocks the event loop."""
    await cluster.create()
    begun = tmp_path / "begun"
    await cluster.produce([a_session(0)])
    async with cluster.run(routes=a_route("recording:Blocking", path=begun, seconds=60)) as daemon:
        await eventually(begun.exists)
        daemon.signal(signal.SIGTERM)
        await asyncio.sleep(0.2)  # two signals at the same moment are one to the kernel
        daemon.signal(signal.SIGTERM)
        assert await daemon.exit_code() == 143


async def test_nothing_is_committed_that_is_not_flushed(cluster: Cluster, tmp_path: Path) -> None:
    """While a handler's flush fails nothing is committed; when it succeeds, everything is."""
    await cluster.create()
    out, broken = tmp_path / "flushed", tmp_path / "broken"
    broken.touch()
    await cluster.produce(map(a_session, range(50)))
    async with cluster.run(routes=a_route("recording:Buffering", path=out, broken=broken)) as daemon:
        await daemon.said("flush_failed")
        assert await daemon.metric("outcomes_total", route="all", outcome="handled") == 50
        assert (await cluster.committed())[0] in (None, 0)
        broken.unlink()
        await eventually(lambda: cluster_caught_up(cluster))
        assert out.read_text().split() == [str(offset) for offset in range(50)]
        assert await daemon.stop() == 0


async def test_transaction_markers_leave_no_lag(cluster: Cluster, tmp_path: Path) -> None:
    """The committed offset passes a transaction's marker; aborted records are not seen; no lag is left."""
    await cluster.create()
    out = tmp_path / "handled"
    async with cluster.producer(transactional_id=f"tx-{cluster.topic}") as producer:
        async with producer.transaction():
            await producer.send_and_wait(cluster.topic, a_session(0), partition=0)
        await producer.begin_transaction()
        await producer.send_and_wait(cluster.topic, a_session(1), partition=0)
        await producer.abort_transaction()
    async with cluster.run(routes=a_route(RECORDER, path=out)) as daemon:
        await eventually(lambda: cluster_caught_up(cluster))
        assert noted(out) == [(0, 0)]

        async def no_lag() -> bool:
            return await daemon.metric("lag_records", partition="0") == 0

        await eventually(no_lag)
        assert await daemon.metric("committed_offset", partition="0") == 4
        assert await daemon.stop() == 0


async def test_more_than_the_room(cluster: Cluster, tmp_path: Path) -> None:
    """At most ``max_in_flight_records`` are in flight, and a full partition does not delay another."""
    await cluster.create(partitions=2)
    slow = tmp_path / "handled"
    await cluster.produce(map(a_session, range(200)), 0)
    async with cluster.run(
        "delivery.max_in_flight_records=10", routes=a_route(RECORDER, path=slow, delay=0.2)
    ) as daemon:
        await eventually(lambda: noted(slow))
        assert await daemon.metric("in_flight_records", partition="0") <= 10
        assert await daemon.metric("max_in_flight_records") == 10
        await cluster.produce([a_session(0)], 1)
        await eventually(lambda: (1, 0) in noted(slow))
        assert len(noted(slow)) < 100
        assert await daemon.stop() == 0


async def test_the_service_manager_hears_of_it(cluster: Cluster) -> None:
    """The socket that systemd names gets READY, the daemon's state, and a sign of life each second."""
    await cluster.create()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(cluster.folder / "notify"))
        manager.settimeout(20.0)
        daemon = cluster.run()
        daemon.environment = {"NOTIFY_SOCKET": str(cluster.folder / "notify"), "WATCHDOG_USEC": "30000000"}

        async def heard(text: str) -> None:
            while text not in (await asyncio.to_thread(manager.recv, 4096)).decode().splitlines():
                pass

        async with daemon:
            for text in ("READY=1", "STATUS=running", "WATCHDOG=1"):
                await heard(text)
            daemon.signal(signal.SIGTERM)
            assert await daemon.exit_code() == 0
