"""``replay`` on a real Kafka: exactly the stretch, beside a daemon, stopped and started again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import aiokafka
import pytest
from aiokafka.admin import NewPartitions, RecordsToDelete

from consumer.kafka.probe import groups_offsets
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.dlq import letters
from tests.kafka.recorded import RECORDER, noted
from tests.process import command, started

PARTITIONS = 3
MINUTE = 60_000
DAY = 1_729_468_800_000
"""2024-10-21T00:00:00Z."""
HOUR = ("--from", "2024-10-21T09:00", "--to", "2024-10-21T12:00:00+02:00")


def arguments(cluster: Cluster, *words: str, routes: str = "", name: str = "replay") -> list[str]:
    settings = cluster.folder / f"{name}.toml"
    settings.write_text(f'path = ["{Path(__file__).parent.parent / "handlers"}"]\n{routes}')
    overrides = [f"kafka.bootstrap_servers={cluster.bootstrap_servers}", *cluster.overrides]
    return ["replay", "-c", str(settings), *words, *(word for each in overrides for word in ("--set", each))]


async def replayed(cluster: Cluster, *words: str, **options: Any) -> str:
    """Replay to the end; return what was printed."""
    code, out, err = await command(*arguments(cluster, *words, **options))
    assert code == 0, err
    return out + err


async def a_day(cluster: Cluster, seed: int = 1) -> dict[tuple[int, int], int]:
    """Produce a record each minute of a day in each partition, up to four minutes out of order; return their times."""
    random, times = Random(seed), dict[tuple[int, int], int]()
    await cluster.create(partitions=PARTITIONS, dead_letters=1)
    async with cluster.producer() as producer:
        sent = []
        for minute in range(24 * 60):
            for partition in range(PARTITIONS):
                time_ms = DAY + (minute - random.randrange(5)) * MINUTE + random.randrange(MINUTE)
                future = await producer.send(
                    cluster.topic, a_session(minute), key=b"k", partition=partition, timestamp_ms=time_ms
                )
                sent.append((future, time_ms))
        for future, time_ms in sent:
            found = await future
            times[found.partition, found.offset] = time_ms
    return times


async def said(process: asyncio.subprocess.Process, text: bytes) -> None:
    """Wait for a line on stderr."""
    assert process.stderr is not None
    while text not in (line := await process.stderr.readline()):
        assert line, "the process has ended"


async def groups(cluster: Cluster) -> dict[str, Any]:
    return await groups_offsets(cluster.kafka, cluster.kafka.group_id)


async def test_an_hour_of_a_day(cluster: Cluster) -> None:
    """Exactly the records whose time lies in the hour, in order, also those behind later ones; no offset is changed."""
    times = await a_day(cluster)
    out = cluster.folder / "handled"
    printed = await replayed(cluster, *HOUR, routes=a_route(RECORDER, path=out))
    begin, end = DAY + 9 * 60 * MINUTE, DAY + 10 * 60 * MINUTE
    hour = {place for place, time_ms in times.items() if begin <= time_ms < end}
    assert sorted(noted(out)) == sorted(hour)
    for partition in range(PARTITIONS):
        offsets = [offset for each, offset in noted(out) if each == partition]
        assert offsets == sorted(offsets)
        assert offsets != list(range(offsets[0], offsets[0] + len(offsets))), "some lie among those of other hours"
    assert "3 partitions: 2024-10-21T09:00:00Z to 2024-10-21T10:00:00Z" in " ".join(printed.split())
    assert f"all: {len(hour)} handled" in printed
    assert cluster.kafka.group_id not in await groups(cluster)


async def test_a_daemon_goes_on_beside_it(cluster: Cluster) -> None:
    """A replay leaves the group of a running daemon alone: nothing is handled twice there, and no partition moves."""
    times = await a_day(cluster)
    out, again = cluster.folder / "handled", cluster.folder / "again"
    async with cluster.run(routes=a_route(RECORDER, path=out)) as daemon:
        await eventually(lambda: len(noted(out)) == len(times))
        await replayed(cluster, "--from", "0", routes=a_route(RECORDER, path=again))
        assert sorted(noted(again)) == sorted(times)
        assert await daemon.metric("rebalances_total", kind="revoked") == 0
        assert await daemon.stop() == 0
    assert len(noted(out)) == len(times)
    assert await cluster.committed() == dict.fromkeys(range(PARTITIONS), 24 * 60)


async def test_a_replay_that_was_stopped_goes_on(cluster: Cluster) -> None:
    """Each record is handled once, over a stop and a kill; when all is done the same command begins again."""
    await cluster.create(partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        await cluster.produce(map(a_session, range(100)), partition)
    out = cluster.folder / "handled"
    routes = a_route(RECORDER, path=out)
    words = ("--from", "10", "--to", "90")
    slow = arguments(cluster, *words, "--rate", "60", routes=routes)
    async with started(*slow) as process:
        await eventually(lambda: len(noted(out)) > 30)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert process.returncode == 0
        assert b"run the same command again" in err
    stopped = len(noted(out))
    assert 30 < stopped < 3 * 80
    printed = await replayed(cluster, *words, routes=routes)
    assert f"{3 * 80 - stopped:,} left" in printed
    expected = [(partition, offset) for partition in range(PARTITIONS) for offset in range(10, 90)]
    assert sorted(noted(out)) == expected
    printed = await replayed(cluster, *words, routes=routes)
    assert "going on" not in printed
    assert sorted(noted(out)) == sorted(expected * 2)


async def test_records_that_are_deleted_while_it_reads(cluster: Cluster) -> None:
    """A replay whose records the brokers delete before it has read them ends, and says so."""
    await cluster.create()
    for _ in range(10):
        await cluster.produce([a_session(1) + b" " * 4000] * 20)
    out = cluster.folder / "handled"
    small = ("--set", "kafka.fetch_bytes=20000")
    words = arguments(cluster, "--from", "0", "--to", "150", "--rate", "20", *small, routes=a_route(RECORDER, path=out))
    async with started(*words) as process:
        await eventually(lambda: noted(out))
        async with cluster.admin() as admin:
            await admin.delete_records({aiokafka.TopicPartition(cluster.topic, 0): RecordsToDelete(200)})
        printed, _ = await process.communicate()
        assert process.returncode == 0
    assert len(noted(out)) < 150
    assert b"the brokers deleted records before they were read: 1 gap" in printed


async def add_partition(cluster: Cluster, number: int) -> None:
    """Add a partition with 60 records, and the offset that a replay commits which is under way then."""
    async with cluster.admin() as admin:
        await admin.create_partitions({cluster.topic: NewPartitions(total_count=number + 1)})
    key = aiokafka.TopicPartition(cluster.topic, number)

    async def shown() -> bool:
        async with cluster.admin() as admin:
            ((found,),) = [each["partitions"][number:] or [{}] for each in await admin.describe_topics([cluster.topic])]
        return bool(found.get("leader", -1) >= 0)

    await eventually(shown)
    await cluster.produce(map(a_session, range(60)), number)
    (group,) = await groups(cluster)
    reader = aiokafka.AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers, group_id=group)
    await reader.start()
    reader.assign([key])
    await reader.commit({key: 0})
    await reader.stop()


async def test_partitions_that_were_added(cluster: Cluster) -> None:
    """A partition that was added while a replay was under way is read from the begin of the stretch, and is no stop."""
    await cluster.create(partitions=1)
    await cluster.produce(map(a_session, range(60)))
    out = cluster.folder / "handled"
    routes = a_route(RECORDER, path=out)
    async with started(*arguments(cluster, "--from", "50", "--rate", "1", routes=routes)) as process:
        await eventually(lambda: noted(out))
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    await add_partition(cluster, 1)
    assert "going on" in await replayed(cluster, "--from", "50", routes=routes)
    stretch = [(partition, offset) for partition in range(2) for offset in range(50, 60)]
    assert sorted(noted(out)) == stretch
    out.unlink()
    await add_partition(cluster, 2)
    assert "going on" not in await replayed(cluster, "--from", "50", routes=routes)
    assert sorted(noted(out)) == [*stretch, *((2, offset) for offset in range(50, 60))]


async def test_a_killed_replay_is_not_begun_twice(cluster: Cluster) -> None:
    """One that was killed is a member for its session: the next waits for it, and repeats little; --restart refuses."""
    await cluster.create(partitions=1)
    await cluster.produce(map(a_session, range(200)))
    out = cluster.folder / "handled"
    options = {"routes": a_route(RECORDER, path=out)}
    session = ("--set", "kafka.session_timeout_seconds=20")  # longer than a process takes to start
    async with started(*arguments(cluster, "--from", "0", "--rate", "50", *session, **options)) as process:
        await eventually(lambda: len(noted(out)) > 60)
        process.kill()
        await process.communicate()
    code, _, err = await command(*arguments(cluster, "--from", "0", "--restart", *session, **options))
    assert code == 1
    assert "another replay of this stretch is at work" in err
    await replayed(cluster, "--from", "0", *session, **options)
    assert {offset for _, offset in noted(out)} == set(range(200))
    assert len(noted(out)) < 260


async def test_a_sink_that_cannot_store(cluster: Cluster) -> None:
    """The end waits until what handlers keep is flushed and committed: what is not stored is not replayed."""
    await cluster.create(partitions=1)
    await cluster.produce(map(a_session, range(20)))
    out, broken = cluster.folder / "handled", cluster.folder / "broken"
    broken.touch()
    words = arguments(cluster, "--from", "0", routes=a_route("recording:Buffering", path=out, broken=broken))
    async with started(*words) as process:
        await said(process, b"flush_failed")
        process.send_signal(signal.SIGTERM)
        printed, err = await process.communicate()
    assert b"run the same command again to go on" in err
    assert b"replayed 20 of 20" in printed, "all were handled, and none is committed"
    assert not out.exists()
    async with started(*words) as process:
        await said(process, b"flush_failed")
        broken.unlink()
        await process.communicate()
        assert process.returncode == 0
    assert out.read_text().split() == [str(offset) for offset in range(20)]


async def test_a_batch_does_not_wait_at_the_end(cluster: Cluster) -> None:
    """No more records come, so what was collected is called at once, whatever the route's ``max_seconds`` is."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await cluster.produce(map(a_session, range(20)), partition)
    out = cluster.folder / "handled"
    limits = "max_records = 1000\nmax_seconds = 3600.0\n"
    routes = a_route("recording:Batches", path=out, delay=0.0) + limits
    assert "all: 40 handled" in await replayed(cluster, "--from", "0", routes=routes)


async def test_two_share_the_partitions(cluster: Cluster) -> None:
    """One that has done its partitions says that another one has the rest."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await cluster.produce(map(a_session, range(400)), partition)
    out = cluster.folder / "handled"
    routes = a_route(RECORDER, path=out)
    async with started(*arguments(cluster, "--from", "0", "--rate", "5", routes=routes)) as process:
        await eventually(lambda: len(noted(out)) > 10)
        code, printed, err = await command(*arguments(cluster, "--from", "0", routes=routes))
        assert code == 0
        assert "have the rest" in err
        passed, total = map(int, re.findall(r"replayed (\d+) of (\d+) offsets", printed)[0])
        assert passed < total
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert "going on" in await replayed(cluster, "--from", "0", routes=routes)
    assert set(noted(out)) == {(partition, offset) for partition in range(2) for offset in range(400)}


async def test_what_is_chosen(cluster: Cluster) -> None:
    """One route, one partition, offsets; and what the summary says of it."""
    await cluster.create(partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        await cluster.produce(map(a_session, range(20)), partition)
    one, two = cluster.folder / "one", cluster.folder / "two"
    routes = a_route(RECORDER, "one", path=one) + a_route(RECORDER, "two", path=two)
    printed = await replayed(
        cluster,
        "--from",
        "5",
        "--to",
        "8",
        "--partition",
        "1",
        "--route",
        "two",
        "--topic",
        cluster.topic,
        routes=routes,
    )
    assert not one.exists()
    assert noted(two) == [(1, 5), (1, 6), (1, 7)]
    assert re.search(r"replayed 3 of 3 offsets\s+two: 3 handled", printed)
    printed = await replayed(cluster, "--from", "0", "--dry-run", routes=routes)
    assert "60 offsets to read" in printed
    assert len(noted(two)) == 3


async def test_dead_letters_are_the_daemons(cluster: Cluster) -> None:
    """A record that fails becomes a letter of the daemon's group, and the replay exits 1."""
    await cluster.create(dead_letters=1)
    await cluster.produce([a_session(1), b"{", a_session(3)])
    out = cluster.folder / "handled"
    code, printed, err = await command(*arguments(cluster, "--from", "0", routes=a_route(RECORDER, path=out)))
    assert code == 1
    assert "1 record dead-lettered" in err
    assert "could not be decoded" in printed
    (letter,) = await letters(cluster)
    assert dict(letter.headers)["session-consumer.group"] == cluster.kafka.group_id.encode()
    assert noted(out) == [(0, 0), (0, 2)]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--from", "9", "--to", "9"], 2, "--from must be before --to"),
        (["--from", "yesterday"], 2, "'yesterday' is not a time"),
        (["--from", "1969-12-31"], 2, "'1969-12-31' is no time of a record"),
        (["--from", "0", "--to", "9999-12-31T23:59:59-12:00"], 2, "is no time of a record"),
        (["--from", "0", "--route", "al"], 2, "no route 'al'; did you mean 'all'"),
        (["--from", "0", "--topic", "other"], 2, "'other' is not among kafka.topics"),
        (["--from", "0", "--partition", "7"], 1, "--partition 7: "),
    ],
)
async def test_what_is_refused(cluster: Cluster, words: list[str], code: int, text: str) -> None:
    await cluster.create()
    ended, _, err = await command(*arguments(cluster, *words, routes=a_route("consumer.handlers.log:Log")))
    assert text in err
    assert ended == code


@pytest.mark.parametrize(("answer", "code", "handled"), [(b"n\n", 130, 0), (b"y\n", 0, 3)])
async def test_a_terminal_is_asked(cluster: Cluster, answer: bytes, code: int, handled: int) -> None:
    """Handlers with effects are called only after a yes."""
    await cluster.create()
    await cluster.produce(map(a_session, range(3)))
    out = cluster.folder / "handled"
    ours, theirs = os.openpty()
    words = arguments(cluster, "--from", "0", routes=a_route(RECORDER, path=out))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "consumer", *words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(theirs)
    os.write(ours, answer)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    os.close(ours)
    assert b"Call all with them?" in err
    assert process.returncode == code
    assert len(noted(out)) == handled


async def test_the_first_interrupt_ends_the_question(cluster: Cluster) -> None:
    await cluster.create()
    await cluster.produce(map(a_session, range(3)))
    ours, theirs = os.openpty()
    words = arguments(cluster, "--from", "0", routes=a_route(RECORDER, path=cluster.folder / "handled"))
    async with started(*words, reads=theirs) as process:
        os.close(theirs)
        assert process.stderr is not None
        await process.stderr.readuntil(b"[y/N]")
        await asyncio.sleep(0.5)  # a signal between the prompt and the read of input() is seen at the next key only
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            await process.communicate()
        assert process.returncode == 130
    os.close(ours)
